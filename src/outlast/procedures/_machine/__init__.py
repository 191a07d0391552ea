"""The step machine: a record of steps in, the next thing to do out. Pure."""
