"""HTTP: the shell of every server, and the client's side as a dependency."""

from __future__ import annotations

__all__: list[str] = []
