"""What a parser remembers is bounded, and what is used stays."""

from __future__ import annotations

from outlast.tables._lines.recent import Recent
from outlast.tables._series import KnownSeries


def test_at_most_what_was_allowed_is_kept() -> None:
    recent = Recent[int, str](100)
    for key in range(1_000):
        recent.put(key, str(key))
        assert len(recent) <= 100
    assert [recent.get(key) for key in (0, 899)] == [None, None]
    assert [recent.get(key) for key in range(951, 1_000)] == [str(key) for key in range(951, 1_000)]


def test_what_is_asked_for_stays() -> None:
    recent = Recent[int, str](100)
    recent.put(-1, "old")
    for key in range(1_000):
        recent.put(key, "new")
        if key % 20 == 0:
            assert recent.get(-1) == "old"


def test_the_smallest_keeps_what_was_used_last() -> None:
    recent = Recent[int, str](1)
    recent.put(1, "a")
    assert recent.get(1) == "a"
    recent.put(2, "b")
    assert (recent.get(1), recent.get(2)) == (None, "b")


def test_a_series_is_one_object_as_long_as_it_is_known() -> None:
    known = KnownSeries(4)
    series = known.get("m", (("a", "1"),))
    assert known.get("m", (("a", "1"),)) is series
    assert known.get("n", (("a", "1"),)) is not series
    assert (series.table, series.tags, series.id, series.of) == ("m", (("a", "1"),), 0, None)
    for number in range(10):
        known.get("m", (("a", f"x{number}"),))
        assert len(known) <= 4
    assert known.get("m", (("a", "1"),)) is not series
