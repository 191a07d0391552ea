"""Watches: changes as they happen, from a revision on."""
