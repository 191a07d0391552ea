"""Connections that are lent, and how they end."""
