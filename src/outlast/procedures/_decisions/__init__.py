"""Decisions: who may come in, what is remembered of failures, what is released when. Pure: given the time."""
