"""The shell of a server: uvicorn's protocol on our own socket, started, bounded and stopped as a part of a service."""
