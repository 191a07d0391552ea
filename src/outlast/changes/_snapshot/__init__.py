"""The first copy of the tables, before the stream goes on from there."""
