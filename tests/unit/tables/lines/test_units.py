"""Units of times: those of each API, none that is unknown, and the guess of the third."""

from __future__ import annotations

from typing import Any

import pytest
from reading_lines import read

from outlast.tables import InvalidQueryError
from outlast.tables._lines.units import guessed_unit, unit_of

NS = {"n": 1, "ns": 1, "u": 10**3, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
LONG = {"nanosecond": 1, "microsecond": 10**3, "millisecond": 10**6, "second": 10**9, "auto": None}
ALLOWED = {
    "v1": {"n", "ns", "u", "ms", "s", "m", "h"},
    "v2": {"ns", "us", "ms", "s"},
    "v3": {"n", "ns", "u", "us", "ms", "s", *LONG},
}
UNITS: dict[str, int | None] = {**NS, **LONG}
OTHERS = ["xx", "S", "sec", " s", "ns ", "µs", "0"]


@pytest.mark.parametrize("api", ["v1", "v2", "v3"])
@pytest.mark.parametrize("name", [*UNITS, *OTHERS])
def test_an_api_has_its_units_and_no_others(api: Any, name: str) -> None:
    if name in ALLOWED[api]:
        assert unit_of(api, name) == UNITS[name]
    else:
        with pytest.raises(InvalidQueryError, match=r"^invalid precision .*; valid precision units are "):
            unit_of(api, name)


def test_the_message_shows_what_was_seen_and_what_is_allowed() -> None:
    with pytest.raises(InvalidQueryError) as caught:
        unit_of("v2", "xx" * 50)
    assert str(caught.value) == f"invalid precision '{'x' * 20}'; valid precision units are ns, us, ms, s"


@pytest.mark.parametrize(("api", "unit"), [("v1", 1), ("v2", 1), ("v3", None)])
@pytest.mark.parametrize("absent", [None, ""])
def test_without_one_it_is_the_originals(api: Any, unit: int | None, absent: str | None) -> None:
    assert unit_of(api, absent) == unit


@pytest.mark.parametrize(
    ("time", "unit"),
    [
        (0, 10**9),
        (1_700_000_000, 10**9),
        (4_999_999_999, 10**9),
        (-4_999_999_999, 10**9),
        (5_000_000_000, 10**6),
        (1_700_000_000_000, 10**6),
        (4_999_999_999_999, 10**6),
        (5_000_000_000_000, 10**3),
        (4_999_999_999_999_999, 10**3),
        (5_000_000_000_000_000, 1),
        (-5_000_000_000_000_000, 1),
        (1_700_000_000_000_000_000, 1),
    ],
)
def test_the_guess_by_size(time: int, unit: int) -> None:
    assert guessed_unit(time) == unit
    for lines in (1, 40):  # The slow way and the quick one.
        points = read(f"m v=1 {time}\n" * lines, unit_ns=None)
        assert [point[4] for point in points] == [time * unit] * lines
