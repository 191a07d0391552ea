"""The verdict on a body, and the waits that are told with it."""

from __future__ import annotations

import math

import pytest
from standin import refusal

from outlast import Kind
from outlast.tables._http.answers import Verdict, retry_after, verdict
from outlast.tables._model import PointOutcome, Written

LATER, NEVER, PERSON = PointOutcome.LATER, PointOutcome.NEVER, PointOutcome.PERSON
BAD = refusal(1, NEVER, Kind.REJECTED, "line", "no field")
AWAY = refusal(2, LATER, Kind.TRANSIENT, "57P01", "the server stops")
RATE = refusal(3, LATER, Kind.OVERLOADED, "rate", "too many new tables")
SHARE = refusal(4, LATER, Kind.OVERLOADED, "share", "its share")
VIEW = refusal(5, PERSON, Kind.PERMANENT, "name taken", "a view")


def written(
    *refused: object, stored: int = 0, retry_after_s: float | None = 2.0, more: dict[PointOutcome, int] | None = None
) -> Written:
    """The fate of a body with these refusals, and `more` that are counted alone."""
    counts = dict(more or {})
    for each in refused:
        counts[each.outcome] = counts.get(each.outcome, 0) + 1  # type: ignore[attr-defined] # refusals
    return Written(stored + sum(counts.values()), stored, refused, counts, retry_after_s)  # type: ignore[arg-type] # refusals


def test_all_stored_is_204() -> None:
    assert verdict(written(stored=3)) == Verdict(204)
    assert verdict(written()) == Verdict(204)


@pytest.mark.parametrize(
    ("fate", "whole", "status", "cause"),
    [
        (written(BAD, stored=1), False, 400, BAD),
        (written(BAD), False, 400, BAD),
        (written(AWAY, stored=1), False, 503, AWAY),
        (written(BAD, AWAY), False, 503, AWAY),
        (written(RATE, SHARE), False, 429, RATE),
        (written(RATE, AWAY), False, 503, RATE),
        (written(VIEW), False, 503, VIEW),
        (written(BAD, VIEW), False, 503, VIEW),
        (written(VIEW, stored=1), False, 400, VIEW),
        (written(VIEW, RATE, stored=1), False, 429, RATE),
        (written(BAD, AWAY, VIEW), True, 400, BAD),
        (written(AWAY, VIEW), True, 503, AWAY),
        (written(VIEW), True, 503, VIEW),
        # Refusals that are not told one by one count all the same.
        (written(BAD, more={LATER: 1}), False, 503, None),
        (written(stored=1, more={NEVER: 1}), False, 400, None),
        (written(BAD, more={NEVER: 5, PERSON: 1}), True, 400, BAD),
    ],
)
def test_the_verdict(fate: Written, *, whole: bool, status: int, cause: object) -> None:
    found = verdict(fate, whole=whole)
    assert (found.status, found.cause) == (status, cause)
    assert found.retry_after_s == (None if status == 400 else 2.0)


def test_where_nobody_knows_how_long_it_is_a_second() -> None:
    assert verdict(written(AWAY, retry_after_s=None)).retry_after_s == 1.0


@pytest.mark.parametrize(
    ("seconds", "value"),
    [
        *((0.0, b"1"), (0.2, b"1"), (1.0, b"1"), (1.01, b"2"), (59.5, b"60"), (-3.0, b"1")),
        *((86_400.0, b"86400"), (1e12, b"86400"), (math.inf, b"86400"), (math.nan, b"86400")),
    ],
)
def test_retry_after_is_whole_seconds_up_to_a_day(seconds: float, value: bytes) -> None:
    assert retry_after(seconds) == ((b"retry-after", value),)


def test_and_none_where_a_repeat_is_of_no_use() -> None:
    assert retry_after(None) == ()
