"""The fold: batches written one after the other are as if each point had been."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from outlast.tables._writing.fold import FEW, ROWS_ENOUGH, Folded, fold


@dataclass
class Batch:
    fields: tuple[str, ...]
    rows: list[list[Any]]
    places: list[int]
    body: int = 0


def batch(fields: str, *rows: list[Any], body: int = 0, places: list[int] | None = None) -> Batch:
    return Batch(tuple(fields.split()), list(rows), places or list(range(1, len(rows) + 1)), body)


def folded(*batches: Batch) -> list[tuple[str, list[list[Any]], list[int]]]:
    return [(" ".join(each.fields), each.rows, each.sources) for each in fold(batches)]


def test_rows_of_other_series_or_times_stay_as_they_are() -> None:
    rows = [[1, 1, "a"], [2, 1, "b"], [1, 2, "c"]]
    found = fold([batch("f", *rows)])
    assert found == [Folded(("f",), rows, [0])]
    assert found[0].rows[0] is rows[0]


def test_the_later_row_of_a_key_wins() -> None:
    assert folded(batch("f", [1, 1, "a"], [2, 1, "b"], [1, 1, "c"])) == [("f", [[1, 1, "c"], [2, 1, "b"]], [0])]
    assert folded(batch("f", [1, 1, "a"]), batch("f", [1, 1, "b"], body=1)) == [("f", [[1, 1, "b"]], [0, 1])]


def test_fields_that_have_none_in_common_are_written_as_they_came() -> None:
    assert folded(batch("f", [1, 1, "a"]), batch("g", [1, 1, "b"])) == [("f", [[1, 1, "a"]], [0]), ("g", [[1, 1, "b"]], [1])]


def test_fields_in_common_are_no_matter_where_no_key_is() -> None:
    assert folded(batch("f", [1, 1, "a"]), batch("f g", [1, 2, "b", "c"])) == [
        ("f", [[1, 1, "a"]], [0]),
        ("f g", [[1, 2, "b", "c"]], [1]),
    ]


def test_what_is_absent_never_overwrites_and_the_order_is_that_of_the_lines() -> None:
    first = batch("f", [1, 1, "old"], [1, 1, "new"], [7, 7, "x"], places=[1, 3, 4])
    second = batch("g f", [1, 1, "g", "between"], places=[2])
    assert folded(first, second) == [("f g", [[1, 1, "new", "g"]], [0, 1]), ("f", [[7, 7, "x"]], [0, 1])]


def test_bodies_come_in_their_order_whatever_their_places() -> None:
    first = batch("f", [1, 1, "first"], places=[9], body=0)
    second = batch("f g", [1, 1, "second", "g"], places=[1], body=1)
    assert folded(first, second) == [("f g", [[1, 1, "second", "g"]], [0, 1])]


def test_batches_that_are_large_enough_are_not_compared() -> None:
    many = [[1, time, "a"] for time in range(ROWS_ENOUGH)]
    found = fold([batch("f", *many), batch("f", [1, 0, "b"], body=1), batch("f", [1, 0, "c"], body=2)])
    assert [(len(each.rows), each.sources) for each in found] == [(ROWS_ENOUGH, [0]), (1, [1, 2])]
    assert found[1].rows == [[1, 0, "c"]]


VALUES = st.integers(0, 9)
KEYS = st.tuples(st.integers(1, 3), st.integers(1, 3))
POINTS = st.tuples(KEYS, st.dictionaries(st.sampled_from("fgh"), VALUES, min_size=1))
BODIES = st.lists(st.lists(POINTS, min_size=1, max_size=12), min_size=1, max_size=4)


def batches_of(bodies: list[list[tuple[tuple[int, int], dict[str, int]]]]) -> list[Batch]:
    """As a parser groups points: by their fields in the order in which they came."""
    found: list[Batch] = []
    for number, points in enumerate(bodies):
        by_fields: dict[tuple[str, ...], Batch] = {}
        for place, (key, fields) in enumerate(points):
            one = by_fields.setdefault(tuple(fields), Batch(tuple(fields), [], [], number))
            one.rows.append([*key, *fields.values()])
            one.places = [*one.places, place]
        found += by_fields.values()
    return found


def written(groups: list[Any]) -> dict[tuple[int, int], dict[str, int]]:
    """What a store has after these groups, one after the other."""
    held: dict[tuple[int, int], dict[str, int]] = {}
    for group in groups:
        for series, time, *values in group.rows:
            held.setdefault((series, time), {}).update(zip(group.fields, values, strict=True))
    return held


@given(BODIES)
@example([[((1, 1), {"f": 1}), ((1, 1), {"f": 2, "g": 2}), ((1, 1), {"f": 3})]])
@example([[((1, time), {"f": 1}) for time in (1, 2, 3)] * FEW, [((2, time), {"f": 1}) for time in (1, 2, 3)] * FEW])
def test_a_fold_holds_what_a_dictionary_holds(bodies: list[list[tuple[tuple[int, int], dict[str, int]]]]) -> None:
    model: dict[tuple[int, int], dict[str, int]] = {}
    for points in bodies:
        for key, fields in points:
            model.setdefault(key, {}).update(fields)
    batches = batches_of(bodies)
    copies = [[list(row) for row in each.rows] for each in batches]
    found = fold(batches)
    assert written(found) == model
    for group in found:
        keys = [tuple(row[:2]) for row in group.rows]
        assert len(set(keys)) == len(keys)
        # Whoever sent a point that is in a row can be told.
        assert set(keys) <= {tuple(row[:2]) for source in group.sources for row in batches[source].rows}
    assert [each.rows for each in batches] == copies


@pytest.mark.parametrize("same", ["time", "series", "neither", "both"])
def test_bodies_of_many_rows_are_told_apart_by_series_or_by_time(same: str) -> None:
    rows = [[series, 1, "a"] for series in range(FEW + 1)]
    others = [[series + 100 * (same != "series"), 1 + (same != "time"), "b"] for series in range(FEW + 1)]
    if same == "both":
        others = [[series, 1, "b"] for series in range(FEW + 1)]
    [found] = fold([batch("f", *rows), batch("f", *others, body=1)])
    assert len(found.rows) == (FEW + 1) * (1 if same == "both" else 2)
    assert found.rows == (others if same == "both" else rows + others)
