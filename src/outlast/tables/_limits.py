"""The limits of tables: *new refused, known accepted*."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Final

from outlast import ConfigurationError

FIELDS_LIMIT: Final = 1_000
RATE_MIN: Final = 1e-6
"""Of the rates: one in two years is none."""
NUMBER_MAX: Final = 1_000_000_000
"""The largest of any limit: a bucket holds no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLimits:
    """The bounds of what writers may make. At a bound the new is refused, and what is known goes on.

    Raises `ConfigurationError` for a value that cannot be.
    """

    tables_max: int = 10_000
    """Tables; a point of one more is refused, NEVER."""
    fields_max: int = 500
    """Fields of a table; a point with one more is refused, NEVER. At most 1,000."""
    tag_values_max: int = 100_000
    """Values of one tag of one table; a point with one more is refused, NEVER."""
    tables_per_minute: float = 600.0
    """New tables, with a burst of as many; a point of one beyond them is refused, LATER (429)."""
    fields_per_minute: float = 6_000.0
    """New fields of all tables, with a burst of as many; as above."""
    points_per_s: float | None = None
    """Points of one token, with a burst of ten seconds' worth; a body beyond them is refused, LATER (429). None: no quota."""
    points_max: int = 200_000
    """Points that wait to be written, of all bodies; a body beyond them is refused, LATER (503)."""
    future_s: float | None = None
    """The furthest that a time may be ahead of the server's clock; a point beyond it is refused, NEVER. None: no such bound."""

    def __post_init__(self) -> None:
        """Check each against its range."""
        for name in ("tables_max", "tag_values_max", "points_max"):
            _check(name, getattr(self, name), 1, NUMBER_MAX, whole=True)
        _check("fields_max", self.fields_max, 1, FIELDS_LIMIT, whole=True)
        for name in ("tables_per_minute", "fields_per_minute"):
            _check_rate(name, getattr(self, name), NUMBER_MAX)
        if self.points_per_s is not None:
            _check_rate("points_per_s", self.points_per_s, NUMBER_MAX // 10)
        if self.future_s is not None:
            _check("future_s", self.future_s, 0, NUMBER_MAX // 10)


def _check_rate(name: str, value: float, most: int) -> None:
    _check(name, value, 0, most)
    if 0 < value < RATE_MIN:
        msg = f"limits of tables: {name} must be at least {RATE_MIN:g}, or 0 for none at all, not {value!r}"
        raise ConfigurationError(msg)


def _check(name: str, value: object, least: int, most: int, *, whole: bool = False) -> None:
    is_number = isinstance(value, int) or (isinstance(value, float) and not whole and isfinite(value))
    if is_number and not isinstance(value, bool) and isinstance(value, int | float) and least <= value <= most:
        return
    kind = "a whole number" if whole else "a number"
    msg = f"limits of tables: {name} must be {kind} from {least} to {most}, not {value!r}"
    raise ConfigurationError(msg)
