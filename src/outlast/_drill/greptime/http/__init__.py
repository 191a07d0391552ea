"""The drill of a table that cannot be created, over HTTP: collectors that nobody has told, and a server of metrics."""
