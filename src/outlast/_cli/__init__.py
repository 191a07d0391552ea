"""The command `outlast`: run a service, drill it, look after its jobs."""
