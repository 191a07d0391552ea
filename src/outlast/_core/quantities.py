"""Counts and sizes as people read them."""

from __future__ import annotations


def amount(count: int, noun: str) -> str:
    """Return a count with its noun: `1 line`, `12,345 lines`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def size_text(size_bytes: float) -> str:
    """Return bytes in the largest binary unit that fits: `512 B`, `4.0 KiB`, `64.0 MiB`."""
    if size_bytes < 1024:
        return f"{size_bytes:.0f} B"
    value = size_bytes / 1024
    for unit in ("KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
