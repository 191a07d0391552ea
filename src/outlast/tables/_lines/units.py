"""Units of the times in lines: those that each API has, and the guess of the third."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from outlast.tables._errors import InvalidQueryError

Api: TypeAlias = Literal["v1", "v2", "v3"]

_NS, _US, _MS, _S = 1, 10**3, 10**6, 10**9
UNITS: Final[dict[Api, dict[str, int | None]]] = {
    "v1": {"n": _NS, "ns": _NS, "u": _US, "ms": _MS, "s": _S, "m": 60 * _S, "h": 3600 * _S},
    "v2": {"ns": _NS, "us": _US, "ms": _MS, "s": _S},
    "v3": {
        "auto": None,
        "nanosecond": _NS,
        "microsecond": _US,
        "millisecond": _MS,
        "second": _S,
        "ns": _NS,
        "n": _NS,
        "us": _US,
        "u": _US,
        "ms": _MS,
        "s": _S,
    },
}
"""Nanoseconds of each unit; None: guessed for each time. "ns" of v1 is newer than 1.6, which takes any unknown unit for it."""
DEFAULTS: Final[dict[Api, str]] = {"v1": "n", "v2": "ns", "v3": "auto"}
_GUESSES: Final = ((5 * 10**9, _S), (5 * 10**12, _MS), (5 * 10**15, _US))


def unit_of(api: Api, name: str | None) -> int | None:
    """Return the nanoseconds of a unit, None for "auto"; `name` is the parameter `precision`, None or empty where it is absent.

    Raises `InvalidQueryError` for a unit that the API does not have: to take it for another would store false times.
    """
    units = UNITS[api]
    chosen = name or DEFAULTS[api]
    if chosen not in units:
        message = f"invalid precision {chosen[:20]!r}; valid precision units are {', '.join(units)}"
        raise InvalidQueryError(message)
    return units[chosen]


def guessed_unit(time: int) -> int:
    """Return the nanoseconds of the unit that a time has by its size, as InfluxDB 3 guesses: seconds below 5e9, and so on."""
    size = abs(time)
    for below, unit in _GUESSES:
        if size < below:
            return unit
    return _NS
