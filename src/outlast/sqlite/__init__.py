"""SQLite as a dependency."""

from __future__ import annotations

__all__: list[str] = []
