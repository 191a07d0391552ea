"""The plan of a shape: which types fit which fields, what a table lacks, what is converted."""

from __future__ import annotations

import pytest

from outlast.tables import FieldRecord, FieldType, TableRecord
from outlast.tables._schema.catalogue import PLANS_MAX, Catalogue, Known
from outlast.tables._schema.plan import Plan, plan_of

INTEGER, FLOAT, NUMBER = FieldType.INTEGER, FieldType.FLOAT, FieldType.NUMBER
STRING, BOOLEAN = FieldType.STRING, FieldType.BOOLEAN
FITS, WIDENS, TO_FLOAT, CONFLICT = "fits", "widens", "to float", "conflict"

OUTCOMES = {
    (INTEGER, INTEGER): FITS,
    (INTEGER, FLOAT): WIDENS,
    (INTEGER, STRING): CONFLICT,
    (INTEGER, BOOLEAN): CONFLICT,
    (FLOAT, INTEGER): TO_FLOAT,
    (FLOAT, FLOAT): FITS,
    (FLOAT, STRING): CONFLICT,
    (FLOAT, BOOLEAN): CONFLICT,
    (NUMBER, INTEGER): FITS,
    (NUMBER, FLOAT): FITS,
    (NUMBER, STRING): CONFLICT,
    (NUMBER, BOOLEAN): CONFLICT,
    (STRING, INTEGER): CONFLICT,
    (STRING, FLOAT): CONFLICT,
    (STRING, STRING): FITS,
    (STRING, BOOLEAN): CONFLICT,
    (BOOLEAN, INTEGER): CONFLICT,
    (BOOLEAN, FLOAT): CONFLICT,
    (BOOLEAN, STRING): CONFLICT,
    (BOOLEAN, BOOLEAN): FITS,
}
"""By the type of a field, and that of a value."""


def outcome(plan: Plan) -> str:
    if plan.conflict:
        return CONFLICT
    return WIDENS if plan.lacks else TO_FLOAT if plan.to_float else FITS


@pytest.mark.parametrize(("pair", "expected"), OUTCOMES.items(), ids=str)
def test_every_type_of_a_field_meets_every_type_of_a_value(pair: tuple[FieldType, FieldType], expected: str) -> None:
    field, value = pair
    plan = plan_of("m", {"v": field}, ("v",), (value,))
    assert outcome(plan) == expected
    if expected == WIDENS:
        assert dict(plan.lacks) == {"v": FLOAT}


@pytest.mark.parametrize(
    ("value", "said"),
    [(STRING, "a STRING"), (BOOLEAN, "a BOOLEAN"), (FLOAT, "a FLOAT"), (INTEGER, "an INTEGER")],
)
def test_a_conflict_says_what_is_there_and_what_came(value: FieldType, said: str) -> None:
    has = STRING if value is not STRING else BOOLEAN
    plan = plan_of("m", {"u": FLOAT, "v": has}, ("u", "v"), (FLOAT, value))
    assert plan.conflict == f"field 'v' of table 'm' is {has.name}, the value is {said}"


def test_new_fields_are_lacking_with_the_types_of_their_values_and_places_count_from_the_values() -> None:
    fields, types = ("a", "b", "c", "d"), (INTEGER, STRING, BOOLEAN, STRING)
    plan = plan_of("m", {"a": FLOAT, "d": STRING}, fields, types)
    assert dict(plan.lacks) == {"b": STRING, "c": BOOLEAN}
    assert plan.to_float == (2,)
    assert plan.texts == (3, 5)
    assert plan.row_bytes == 54


def test_a_table_keeps_its_plans_until_it_changes() -> None:
    record = TableRecord(1, "m", "m", (FieldRecord("v", "v", INTEGER),))
    known = Known(record)
    plan = known.plan(("v",), (INTEGER,))
    assert known.plan(("v",), (INTEGER,)) is plan
    assert known.plan(("v",), (FLOAT,)).lacks == {"v": FLOAT}
    known.put(TableRecord(1, "m", "m", (FieldRecord("v", "v", NUMBER),)))
    assert outcome(known.plan(("v",), (FLOAT,))) == FITS
    for number in range(PLANS_MAX * 2):
        known.plan((f"f{number}",), (FLOAT,))
    assert len(known._plans) <= PLANS_MAX


def test_a_table_is_the_same_while_its_number_is_the_same() -> None:
    catalogue = Catalogue()
    first = catalogue.put(TableRecord(1, "m", "m", ()))
    assert catalogue.put(TableRecord(1, "m", "m", (FieldRecord("v", "v", INTEGER),))) is first
    assert first.types == {"v": INTEGER}
    assert catalogue.get("m") is first
    second = catalogue.put(TableRecord(2, "m", "m", ()))
    assert second is not first
    assert catalogue.told("m", None) is None
    assert catalogue.get("m") is None
    assert len(catalogue) == 0
