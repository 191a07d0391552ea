"""The machinery of every drill: something to break, faults, and measurement from outside."""
