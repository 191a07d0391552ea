"""The machinery of every drill: a database to break, faults, and measurement from outside."""
