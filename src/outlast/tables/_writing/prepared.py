"""Rows of one shape as the store takes them: with times, within their bounds, floats where floats belong.

A row is checked by one or two operations on a list; only what is wrong costs more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast.tables._schema.limits import future_refusal, old_refusal, time_bounds
from outlast.tables._schema.plan import FIRST
from outlast.tables._schema.verdict import never
from outlast.tables._writing.line import Group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.tables._model import Rows
    from outlast.tables._schema.catalogue import Known
    from outlast.tables._schema.plan import Plan
    from outlast.tables._writing.outcomes import Outcomes


def prepared(known: Known, plan: Plan, rows: Rows, outcomes: Outcomes, now_ns: int, future_s: float | None) -> Group | None:
    """Return rows as they go in line, without those that can never be stored, which are refused; None if none is left.

    Rows are changed in place. A point without a time gets `now_ns`.
    """
    for row in [row for row in rows.rows if row[1] is None]:
        row[1] = now_ns
    if known.record.retention_s is not None or future_s is not None:
        _check_times(known, rows, outcomes, now_ns, future_s)
    for place in plan.to_float:
        _make_floats(known, rows, outcomes, place)
    return Group(known, plan, rows.fields, rows.types, rows.rows, rows.places) if rows.rows else None


def _check_times(known: Known, rows: Rows, outcomes: Outcomes, now_ns: int, future_s: float | None) -> None:
    """Refuse points that are too old or too far ahead. The reason names the first of them."""
    times: list[int] = [row[1] for row in rows.rows]
    retention_s = known.record.retention_s
    oldest, newest = time_bounds(now_ns, retention_s, future_s)
    old = [] if oldest is None or min(times) >= oldest else [place for place, time in enumerate(times) if time < oldest]
    ahead = [] if newest is None or max(times) <= newest else [place for place, time in enumerate(times) if time > newest]
    if old and oldest is not None and retention_s is not None:
        refusal = old_refusal(known.record.name, times[old[0]], oldest, retention_s)
        outcomes.refuse([rows.places[place] for place in old], refusal)
    if ahead and newest is not None and future_s is not None:
        outcomes.refuse([rows.places[place] for place in ahead], future_refusal(times[ahead[0]], newest, future_s))
    if old or ahead:
        _keep_others(rows, [*old, *ahead])


def _make_floats(known: Known, rows: Rows, outcomes: Outcomes, place: int) -> None:
    """Turn the integers of a field of floats into floats; refuse those which no float is equal to."""
    bad: list[int] = []
    for number, row in enumerate(rows.rows):
        value = row[place]
        exact = float(value)
        if exact == value:
            row[place] = exact
        else:
            bad.append(number)
    if bad:
        field, value = rows.fields[place - FIRST], rows.rows[bad[0]][place]
        reason = f"field {field!r} of table {known.record.name!r} is FLOAT, which does not hold the integer {value} exactly"
        refusal = never("type", reason, "write it as a float, or into another field")
        outcomes.refuse([rows.places[number] for number in bad], refusal)
        _keep_others(rows, bad)


def _keep_others(rows: Rows, out: Sequence[int]) -> None:
    gone = set(out)
    rows.rows = [row for place, row in enumerate(rows.rows) if place not in gone]
    rows.places = [place for number, place in enumerate(rows.places) if number not in gone]
