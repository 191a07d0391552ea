"""Parts of systems whose work outlives the process: what was done is recorded, and what cannot be done is not begun."""
