"""The decisions of a client. Pure: no event loop, no clock, no chance but what they are given."""
