"""The replication slot: what the server knows of it, how it is made, claimed, watched, and what goes wrong with it."""
