"""Tables as they are made: what is known, what may be new, and the procedure that makes it."""
