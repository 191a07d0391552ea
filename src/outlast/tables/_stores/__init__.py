"""Where tables lie: SQLite or PostgreSQL, behind one port."""
