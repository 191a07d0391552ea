"""The aggregators, by the answers of OpenTSDB 2.4."""

import math

import pytest

from outlast.tables._errors import InvalidQueryError
from outlast.tables._query.aggregators import AGGREGATORS, aggregator


@pytest.mark.parametrize(
    ("name", "values", "wanted"),
    [
        ("sum", [1, 2, 3], 6),
        ("sum", [1, 2.5], 3.5),
        ("sum", [2**62, 2**62, 2**62], 3 * 2**62),
        ("avg", [1, 2, 3, 4], 2.5),
        ("avg", [7], 7.0),
        ("min", [3, -1, 2.5], -1),
        ("max", [3, -1, 2.5], 3),
        ("count", [5, 5, 5], 3),
        # Of all values, and not of a sample: the deviations 3, 1, 1, 3 have the mean square 5.
        ("dev", [1, 3, 5, 7], math.sqrt(5)),
        ("dev", [4], 0.0),
        ("dev", [1e9 + 4, 1e9 + 7, 1e9 + 13, 1e9 + 16], math.sqrt(22.5)),
        ("diff", [3, 9, 5], 2),
        ("first", [3, 9, 5], 3),
        ("last", [3, 9, 5], 5),
        ("mult", [2, 3, 4], 24.0),
        ("squareSum", [2, 3], 13),
        ("zimsum", [1, 2], 3),
        ("pfsum", [1, 2], 3),
        ("mimmin", [4, 2], 2),
        ("mimmax", [4, 2], 4),
        ("median", [9, 1, 5], 5),
        ("median", [1, 2, 3, 4], 3),
        # The place is p(n+1), and between two values on the line: 0.5 * 6 = 3 and 0.9 * 6 = 5.4, above the last.
        ("p50", [1, 2, 3, 4, 5], 3.0),
        ("p50", [1, 2, 3, 4], 2.5),
        ("p75", [1, 2, 3, 4, 5], 4.5),
        ("p90", [1, 2, 3, 4, 5], 5.0),
        ("p95", [7], 7.0),
        ("p99", [*range(1, 200)], 198.0),
        ("p999", [1, 2], 2.0),
    ],
)
def test_values_become_one(name: str, values: list[float], wanted: float) -> None:
    assert AGGREGATORS[name](values) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("name", ["sum", "min", "max", "count", "first", "last"])
def test_integers_stay_exact(name: str) -> None:
    value = AGGREGATORS[name]([2**53 + 1])
    assert (type(value), value) == (int, 1 if name == "count" else 2**53 + 1)


@pytest.mark.parametrize("name", sorted(AGGREGATORS))
def test_what_is_not_there_does_not_count(name: str) -> None:
    assert AGGREGATORS[name]([math.nan, 2.0, math.nan]) == AGGREGATORS[name]([2.0])


def test_of_nothing_comes_nothing() -> None:
    assert math.isnan(AGGREGATORS["sum"]([math.nan]))
    assert math.isnan(AGGREGATORS["dev"]([]))
    assert AGGREGATORS["count"]([math.nan]) == 0


def test_a_name_that_there_is_not() -> None:
    with pytest.raises(InvalidQueryError, match=r"^No such aggregation function: middle; there are avg, count, .*, zimsum$"):
        aggregator("middle")
