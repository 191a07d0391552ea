"""Peers that fail by a script."""
