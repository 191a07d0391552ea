"""One arm of a drill: a process that is started, measured and ended."""
