"""Merging, downsampling and rates: literal points in, literal points out."""

import math

import pytest

from outlast.tables._errors import InvalidQueryError
from outlast.tables._query.aggregators import AGGREGATORS, Missing
from outlast.tables._query.bounds import QueryLimits, QueryTooLargeError, Steps
from outlast.tables._query.downsample import Downsample
from outlast.tables._query.merge import merged
from outlast.tables._query.rates import Rate

A = [(0, 10), (10, 20), (20, 40)]
B = [(5, 100), (15, 300)]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        # B takes part from 5 to 15; at 5 A is half way from 10 to 20, at 10 B is half way from 100 to 300.
        ("sum", [(0, 10), (5, 115.0), (10, 220.0), (15, 330.0), (20, 40)]),
        ("avg", [(0, 10.0), (5, 57.5), (10, 110.0), (15, 165.0), (20, 40.0)]),
        ("min", [(0, 10), (5, 15.0), (10, 20), (15, 30.0), (20, 40)]),
        ("max", [(0, 10), (5, 100), (10, 200.0), (15, 300), (20, 40)]),
        # Zero if missing: the other series adds nothing.
        ("zimsum", [(0, 10), (5, 100), (10, 20), (15, 300), (20, 40)]),
        ("mimmin", [(0, 10), (5, 100), (10, 20), (15, 300), (20, 40)]),
        ("mimmax", [(0, 10), (5, 100), (10, 20), (15, 300), (20, 40)]),
        ("count", [(0, 1), (5, 1), (10, 1), (15, 1), (20, 1)]),
        # The value before: A is 10 at 5 and 20 at 15, B is 100 at 10.
        ("pfsum", [(0, 10), (5, 110), (10, 120), (15, 320), (20, 40)]),
    ],
)
def test_series_with_other_times_are_merged(name: str, wanted: list[tuple[int, float]]) -> None:
    assert merged([A, B], AGGREGATORS[name], Steps(QueryLimits())) == wanted


def test_the_order_of_equal_times_is_that_of_the_series() -> None:
    same = [(0, 1), (10, 2)]
    assert merged([A[:2], same], AGGREGATORS["first"], Steps(QueryLimits())) == [(0, 10), (10, 20)]
    assert merged([A[:2], same], AGGREGATORS["last"], Steps(QueryLimits())) == [(0, 1), (10, 2)]


def test_nothing_is_guessed_before_the_first_and_after_the_last_point() -> None:
    assert merged([[(0, 1)], [(10, 5)]], AGGREGATORS["sum"], Steps(QueryLimits())) == [(0, 1), (10, 5)]
    assert merged([[], [(10, 5)]], AGGREGATORS["sum"], Steps(QueryLimits())) == [(10, 5)]
    assert merged([[], []], AGGREGATORS["sum"], Steps(QueryLimits())) == []


def test_rates_are_not_put_on_a_line() -> None:
    assert merged([A, B], AGGREGATORS["sum"], Steps(QueryLimits()), missing=Missing.PREVIOUS)[1] == (5, 110)


def test_what_would_take_too_long_is_refused() -> None:
    steps = Steps(QueryLimits(steps_max=19))
    assert merged([A, B], AGGREGATORS["sum"], steps)
    # The groups of a query share what it may take.
    with pytest.raises(QueryTooLargeError, match=r"takes 20 values, the limit is 19; downsample them \(1m-avg\)$"):
        merged([A, B], AGGREGATORS["sum"], steps)


# Downsampling.


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("10s-avg", [(10_000, 2.0), (30_000, 9.0)]),
        ("10s-sum", [(10_000, 6.0), (30_000, 9.0)]),
        ("10s-count", [(10_000, 3.0), (30_000, 1.0)]),
        ("10s-max-none", [(10_000, 3.0), (30_000, 9.0)]),
        ("10s-avg-zero", [(10_000, 2.0), (20_000, 0.0), (30_000, 9.0)]),
        ("1m-sum", [(0, 15.0)]),
        ("0all-sum", [(9_000, 15.0)]),
    ],
)
def test_the_points_of_an_interval_become_one(text: str, wanted: list[tuple[int, float]]) -> None:
    points = [(10_000, 1), (12_000, 2), (19_999, 3), (30_000, 9)]
    start = 0 if text == "1m-sum" else 9_000
    assert Downsample.parse(text)(points, start, 35_000) == wanted


