"""The parts of a server that any ASGI application can use: problems, tokens, admission, event streams, long polls."""
