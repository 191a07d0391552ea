"""Admission carried out: its clock, its waiters, and the meters of memory and of the event loop."""
