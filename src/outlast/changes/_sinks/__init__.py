"""Where changes go: the port, and the sinks that come with the package."""
