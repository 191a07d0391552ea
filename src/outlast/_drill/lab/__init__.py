"""What every drill needs: a database to break, faults, and measurement from outside."""
