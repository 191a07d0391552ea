"""The port of sinks, and the sinks that come with the package."""
