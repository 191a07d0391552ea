"""The stores that tables lie in: SQLite or PostgreSQL, behind one port."""
