"""One login, asked for byte by byte: what the server refuses it with."""
