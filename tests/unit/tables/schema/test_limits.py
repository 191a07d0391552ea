"""Limits as decisions: what is new meets them, and the refusal names the limit, the value seen, and the next step."""

from __future__ import annotations

from typing import Any

import pytest

from outlast import ConfigurationError, Kind, Scope
from outlast.tables import PointOutcome, TableLimits
from outlast.tables._schema.limits import (
    fields_refusal,
    future_refusal,
    old_refusal,
    table_refusal,
    tag_refusal,
    time_bounds,
)
from outlast.tables._schema.rates import Rates


def test_one_table_more_than_the_limit_is_refused_for_good() -> None:
    limits = TableLimits(tables_max=20)
    assert table_refusal("m", 19, limits) is None
    refusal = table_refusal("m", 20, limits)
    assert refusal is not None
    assert refusal.outcome is PointOutcome.NEVER
    assert (refusal.fault.kind, refusal.fault.scope, refusal.fault.code) == (Kind.REJECTED, Scope.CALL, "tables_max")
    assert refusal.fault.reason == "table 'm' would be one more than 20: there are 20 tables (limit tables_max)"
    assert refusal.fault.hint == "drop tables that nobody needs, or raise tables_max"


def test_one_field_more_than_the_limit_is_refused_and_known_ones_do_not_count() -> None:
    assert fields_refusal("m", {"a", "b"}, ["a", "b"], 2) is None
    assert fields_refusal("m", {"a"}, ["a", "b"], 2) is None
    refusal = fields_refusal("m", {"a"}, ["b", "c"], 2)
    assert refusal is not None
    assert refusal.outcome is PointOutcome.NEVER
    assert refusal.fault.code == "fields_max"
    assert refusal.fault.reason == (
        "field 'c' of table 'm' would be one more than 2: it has 1 fields, and the point brings 2 new ones (limit fields_max)"
    )
    beyond = fields_refusal("m", {"a", "b", "c"}, ["d"], 2)
    assert beyond is not None
    assert "field 'd'" in beyond.fault.reason


def test_one_value_of_a_tag_too_many() -> None:
    outcome, fault = tag_refusal("m", "host", "h9", TableLimits(tag_values_max=9))
    assert (outcome, fault.code) == (PointOutcome.NEVER, "tag_values_max")
    assert fault.reason == "value 'h9' of tag 'host' of table 'm' would be one more than 9 (limit tag_values_max)"


def test_times_are_bounded_by_retention_and_by_the_future() -> None:
    assert time_bounds(5_000_000_000, None, None) == (None, None)
    assert time_bounds(5_000_000_000, 2.0, 3.5) == (3_000_000_000, 8_500_000_000)
    outcome, fault = old_refusal("m", 2, 3, 2.0)
    assert (outcome, fault.code) == (PointOutcome.NEVER, "retention")
    assert fault.reason == "time 2 is before 3: table 'm' keeps points for 2 s"
    outcome, fault = future_refusal(9, 8, 3.5)
    assert (outcome, fault.code) == (PointOutcome.NEVER, "future")
    assert fault.reason == "time 9 is after 8: at most 3.5 s ahead of the server's clock (limit future_s)"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"tables_max": 0}, "tables_max must be a whole number from 1 to 1000000000, not 0"),
        ({"fields_max": 1_001}, "fields_max must be a whole number from 1 to 1000, not 1001"),
        ({"tag_values_max": 1.5}, "tag_values_max must be a whole number from 1 to 1000000000, not 1.5"),
        ({"points_max": True}, "points_max must be a whole number from 1 to 1000000000, not True"),
        ({"tables_per_minute": -1}, "tables_per_minute must be a number from 0 to 1000000000, not -1"),
        ({"fields_per_minute": float("nan")}, "fields_per_minute must be a number from 0 to 1000000000, not nan"),
        ({"tables_per_minute": 1e-9}, "tables_per_minute must be at least 1e-06, or 0 for none at all, not 1e-09"),
        ({"points_per_s": 1e-9}, "points_per_s must be at least 1e-06, or 0 for none at all, not 1e-09"),
        ({"points_per_s": "many"}, "points_per_s must be a number from 0 to 100000000, not 'many'"),
        ({"future_s": float("inf")}, "future_s must be a number from 0 to 100000000, not inf"),
    ],
)
def test_a_limit_out_of_its_range_is_refused_when_it_is_given(setting: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        TableLimits(**setting)
    assert str(refused.value) == f"limits of tables: {said}"


def test_limits_at_the_ends_of_their_ranges_are_taken() -> None:
    Rates(TableLimits(tables_per_minute=1e-6, points_per_s=1e-6, fields_per_minute=1e9))
    Rates(TableLimits(tables_per_minute=0, points_per_s=1e8, fields_per_minute=0))
    TableLimits(tables_max=1, fields_max=1_000, tables_per_minute=0, points_per_s=0.001, future_s=0)
