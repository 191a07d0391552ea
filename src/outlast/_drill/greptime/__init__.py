"""The drill of doomed work: writes to a table that cannot be created."""
