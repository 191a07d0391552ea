"""Values and names in PostgreSQL: nothing is rounded, cut, rewritten or taken for another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from postgres_table_rig import PostgresRig, emptied, shared_database
from table_store_rig import (
    FLOAT,
    INTEGER,
    NUMBER,
    STRING,
    group,
    ids,
    put,
    read,
    refused,
    shape,
    types,
    write,
)

from outlast import Kind
from outlast.tables import Range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast.tables import FieldType
    from outlast.testing import PostgresServer

BEYOND = 2**53 + 1
"""The first integer that no double holds."""


@pytest.fixture(scope="module")
def shared(postgres: PostgresServer) -> Iterator[str]:
    with shared_database(postgres.dsn()) as dsn:
        yield dsn


@pytest.fixture
def rig(shared: str) -> PostgresRig:
    return PostgresRig(emptied(shared))


@pytest.mark.parametrize(
    ("first", "second", "values"),
    [(INTEGER, FLOAT, (BEYOND, 1.5, BEYOND + 2)), (FLOAT, INTEGER, (0.1, BEYOND, 0.2))],
)
def test_widening_writes_no_row_again_and_rounds_nothing(
    rig: PostgresRig, first: FieldType, second: FieldType, values: tuple[Any, Any, Any]
) -> None:
    """WAYS 136."""

    async def main() -> None:
        async with rig.opened() as store:
            await put(store, "cpu", (), {1: {"v": values[0]}}, v=first)
            [(file,)] = await rig.ask("SELECT pg_relation_filenode('cpu')")
            record = await shape(store, v=second)
            assert types(record) == {"v": NUMBER}
            assert await rig.ask("SELECT pg_relation_filenode('cpu')") == [(file,)], "the rows are where they were"
            assert await rig.ask("SELECT convalidated FROM pg_constraint WHERE contype = 'c' AND conrelid = 'cpu'::regclass") == [
                (False,)
            ], "and nobody has looked at them"
            [series] = await ids(store, record, ())
            await write(store, group(record, "v", [series, 2, values[1]], [series, 3, values[2]]))
            found = [fields["v"] for _, _, fields in await read(store)]
            assert found == list(values)
            assert [type(value) for value in found] == [type(value) for value in values]
            # One that was a double becomes an integer, and the other way round: nothing of what stood there is left.
            await write(store, group(record, "v", [series, 2, values[0]], [series, 1, values[1]]))
            assert [fields["v"] for _, _, fields in await read(store)] == [values[1], values[0], values[2]]

    rig.run(main)


@pytest.mark.parametrize("made", [INTEGER, NUMBER])
def test_a_row_never_has_both_columns_of_a_number(rig: PostgresRig, made: FieldType) -> None:
    """A writer that knows the first column alone is refused, and cannot leave two values."""

    async def main() -> None:
        async with rig.opened() as store:
            await put(store, "cpu", (), {1: {"v": 7}}, v=made)
            await put(store, "cpu", (), {1: {"v": 1.5}}, v=FLOAT)
            with pytest.raises(psycopg.errors.CheckViolation):
                await rig.by_hand("UPDATE cpu SET v = 8")
            assert [fields for _, _, fields in await read(store)] == [{"v": 1.5}]

    rig.run(main)


def test_digits_are_kept_whatever_the_database_sets(database: str) -> None:
    rig = PostgresRig(database)

    async def main() -> None:
        await rig.by_hand("""DO $$ BEGIN
            EXECUTE format('ALTER DATABASE %I SET extra_float_digits = -15', current_database());
            EXECUTE format('ALTER DATABASE %I SET DateStyle = ''German''', current_database());
        END $$""")
        async with rig.opened() as store:
            await put(store, "cpu", (), {1: {"v": 0.1 + 0.2}, 2: {"v": 5e-324}, 3: {"v": 1.7976931348623157e308}}, v=FLOAT)
            found = [fields["v"] for _, _, fields in await read(store)]
            assert found == [0.30000000000000004, 5e-324, 1.7976931348623157e308]
            record = await store.table("cpu")
            assert record is not None
            assert record.created_at > 1_700_000_000

    rig.run(main)


@pytest.mark.parametrize(
    "text",
    ["", "NULL", "null", '"', "\\", "a,b", "{}", "{a}", "a\nb\r\t", "'; DROP TABLE cpu; --", "$1", "%s", "ß𝄞", "é" * 32_767],
)
def test_any_text_comes_back_as_it_was(rig: PostgresRig, text: str) -> None:
    async def main() -> None:
        async with rig.opened() as store:
            await put(store, "cpu", (), {1: {"v": text}, 2: {"v": text + '"'}}, v=STRING)
            assert [fields["v"] for _, _, fields in await read(store)] == [text, text + '"']

    rig.run(main)


def test_what_postgres_has_no_bytes_for_is_refused_alone(rig: PostgresRig) -> None:
    """WAYS 144: among many points a NUL, and half of a surrogate pair; a megabyte is taken."""

    async def main() -> None:
        async with rig.opened() as store:
            record = await shape(store, s=STRING)
            [series] = await ids(store, record, ())
            rows = [[series, time, "x"] for time in range(1_000)]
            rows[17][2], rows[500][2], rows[999][2] = "a\0b", "\ud800", "x" * 2**20
            wrote = await store.write([group(record, "s", *rows)])
            assert refused(wrote) == [(0, 17), (0, 500)]
            assert {one.fault.kind for one in wrote.refused} == {Kind.REJECTED}
            assert "a text with a NUL" in wrote.refused[0].fault.reason
            assert "half of a surrogate pair" in wrote.refused[1].fault.reason
            assert len(await read(store)) == 998

    rig.run(main)


def test_a_poisonous_row_is_found_by_halving(rig: PostgresRig) -> None:
    """WAYS 144: a constraint of the user's, which nobody foresaw; at most 2 log2 n statements for one row."""

    async def main() -> None:
        async with rig.opened() as store:
            record = await shape(store, v=INTEGER)
            [series] = await ids(store, record, ())
            await rig.by_hand("""CREATE SEQUENCE tries; CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN PERFORM nextval('metrics.tries'); RETURN NULL; END $$;
                CREATE TRIGGER count_it BEFORE INSERT ON cpu FOR EACH STATEMENT EXECUTE FUNCTION count_it();
                ALTER TABLE cpu ADD CONSTRAINT small CHECK (v < 5000)""")
            wrote = await store.write([group(record, "v", *([series, time, time + 4_500] for time in range(512)))])
            [(tries,)] = await rig.ask("SELECT last_value FROM tries")
            assert refused(wrote) == [(0, place) for place in range(500, 512)]
            assert "'cpu'" in wrote.refused[0].fault.reason
            assert "small" in wrote.refused[0].fault.reason
            assert len(await read(store)) == 500
            # Each of the 12 costs two halves on each of 9 levels at most; and the whole was tried twice.
            assert tries <= 2 + 2 * 9 * 12

    rig.run(main)


