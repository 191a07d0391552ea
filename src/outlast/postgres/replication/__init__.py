"""The replication protocol: a session, its commands, and the stream of changes it copies."""
