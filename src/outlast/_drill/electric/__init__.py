"""The drill of a replication slot that somebody else holds."""
