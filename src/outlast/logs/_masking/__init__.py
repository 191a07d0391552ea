"""One set of rules for all that is folded: what tells one line from another, and what only numbers an instance."""
