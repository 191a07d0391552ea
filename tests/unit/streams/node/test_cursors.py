"""Cursors: a client never gets one that it had, and an answer in the same interval has the same one."""

from __future__ import annotations

from datetime import datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.streams._node.live.cursors import CURSOR_MAX, EPOCH_S, INTERVAL_S, next_cursor, parse_cursor


def test_it_is_the_number_of_an_interval_of_twenty_seconds() -> None:
    assert datetime.fromisoformat("2024-10-09T00:00:00Z").timestamp() == EPOCH_S
    assert [next_cursor(EPOCH_S + after, None, Random(1)) for after in (0, 19.9, 20, 40_000)] == [0, 0, 1, 2000]


def test_a_clock_before_the_first_interval_is_in_it() -> None:
    assert next_cursor(0.0, None, Random(1)) == 0


@given(st.integers(0, 10**9), st.integers(0, CURSOR_MAX), st.integers(0, 100))
def test_a_client_gets_a_later_one_than_it_had(after_s: int, seen: int, seed: int) -> None:
    cursor = next_cursor(EPOCH_S + after_s, seen, Random(seed))
    assert cursor > seen
    assert cursor <= max(after_s // INTERVAL_S, seen + 180), "an hour of intervals ahead, at most"


def test_those_who_had_the_same_are_parted() -> None:
    assert len({next_cursor(EPOCH_S, 0, Random(seed)) for seed in range(100)}) > 50


@pytest.mark.parametrize(
    "text", [None, "", "+1", "-1", " 7", "1_0", "07", "\u0661", "1.5", "9" * 17, "9" * 5000, str(CURSOR_MAX + 1)]
)
def test_what_no_server_has_sent_counts_as_none(text: str | None) -> None:
    assert parse_cursor(text) is None


def test_what_a_server_has_sent_is_read() -> None:
    assert [parse_cursor("0"), parse_cursor("3380613")] == [0, 3380613]
