"""Names in a store: legal and different for every name that there can be, and as they are where they can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.tables import FieldRecord, FieldType
from outlast.tables._stores import names
from outlast.tables._stores.names import ascii_folded, exact, plan_fields, stored_field, stored_table

if TYPE_CHECKING:
    from collections.abc import Callable

INTEGER, FLOAT, NUMBER, STRING = FieldType.INTEGER, FieldType.FLOAT, FieldType.NUMBER, FieldType.STRING

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
NAMES = st.one_of(
    TEXT,
    st.sampled_from(["series", "TIME", "sqlite_x", "Pg_class", "outlast_tables", "ctid", "a~00000000"]),
    st.builds(lambda text, times: (text * times)[:90], TEXT, st.integers(1, 30)),
    st.sampled_from(["cpu", "CPU", "Cpu", "cpU"]),
)


def free(_: str) -> bool:
    return True


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("cpu", "cpu"),
        ("CPU load %", "CPU load %"),
        ('a;b"', 'a;b"'),
        ("select", "select"),
        ("x" * 63, "x" * 63),
        ("ä" * 31, "ä" * 31),
        # printf %s NAME | sha256sum
        ("sqlite_x", "_sqlite_x~232bea1c"),
        ("PG_class", "_PG_class~98dff833"),
        ("outlast_tables", "_outlast_tables~c40d9771"),
        ("x" * 64, "x" * 54 + "~7ce10097"),
        ("ä" * 32, "ä" * 27 + "~0f2cea1e"),
        ("time", "time"),
    ],
)
def test_a_table_is_stored_by_its_name_where_that_can_be(name: str, stored: str) -> None:
    assert stored_table(name, free) == stored


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("value", "value"),
        ("sqlite_x", "sqlite_x"),
        ("time", "_time~33607480"),
        ("Series", "_Series~a8295e08"),
        ("xmin", "_xmin~eafb2f50"),
    ],
)
def test_a_field_is_stored_by_its_name_where_that_can_be(name: str, stored: str) -> None:
    assert stored_field(name, free) == stored


def test_a_name_that_another_table_has_gets_another_one_and_so_does_that() -> None:
    taken = {"cpu"}
    for _ in range(3):
        taken.add(stored_table("cpu", lambda name: name not in taken))
    assert len(taken) == 4
    assert all(name.startswith("cpu") for name in taken)


@given(st.lists(NAMES, max_size=12, unique=True), st.sampled_from([ascii_folded, exact]))
def test_names_in_a_store_are_legal_different_and_the_same_each_time(wanted: list[str], fold: Callable[[str], str]) -> None:
    plan = plan_fields((), dict.fromkeys(wanted, INTEGER), 100, fold)
    tables: list[str] = []
    for name in wanted:
        tables.append(stored_table(name, lambda stored: fold(stored) not in set(map(fold, tables))))
    for stored in (tables, [field.stored for field in plan.fields]):
        assert len(set(map(fold, stored))) == len(wanted)
        assert all(0 < len(name.encode()) <= 63 and "\0" not in name for name in stored)
    assert not any(name.lower().startswith(("outlast_", "sqlite_", "pg_")) for name in tables)
    assert not any(field.stored.lower() in names.RESERVED_COLUMNS for field in plan.fields)
    assert [field.name for field in plan.fields] == wanted
    assert plan_fields((), dict.fromkeys(wanted, INTEGER), 100, fold) == plan


@given(st.lists(NAMES, max_size=8, unique=True), st.integers(0, 8))
def test_fields_that_come_later_get_the_names_that_they_get_at_once(wanted: list[str], cut: int) -> None:
    first = plan_fields((), dict.fromkeys(wanted[:cut], INTEGER), 100, ascii_folded)
    second = plan_fields(first.fields, dict.fromkeys(wanted, INTEGER), 100, ascii_folded)
    assert second.fields == plan_fields((), dict.fromkeys(wanted, INTEGER), 100, ascii_folded).fields
    assert second.added == second.fields[len(first.fields) :]


def test_fields_are_added_up_to_the_bound_and_those_that_are_there_stay() -> None:
    present = (FieldRecord("a", "a", INTEGER), FieldRecord("b", "b", STRING))
    plan = plan_fields(present, {"c": FLOAT, "d": FLOAT, "a": FLOAT}, 3, exact)
    assert plan.added == (FieldRecord("c", "c", FLOAT),)
    assert plan.widened == (FieldRecord("a", "a", NUMBER),)
    assert plan.fields == (FieldRecord("a", "a", NUMBER), FieldRecord("b", "b", STRING), FieldRecord("c", "c", FLOAT))


def test_there_are_a_thousand_fields_whatever_is_allowed() -> None:
    plan = plan_fields((), {f"f{number}": INTEGER for number in range(1_001)}, 5_000, exact)
    assert len(plan.fields) == 1_000


@pytest.mark.parametrize("present", list(FieldType))
@pytest.mark.parametrize("wanted", list(FieldType))
def test_only_numbers_are_widened(present: FieldType, wanted: FieldType) -> None:
    plan = plan_fields((FieldRecord("v", "v", present),), {"v": wanted}, 9, exact)
    widens = {INTEGER, FLOAT} == {present, wanted} or (wanted is NUMBER and present in {INTEGER, FLOAT})
    assert [field.type for field in plan.fields] == [NUMBER if widens else present]
    assert bool(plan.widened) is widens
    assert plan.added == ()


def test_a_column_that_is_there_beside_the_fields_is_no_fields() -> None:
    plan = plan_fields((), {"note": STRING, "Note": STRING}, 9, exact, ["note"])
    assert [field.stored == field.name for field in plan.fields] == [False, True]
    plan = plan_fields((), {"note": STRING, "Note": STRING}, 9, ascii_folded, ["NOTE"])
    assert [field.stored == field.name for field in plan.fields] == [False, False]
