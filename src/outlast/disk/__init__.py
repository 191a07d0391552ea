"""A disk as a dependency: watched before it is full."""

from __future__ import annotations

__all__: list[str] = []
