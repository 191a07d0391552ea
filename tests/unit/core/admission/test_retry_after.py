"""Retry-After: what a peer's text means, and waits that help and are spread."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast._core.admission.bucket import Bucket, Rate
from outlast._core.admission.retry_after import PARSED_S_MAX, Returns, parse, rate_wait_s

WALL_S = datetime(2026, 11, 30, 12, 0, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-5",
        "+5",
        "nan",
        "inf",
        "0",
        "000",
        "1_0",
        "1.5",
        "1e3",
        "0x10",
        "120, 240",
        "120;",
        "soon",
        "１２",
        "²",
        "5 seconds",
        "\n5",
        "5\n",
        "Mon, 30 Nov 2026 12:01:00 -0000",
        "Mon, 30 Nov 2026 12:01:00 +0000",
        "Mon, 30 Nov 2026 12:01:00 UTC",
        "Mon, 30 Nov 2026 12:01:00",
        "Mon, 30 Nov 2026 11:59:59 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Mon, 31 Feb 2027 12:01:00 GMT",
        "Mon, 30 Nov 2026 24:01:00 GMT",
        "Mon, 30 Nov 2026 12:60:00 GMT",
        "Mon, 30 Nov 2026 12:01:61 GMT",
        "Mon, 30 Now 2026 12:01:00 GMT",
        "mon, 30 nov 2026 12:01:00 gmt",
        "Mon, 00 Nov 0000 12:01:00 GMT",
        "2026-11-30T12:01:00Z",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ],
)
def test_what_says_nothing_or_at_once_leaves_the_wait_to_our_own_backoff(text: str) -> None:
    assert parse(text, WALL_S) is None


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("1", 1.0),
        ("120", 120.0),
        ("0120", 120.0),
        (" 120 ", 120.0),
        ("Mon, 30 Nov 2026 12:01:00 GMT", 60.0),
        ("Fri, 30 Nov 2026 12:01:00 GMT", 60.0),
        ("Mon, 30 Nov 2026 12:01:60 GMT", 119.0),
        ("Monday, 30-Nov-26 12:01:00 GMT", 60.0),
        ("Mon Nov 30 12:01:00 2026", 60.0),
        ("Tue Dec  1 00:00:00 2026", PARSED_S_MAX),
        ("3600", PARSED_S_MAX),
        ("3601", PARSED_S_MAX),
        ("9" * 5_000, PARSED_S_MAX),
        ("0" * 5_000 + "7", 7.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", PARSED_S_MAX),
        ("Friday, 31-Dec-76 23:59:59 GMT", PARSED_S_MAX),
    ],
)
def test_digits_and_dates_are_understood_and_capped(text: str, wait_s: float) -> None:
    assert parse(text, WALL_S) == wait_s


def test_two_digits_of_a_year_more_than_fifty_years_ahead_are_of_the_past() -> None:
    assert parse("Saturday, 31-Dec-77 23:59:59 GMT", WALL_S) is None


def test_a_client_has_a_cap_of_its_own() -> None:
    assert parse("120", WALL_S, longest_s=30.0) == 30.0


@given(st.text(max_size=40) | st.from_regex(r"[0-9A-Za-z:, -]{0,40}"))
def test_no_text_raises_and_no_answer_is_a_hot_loop(text: str) -> None:
    wait_s = parse(text, WALL_S)
    assert wait_s is None or 0 < wait_s <= PARSED_S_MAX


@given(st.integers(1, int(PARSED_S_MAX)))
def test_the_dates_that_others_write_are_understood(ahead_s: int) -> None:
    assert parse(formatdate(WALL_S + ahead_s, usegmt=True), WALL_S) == ahead_s


@given(st.floats(0.1, 1e4), st.integers())
def test_whoever_waits_for_a_token_never_comes_too_early(per_s: float, seed: int) -> None:
    bucket, rng = Bucket(Rate(per_s, burst=1)), random.Random(seed)
    bucket.take(0.0)
    exact_s = bucket.take(0.0)
    assert exact_s is not None
    wait_s = rate_wait_s(exact_s, rng)
    assert exact_s <= wait_s <= 1.2 * exact_s
    assert bucket.take(wait_s) == 0.0


def test_waits_for_a_token_are_spread() -> None:
    rng = random.Random(1)
    waits = sorted(rate_wait_s(1.0, rng) for _ in range(1_000))
    assert len(set(waits)) == 1_000
    assert waits[950] - waits[50] > 0.15


@pytest.mark.parametrize(
    ("refused", "served", "soonest_s", "latest_s"),
    [(1, 0, 1, 2), (50, 0, 1, 2), (120, 100, 1, 2.4), (1_200, 100, 1, 13.2), (1_200, 1_000, 1, 2.4), (100_000, 10, 1, 30)],
)
def test_who_is_refused_comes_back_as_soon_as_it_can_be_served_and_nobody_after_half_a_minute(
    refused: int, served: int, soonest_s: float, latest_s: float
) -> None:
    """Served in a second: the refused of one instant come back at 1.2 times that, from a second on."""
    returns, rng = Returns(), random.Random(1)
    returns.wait_s(0.0, rng)
    returns.served = served
    waits = [returns.wait_s(1.0 - 1e-9, rng) for _ in range(refused)]
    assert soonest_s <= min(waits)
    assert max(waits) <= latest_s
    if served and refused > 1.2 * served:
        assert max(waits) > 0.8 * latest_s, "they are spread"


def test_what_was_served_is_forgotten_after_two_seconds_and_all_places_are_free_when_nobody_was_refused() -> None:
    returns, rng = Returns(), random.Random(1)
    returns.wait_s(0.0, rng)
    returns.served = 10
    crowd = [returns.wait_s(0.5, rng) for _ in range(1_000)]
    assert crowd[-1] >= 15.0
    assert returns.wait_s(1.4, rng) >= 15.0, "the crowd is still away"
    assert returns.wait_s(2.5, rng) <= 2.0


def test_clients_that_obey_settle_at_a_rate_that_is_cheap_to_refuse() -> None:
    """1,000 clients before 400 a second: they come back at 480 a second, and those that were served at once."""
    rng, returns, capacity_per_step = random.Random(1), Returns(), 4
    comes_at = [rng.random() for _ in range(1_000)]
    refused = 0
    for step in range(4_000):
        now = step * 0.01
        served = 0
        for client, at in enumerate(comes_at):
            if at > now:
                continue
            if served < capacity_per_step:
                served += 1
                returns.served += 1
                comes_at[client] = now + 0.01
            else:
                refused += step >= 2_000
                comes_at[client] = now + returns.wait_s(now, rng)
    assert 300 <= refused / 20 <= 800
