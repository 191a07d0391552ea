"""Times and durations as OpenTSDB writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from outlast.tables._errors import InvalidQueryError

SECONDS_DIGITS_MAX: Final = 10
"""A time in a query of at most so many digits is in seconds, a longer one in milliseconds: the rule of OpenTSDB's DateTime."""
UNITS_MS: Final = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
    "n": 30 * 86_400_000,
    "y": 365 * 86_400_000,
}
"""Milliseconds of a unit; a month has 30 days and a year 365, as in OpenTSDB."""
TIME_MS_MAX: Final = 9_223_372_036_854
"""The last whole millisecond that fits nanoseconds of 64 bits: 2262-04-11."""
_DURATION: Final = re.compile(r"([0-9]{1,15})(ms|[smhdwny])", re.IGNORECASE)
_DOTTED: Final = re.compile(r"([0-9]{10})\.([0-9]{1,3})")
_DIGITS: Final = re.compile(r"[0-9]{1,18}")
_DATES: Final = ("%Y/%m/%d", "%Y/%m/%d-%H:%M", "%Y/%m/%d %H:%M", "%Y/%m/%d-%H:%M:%S", "%Y/%m/%d %H:%M:%S")
_ALLOWED: Final = "write seconds (1700000000), milliseconds (1700000000000), 2023/11/14-22:13:20 (UTC), 1h-ago or now"


def duration_ms(text: str) -> int:
    """Return the milliseconds of a duration such as "90s" or "500ms". Raises `InvalidQueryError`."""
    found = _DURATION.fullmatch(text)
    if found is None or int(found[1]) == 0:
        raise InvalidQueryError(f"{text[:50]!r} is no duration; write a number above 0 and one of {', '.join(UNITS_MS)}: 90s")
    span_ms = int(found[1]) * UNITS_MS[found[2].lower()]
    if span_ms > TIME_MS_MAX:
        raise InvalidQueryError(f"{text[:50]!r} is a duration of more than {TIME_MS_MAX} ms, the longest")
    return span_ms


def time_ms(text: str, now_ms: int) -> int:
    """Return a time as milliseconds since 1970. Dates are in UTC. Raises `InvalidQueryError`."""
    text = text.strip()
    lowered = text.lower()
    if lowered == "now":
        return now_ms
    if lowered.endswith("-ago"):
        return max(0, now_ms - duration_ms(lowered.removesuffix("-ago")))
    if lowered.endswith("ms") and _DIGITS.fullmatch(lowered[:-2]):
        return _in_range(int(lowered[:-2]), text)
    if "/" in text:
        return _date_ms(text)
    if dotted := _DOTTED.fullmatch(text):
        return int(dotted[1]) * 1_000 + int(dotted[2].ljust(3, "0"))
    if not _DIGITS.fullmatch(text):
        raise InvalidQueryError(f"{text[:50]!r} is no time; {_ALLOWED}")
    return _in_range(int(text) * 1_000 if len(text) <= SECONDS_DIGITS_MAX else int(text), text)


def _date_ms(text: str) -> int:
    for form in _DATES:
        try:
            found = datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
        return max(0, int(found.timestamp()) * 1_000)
    raise InvalidQueryError(f"{text[:50]!r} is no date; {_ALLOWED}")


def _in_range(value_ms: int, text: str) -> int:
    if value_ms > TIME_MS_MAX:
        raise InvalidQueryError(f"the time {text[:50]!r} is after 2262-04-11, the last that can be stored; {_ALLOWED}")
    return value_ms
