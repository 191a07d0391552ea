"""Durations as people type them: `20s`, `1m`, `500ms`, `1.5h`, `30d`, or a plain number of seconds."""

from __future__ import annotations

import math
import re

_UNIT_S = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_SHAPE = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|m|h|d|)\s*")


def parse_duration(text: str) -> float:
    """Read a duration in seconds; raises ValueError with the accepted spellings when it is none."""
    match = _SHAPE.fullmatch(text.lower())
    if match is None:
        msg = f"{text!r} is not a duration; write it as 20s, 1m, 500ms, 1.5h, 30d or a number of seconds"
        raise ValueError(msg)
    seconds = float(match[1]) * _UNIT_S[match[2]]
    if not math.isfinite(seconds):
        msg = f"{text!r} is not a finite duration"
        raise ValueError(msg)
    return seconds


def format_duration(seconds: float) -> str:
    """Write a duration the short way: `0.35 s`, `20 s`, `3 min 20 s`."""
    if seconds >= 60.0:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    if seconds >= 10.0:
        return f"{seconds:.0f} s"
    return f"{seconds:.2f} s"
