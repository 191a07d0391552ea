"""Rates: the change of a series a second."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from outlast.tables._errors import InvalidQueryError
from outlast.tables._model import INT64_MAX

if TYPE_CHECKING:
    from outlast.tables._query.aggregators import Number, Series

_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,19}")
ALLOWED: Final = "write rate, rate{counter}, rate{counter,MAX,RESET} or rate{dropcounter}"


@dataclass(frozen=True, slots=True)
class Rate:
    """The way in which a rate is made. A counter never falls: where it does it has gone past `counter_max`, or began again."""

    counter: bool = False
    counter_max: Number = INT64_MAX
    reset_value: Number = 0
    """A rate above it is a counter that began again, and becomes 0; 0: no such bound."""
    drop_resets: bool = False
    """Leave out the point at which a counter fell."""

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Return what "rate{counter,65535,100}" says. Raises `InvalidQueryError`."""
        options = text[len("rate") :]
        if not options:
            return cls()
        parts = options[1:-1].split(",")
        if not (options.startswith("{") and options.endswith("}")) or len(parts) > 3 or not parts[0].endswith("counter"):
            raise InvalidQueryError(f"{text[:50]!r} is no rate; {ALLOWED}")
        numbers = [part.strip() for part in (*parts[1:], "", "")[:2]]
        if not all(part == "" or (_NUMBER.fullmatch(part) and abs(int(part)) <= INT64_MAX) for part in numbers):
            raise InvalidQueryError(f"{text[:50]!r} has a maximum or a reset value that is no number of 64 bits; {ALLOWED}")
        counter_max, reset_value = (int(part) if part else None for part in numbers)
        return cls(True, INT64_MAX if counter_max is None else counter_max, reset_value or 0, parts[0] == "dropcounter")

    def __call__(self, points: Series) -> Series:
        """Return the rates: one for each point but the first, at its time."""
        rates: Series = []
        for (before_ms, before), (at_ms, value) in pairwise(points):
            seconds = (at_ms - before_ms) / 1_000.0
            change = value - before
            if self.counter and change < 0:
                if self.drop_resets:
                    continue
                rate = (self.counter_max - before + value) / seconds
                rates.append((at_ms, 0.0 if 0 < self.reset_value < rate else rate))
            else:
                rates.append((at_ms, change / seconds))
        return rates
