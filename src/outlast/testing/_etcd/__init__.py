"""A real etcd server that a test may break."""
