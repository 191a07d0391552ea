"""Points as a table and as a picture: times to the nanosecond, columns, bars."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast._cli.tables import points
from outlast._cli.tables.graph import BARS, LINES_MAX, Picture, bars, drawn
from outlast._cli.tables.query import Moment, Tag
from outlast.tables import ReadPoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

TIME_MIN_NS = -(2**63) + 2
TIME_MAX_NS = 2**63 - 2
SECOND = 1_000_000_000
NOON = 1_769_860_800 * SECOND
"""2026-01-31T12:00:00Z."""


def point(time_ns: int = NOON, tags: Mapping[str, str] | None = None, **fields: float | str | bool) -> ReadPoint:
    return ReadPoint(tuple(sorted((tags or {}).items())), time_ns, fields)


async def stream(*given: ReadPoint) -> AsyncIterator[ReadPoint]:
    for each in given:
        yield each


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (NOON, "2026-01-31T12:00:00Z"),
        (NOON + 250_000_000, "2026-01-31T12:00:00.250Z"),
        (NOON + 1_000, "2026-01-31T12:00:00.000001Z"),
        (NOON + 1, "2026-01-31T12:00:00.000000001Z"),
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (TIME_MIN_NS, "1677-09-21T00:12:43.145224194Z"),
        (TIME_MAX_NS, "2262-04-11T23:47:16.854775806Z"),
    ],
)
def test_a_time_is_text_to_the_nanosecond_and_is_read_back(time_ns: int, text: str) -> None:
    assert points.time_text(time_ns) == text
    assert points.time_of(text) == time_ns


@given(st.integers(TIME_MIN_NS, TIME_MAX_NS))
def test_every_time_is_read_back(time_ns: int) -> None:
    assert points.time_of(points.time_text(time_ns)) == time_ns


def test_an_offset_counts() -> None:
    assert points.time_of("2026-01-31T13:00:00.5+01:00") == NOON + 500_000_000


@pytest.mark.parametrize("text", ["2026-13-01T00:00:00Z", "noon", "", "5 years", "2026-1-1-1"])
def test_what_is_no_moment_is_refused_with_the_ways_to_write_one(text: str) -> None:
    with pytest.raises(
        click.BadParameter, match="is not a time; write it as 2026-01-31T12:00:00Z, or as how long ago: 90s, 1h, 7d"
    ):
        Moment().convert(text, None, None)


def test_a_moment_is_a_time_or_how_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: NOON)
    assert Moment().convert("90s", None, None) == NOON - 90 * SECOND
    assert Moment().convert("7d", None, None) == NOON - 7 * 86_400 * SECOND
    assert Moment().convert("2026-01-31T12:00:00.000000001Z", None, None) == NOON + 1


def test_a_tag_has_a_value_or_any() -> None:
    assert Tag().convert("host=a=b", None, None) == ("host", "a=b")
    assert Tag().convert("host", None, None) == ("host", None)
    for text in ("=a", "host="):
        with pytest.raises(click.BadParameter, match="write it as host=a, or host for any value"):
            Tag().convert(text, None, None)


def test_columns_of_one_name_are_told_apart() -> None:
    assert points.titles(["host", "time"], ["host", "used"]) == ["time", "tag.host", "tag.time", "field.host", "used"]


def test_a_cell_is_empty_where_a_point_has_no_value() -> None:
    given = point(NOON + 1, {"host": "a"}, on=True, used=2**60)
    expected = ["2026-01-31T12:00:00.000000001Z", "", "a", "true", "", "1152921504606846976"]
    assert points.cells(given, ["dc", "host"], ["on", "note", "used"]) == expected


def test_a_table_leaves_out_what_no_point_has(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(points.print_table(stream(point(tags={"host": "a"}, used=0.5)), ["dc", "host"], ["idle", "used"]))
    out = capsys.readouterr().out
    assert [word for word in ("time", "dc", "host", "idle", "used") if word in out] == ["time", "host", "used"]
    assert asyncio.run(points.print_table(stream(), ["host"], ["used"])) == 0
    assert capsys.readouterr().out == "no points\n"


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([], ""),
        ([None, None], "  "),
        ([1.0, 1.0], "▁▁"),
        ([0.0, None, 7.0], "▁ █"),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], BARS),
        ([-1.7e308, 1.7e308], "▁█"),
    ],
)
def test_bars_go_from_the_least_to_the_largest(values: list[float | None], drawn: str) -> None:
    assert bars(values) == drawn


def test_a_picture_has_a_line_for_each_number_of_each_series() -> None:
    a, b = {"host": "a"}, {"host": "b"}
    given = [
        point(0, a, used=1, note="text"),
        point(4, a, used=3),
        point(99, a, used=9, on=True),
        point(50, b, used=2.5),
    ]
    picture = asyncio.run(drawn(stream(*given), Picture(0, 99, 4)))
    assert [(line.name, line.means()) for line in picture.lines.values()] == [
        ("used{host=a}", [2.0, None, None, 9.0]),
        ("on{host=a}", [None, None, None, 1.0]),
        ("used{host=b}", [None, None, 2.5, None]),
    ]
    used = next(iter(picture.lines.values()))
    assert (used.least, used.most, used.last) == (1.0, 9.0, 9.0)
    assert (picture.points, picture.left_out) == (4, 0)


def test_a_picture_has_so_many_lines_and_counts_the_rest() -> None:
    picture = asyncio.run(drawn(stream(*(point(0, {"host": str(n)}, used=n) for n in range(LINES_MAX + 3))), Picture(0, 9, 2)))
    assert (len(picture.lines), picture.left_out) == (LINES_MAX, 3)
