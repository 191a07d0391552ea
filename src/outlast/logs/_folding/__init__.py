"""When log records say the same, and what becomes of those that do."""
