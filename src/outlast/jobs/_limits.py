"""The limits of what a job, a handler and a queue may ask for.

A limit is checked where the value comes in, and named in the refusal.
The limits are far from what the columns hold, so that sums of them stay within PostgreSQL's and Python's ranges as well.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final

from outlast.jobs._model import InvalidJobError

SECONDS_MAX: Final = 100 * 365.25 * 86_400
"""A hundred years, of a delay, deadline, retention or age."""
TIME_END: Final = datetime(9000, 1, 1, tzinfo=UTC)
"""Times are before this: Python's end with the year 9999, in every time zone."""
LEASE_S_MAX: Final = 30 * 86_400.0
POLL_S_MAX: Final = 86_400.0
TIMEOUT_S_MAX: Final = 30 * 86_400.0
NAME_BYTES_MAX: Final = 2_000
"""Of a kind, queue or unique key: an index entry of PostgreSQL holds some 2,700 bytes."""
PRIORITY_MAX: Final = 2**31 - 1
ATTEMPTS_LIMIT: Final = 1_000_000
PAYLOAD_BYTES_LIMIT: Final = 16 * 1024 * 1024
"""The largest `payload_bytes_max`: a journal of 64 MiB holds a few results of that size."""
ID_MAX: Final = 2**63 - 1


def seconds(name: str, value: object, *, least: float = 0.0, most: float = SECONDS_MAX) -> float:
    """Return a duration as a float. Raises `InvalidJobError` if it is out of the range."""
    if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
        return float(value)
    msg = f"{name} must be from {least:g} to {most:g} seconds, not {_seen(value)}"
    raise InvalidJobError(msg)


def above_zero(name: str, value: object, most: float) -> float:
    """Return a duration above 0 as a float. Raises `InvalidJobError`."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= most:
        return float(value)
    msg = f"{name} must be above 0 seconds and at most {most:g}, not {_seen(value)}"
    raise InvalidJobError(msg)


def number(name: str, value: object, least: int, most: int) -> int:
    """Return a whole number. Raises `InvalidJobError` if it is none, or out of the range."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return int(value)
    msg = f"{name} must be a whole number from {least} to {most}, not {_seen(value)}"
    raise InvalidJobError(msg)


def moment(name: str, value: object) -> datetime:
    """Return a time in UTC. One without a time zone is local time, as everywhere in Python. Raises `InvalidJobError`."""
    limit = "before the year 9000"
    if not isinstance(value, datetime):
        msg = f"{name} must be a datetime {limit}, not {_seen(value)}"
        raise InvalidJobError(msg)
    try:
        at = value.astimezone(UTC)
    except (ValueError, OverflowError):
        at = TIME_END
    if at < TIME_END:
        return at
    msg = f"{name} must be {limit}, not {value.isoformat()}"
    raise InvalidJobError(msg)


def named(name: str, value: object) -> str:
    """Return a kind, queue or unique key. Raises `InvalidJobError` if no column takes it."""
    if not isinstance(value, str) or not value:
        msg = f"{name} must be a text that is not empty, not {_seen(value)}"
        raise InvalidJobError(msg)
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        size = -1
    if size < 0 or "\x00" in value:
        msg = f"{name} {_seen(value)} holds a character that PostgreSQL does not store: NUL, or half a surrogate pair"
        raise InvalidJobError(msg)
    if size > NAME_BYTES_MAX:
        msg = f"{name} must have at most {NAME_BYTES_MAX} bytes, not {size}"
        raise InvalidJobError(msg)
    return value


def bounded_delay_s(delay_s: float, least: float = 0.0) -> float:
    """Return a wait that a peer or a backoff of the user's asked for, brought into the range; NaN becomes `least`."""
    if math.isnan(delay_s) or delay_s < least:
        return least
    return min(float(delay_s), SECONDS_MAX)


def _seen(value: object) -> str:
    try:
        text = ascii(value)
    except Exception:  # noqa: BLE001 - an int of more than 4,300 digits, a broken __repr__
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 60 else f"{text[:60]}..."
