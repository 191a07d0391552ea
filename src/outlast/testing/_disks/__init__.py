"""Small real disks that run full, turn read-only, fail and hang on request."""
