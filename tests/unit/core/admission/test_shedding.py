"""The lines of refusals depend on how long they last and on the reasons, never on how often."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest

from outlast._core.admission.shedding import QUIET_S, Shedding
from outlast._core.admission.values import Reason, Refusal

RATE = Refusal(Reason.RATE, 120.0, 100.0, 0.5)
MEMORY = Refusal(Reason.MEMORY, 240 * 2**20, 256 * 2**20, 2.0)


def lines_until(book: Shedding, end: float) -> list[tuple[float, str]]:
    """Ask when the book says it is due, up to `end`."""
    said: list[tuple[float, str]] = []
    while (next_at := book.next_at) is not None and next_at <= end:
        said += [(next_at, line.text) for line in book.due(next_at)]
    return said


@pytest.mark.parametrize("rate_per_s", [1, 1000])
def test_a_minute_of_refusals_is_three_lines_however_many_there_are(rate_per_s: int) -> None:
    book = Shedding("admission orders")
    said: list[str] = []
    for tick in range(60 * rate_per_s):
        now = tick / rate_per_s
        line = book.refused(RATE, now)
        said += [line.text] if line else []
        if (next_at := book.next_at) is not None and next_at <= now:
            said += [line.text for line in book.due(now)]
    said += [text for _, text in lines_until(book, 1000.0)]
    count = 60 * rate_per_s
    at_reminder = 30 * rate_per_s + 1
    assert said == [
        "admission orders refuses work by rate: 120 a second, limit 100 - send less, or agree on a higher rate",
        f"admission orders still refuses work by rate after 30 s: {at_reminder:,} refused",
        f"admission orders no longer refuses work by rate: {count:,} refused in {60 - 1 / rate_per_s:.1f} s",
    ]
    assert book.open == []


def test_each_reason_has_a_spell_of_its_own() -> None:
    book = Shedding("admission orders")
    assert book.refused(RATE, 0.0) is not None
    assert book.refused(MEMORY, 10.0) is not None
    assert book.refused(RATE, 11.0) is None
    assert [text for _, text in lines_until(book, 500.0)] == [
        "admission orders still refuses work by rate after 30 s: 2 refused",
        "admission orders no longer refuses work by memory: 1 refused in 0.0 s",
        "admission orders no longer refuses work by rate: 2 refused in 11.0 s",
    ]


def test_what_refuses_once_in_less_than_the_quiet_time_is_one_spell_with_ever_fewer_reminders() -> None:
    book = Shedding("admission orders")
    said = [] if book.refused(RATE, 0.0) is None else [0.0]
    now = 0.0
    while now < 4000.0:
        now += QUIET_S - 1.0
        said += [at for at, _ in lines_until(book, now)]
        assert book.refused(RATE, now) is None
    gaps = [after - before for before, after in pairwise(said)]
    assert gaps[:5] == [30.0, 60.0, 120.0, 240.0, 480.0]
    assert max(gaps) == 900.0


@pytest.mark.parametrize(("refusal", "level"), [(RATE, logging.INFO), (MEMORY, logging.WARNING)], ids=["rate", "memory"])
def test_callers_above_what_was_agreed_are_no_warning_a_service_in_trouble_is(refusal: Refusal, level: int) -> None:
    book = Shedding("admission orders")
    line = book.refused(refusal, 0.0)
    assert line is not None
    book.refused(refusal, 29.0)
    assert [line.level, *(line.level for line in book.due(30.0)), *(line.level for line in book.due(90.0))] == [
        level,
        level,
        logging.INFO,
    ]


def test_after_the_quiet_time_a_refusal_is_news_again() -> None:
    book = Shedding("admission orders")
    book.refused(RATE, 0.0)
    lines_until(book, 100.0)
    line = book.refused(RATE, 100.0)
    assert line is not None
    assert line.fields["outlast.code"] == "rate"


def test_the_end_of_the_service_closes_what_is_open_with_its_count() -> None:
    book = Shedding("admission orders")
    for at in range(3):
        book.refused(RATE, float(at))
    assert [line.text for line in book.end(2.0)] == ["admission orders no longer refuses work by rate: 3 refused in 2.0 s"]
    assert list(book.end(2.0)) == []
    assert book.next_at is None
