"""The drill of a log whose disk runs full."""
