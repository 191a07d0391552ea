"""Retry-After, both ways: the wait that a refusal names, and what a peer's text means."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random

RATE_SPREAD: Final = 0.2
"""A bucket's exact wait is lengthened by up to a fifth: clients refused at one instant do not come back at another one."""
WAIT_S_MIN: Final = 1.0
WAIT_S_MAX: Final = 30.0
"""Within half a minute of the end of an overload everybody has come back."""
_PERIOD_S: Final = 1.0
"""The time over which it is counted what was served: this period, and the one before."""
_KNOWN_S: Final = 0.02
"""The shortest time from which something is known."""
_PACE: Final = 1.2
"""The returns for each that is served."""

PARSED_S_MAX: Final = 3600.0
"""The longest wait that a peer may ask for. A peer that says a year, or the year 9999, is asked again after an hour."""

_SECONDS = re.compile(r"[0-9]+")
_DAY = "Mon|Tue|Wed|Thu|Fri|Sat|Sun"
_MONTH = "(?P<month>[A-Z][a-z]{2})"
_CLOCK = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_DATES = (
    # Sun, 06 Nov 1994 08:49:37 GMT: IMF-fixdate, the one that may be sent today.
    re.compile(rf"(?:{_DAY}), (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_CLOCK} GMT"),
    # Sunday, 06-Nov-94 08:49:37 GMT: RFC 850.
    re.compile(rf"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_CLOCK} GMT"),
    # Sun Nov  6 08:49:37 1994: asctime.
    re.compile(rf"(?:{_DAY}) {_MONTH} (?P<day>[0-9 ][0-9]) {_CLOCK} (?P<year>[0-9]{{4}})"),
)
"""The three forms of RFC 9110, section 5.6.7: a recipient must accept all of them. A time zone other than GMT is none of them."""
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def parse(text: str, wall_s: float, longest_s: float = PARSED_S_MAX) -> float | None:
    """Return the seconds that a peer's `Retry-After` asks to wait, above 0 and at most `longest_s`.

    None for what says nothing: the caller waits as its own backoff has it. That is everything but ASCII digits and the dates
    of RFC 9110, and also 0 and a date in the past, so that "at once" is no hot loop. `wall_s` is the wall clock, in
    seconds since 1970. Raises nothing, whatever the text.
    """
    text = text.strip(" \t")
    if _SECONDS.fullmatch(text):
        # Thousands of digits are infinity to `float`; `int` refuses them.
        wait_s = float(text)
    else:
        at_s = _date_s(text, wall_s)
        if at_s is None:
            return None
        wait_s = at_s - wall_s
    return min(wait_s, longest_s) if wait_s > 0 else None


def _date_s(text: str, wall_s: float) -> float | None:
    match = next(filter(None, (form.fullmatch(text) for form in _DATES)), None)
    if match is None or match["month"] not in _MONTHS:
        return None
    year, second = int(match["year"]), int(match["second"])
    try:
        if len(match["year"]) == 2:
            # RFC 9110: two digits that seem to be more than 50 years ahead are of the past century.
            this_year = datetime.fromtimestamp(wall_s, UTC).year
            year += this_year - this_year % 100
            year -= 100 * (year > this_year + 50)
        # A leap second is written as 60.
        date = datetime(
            year,
            _MONTHS.index(match["month"]) + 1,
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            min(second, 59) if second <= 60 else second,
            tzinfo=UTC,
        )
    except ValueError:
        # The 31st of February, 25 o'clock.
        return None
    return date.timestamp()


def rate_wait_s(wait_s: float, rng: random.Random) -> float:
    """Return a bucket's exact wait, lengthened by up to a fifth."""
    return wait_s * (1.0 + RATE_SPREAD * rng.random())


class Returns:
    """The waits of those who were refused for want of room: a queue in which nobody stands, only times are given out.

    Each refusal is given the next place in it, and the places are `1 / (1.2 × served)` apart, where `served` is what is served
    a second. So those who were sent away come back as fast as they can be served, and a fifth faster: the store has work,
    and a fifth is what refusing them again costs. A place that would be more than `WAIT_S_MAX` away is not given out: the wait is
    then anywhere in the last half of that. When nobody has been refused for a second there is room, and all places are free.
    Count by adding to `served`.
    """

    __slots__ = ("_began_at", "_next_at", "_refused_at", "_served_before", "served")

    def __init__(self) -> None:
        self.served = 0
        """Served in this period. Add to it directly."""
        self._served_before = 0
        self._began_at = -math.inf
        self._refused_at = -math.inf
        self._next_at = -math.inf
        """The time of the place that was given out last."""

    def wait_s(self, now: float, rng: random.Random) -> float:
        """Return the seconds after which it is worth coming back, jittered: from 1 to 30."""
        if now - self._began_at >= _PERIOD_S:
            self._turn(now)
        next_at = now if now - self._refused_at >= _PERIOD_S else self._next_at
        self._refused_at = now
        served = self._served_before + self.served
        soonest_at = now + WAIT_S_MIN
        if not served:
            # Nothing is known yet, and so no place is given out.
            self._next_at = max(next_at, soonest_at)
            return WAIT_S_MIN * (1.0 + rng.random())
        period_s = max(now - self._began_at, _KNOWN_S) + (_PERIOD_S if self._served_before else 0.0)
        next_at = max(next_at, soonest_at) + period_s / (_PACE * served)
        longest_s = WAIT_S_MAX / (1.0 + RATE_SPREAD)
        self._next_at = min(next_at, now + longest_s)
        if next_at - now > longest_s:
            return WAIT_S_MAX * (0.5 + 0.5 * rng.random())
        return (next_at - now) * (1.0 + RATE_SPREAD * rng.random())

    def _turn(self, now: float) -> None:
        # What was counted before a period in which nobody asked says nothing about now.
        self._served_before = self.served if now - self._began_at < 2 * _PERIOD_S else 0
        self.served = 0
        self._began_at = now
