"""Counts and sizes as people read them."""

from __future__ import annotations


def amount(count: int, noun: str) -> str:
    """`1 line`, `12,345 lines`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def size(count: int) -> str:
    """Bytes as people read them: `512 B`, `4.0 KiB`, `64.0 MiB`."""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1024:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"
