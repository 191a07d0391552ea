"""Services, their workers, and how they stop."""