@pytest.mark.parametrize("fill", ["nan", "null"])
def test_an_empty_interval_is_filled(fill: str) -> None:
    filled = Downsample.parse(f"10s-avg-{fill}")([(20_000, 1)], 10_000, 30_000)
    assert [(at, value) for at, value in filled if not math.isnan(value)] == [(20_000, 1.0)]
    assert [at for at, _ in filled] == [10_000, 20_000, 30_000]


def test_an_interval_begins_within_the_time_and_is_read_to_its_end() -> None:
    each = Downsample.parse("10s-avg")
    assert each.stretch(5_000, 35_000) == (10_000, 39_999)
    assert each.stretch(10_000, 30_000) == (10_000, 39_999)
    assert Downsample.parse("0all-avg").stretch(5_000, 35_000) == (5_000, 35_000)
    assert Downsample.parse("10s-avg-zero").count(5_000, 35_000) == 3
    assert each.count(5_000, 35_000) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10s", r"^'10s' is no downsampling; write INTERVAL-AGGREGATOR"),
        ("10s-avg-zero-x", r"is no downsampling"),
        ("10s-avg-seven", r"^'seven' fills no interval; there are none, nan, null, zero$"),
        ("10s-none", r"downsamples with none"),
        ("10q-avg", r"^'10q' is no duration; write a number above 0 and one of ms, s, m, h, d, w, n, y: 90s$"),
        ("0s-avg", r"is no duration"),
        ("1dc-avg", r"^intervals of the calendar, as '1dc', are not offered; write 1d for 24 hours$"),
        ("10s-middle", r"No such aggregation function: middle"),
        ("999999999999999y-avg", r"is a duration of more than"),
    ],
)
def test_a_downsampling_that_is_none(text: str, said: str) -> None:
    with pytest.raises(InvalidQueryError, match=said):
        Downsample.parse(text)


# Rates.


def test_a_rate_is_the_change_a_second() -> None:
    assert Rate()([(0, 0), (10_000, 50), (20_000, 20)]) == [(10_000, 5.0), (20_000, -3.0)]
    assert Rate()([(0, 1)]) == []
    assert Rate()([(0, 1), (500, 2)]) == [(500, 2.0)]


def test_a_counter_that_went_past_its_maximum() -> None:
    falls = [(0, 65_530), (10_000, 4)]
    assert Rate.parse("rate{counter,65535}")(falls) == [(10_000, 0.9)]
    # Above the reset value it has begun again.
    assert Rate.parse("rate{counter,65535,0}")([(0, 100), (1_000, 1)]) == [(1_000, 65_436.0)]
    assert Rate.parse("rate{counter,65535,1000}")([(0, 100), (1_000, 1)]) == [(1_000, 0.0)]


def test_a_point_at_which_a_counter_fell_may_be_left_out() -> None:
    assert Rate.parse("rate{dropcounter}")([(0, 100), (1_000, 1), (2_000, 3)]) == [(2_000, 2.0)]


def test_large_counters_keep_their_digits() -> None:
    assert Rate()([(0, 2**60), (1_000, 2**60 + 3)]) == [(1_000, 3.0)]


@pytest.mark.parametrize(
    "text", ["rate{", "rate{counter", "rate{7}", "rate{counter,a}", "rate{counter,1,b}", "rate{counter,1,2,3}"]
)
def test_a_rate_that_is_none(text: str) -> None:
    with pytest.raises(InvalidQueryError, match=r"write rate, rate\{counter\}"):
        Rate.parse(text)
