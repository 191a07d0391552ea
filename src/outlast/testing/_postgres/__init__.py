"""A real PostgreSQL server that a test may break."""