def test_a_row_that_no_page_holds_is_refused_alone(rig: PostgresRig) -> None:
    async def main() -> None:
        async with rig.opened() as store:
            names = [f"s{number}" for number in range(700)]
            record = await store.shape("cpu", dict.fromkeys(names, STRING), fields_max=1_000)
            [series] = await ids(store, record, ())
            wrote = await store.write([group(record, names, [series, 1, *["x" * 40] * 700], [series, 2, *["x"] * 700])])
            assert refused(wrote) == [(0, 0)]
            assert "row is too big" in wrote.refused[0].fault.reason
            assert len(await store.read(Range("cpu"))) == 1

    rig.run(main)


def test_names_that_postgres_would_cut_are_told_apart(rig: PostgresRig) -> None:
    """WAYS 140: a line of its own log, for every statement, and two columns of one name."""

    async def main() -> None:
        async with rig.opened() as store:
            same = "x" * 63
            names = [same + "a", same + "b", "ä" * 32, "ä" * 32 + "b", same, "series", "ctid", "v~float", "v", "50%", '"']
            await store.shape("cpu", dict.fromkeys(names, INTEGER), fields_max=500)
            record = await shape(store, v=FLOAT)
            assert len({field.stored for field in record.fields}) == len(names)
            assert max(len(field.stored.encode()) for field in record.fields) <= 63
            [series] = await ids(store, record, ())
            await write(store, group(record, names, [series, 1, *range(len(names))]))
            assert await read(store) == [({}, 1, {name: number for number, name in enumerate(names)})]
            for table in (
                same + "a",
                same + "b",
                "pg_class",
                "outlast_1_key",
                "outlast_2_key",
                "excluded",
                "s",
                "d",
                "p",
                "gone",
            ):
                await put(store, table, (), {1: {"v": 1}, 2: {"v": 2}}, v=INTEGER)
                assert await store.expire(table, 2, 10) == 1
                counts = await store.counts(table)
                assert counts is not None
                assert (counts.points, counts.oldest_ns) == (1, 2)
                assert len(await store.newest(table, {}, 5)) == 1

    rig.run(main)
