"""Decides which log records say the same, and counts those that do."""
