"""Stores: one port, and SQLite, PostgreSQL and etcd behind it."""
