"""What the tables in a SQLite file are beside the promises of every store: one file, short steps, and indices."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import apsw
import pytest
from table_store_rig import BOOLEAN, FLOAT, INTEGER, NUMBER, STRING, group, ids, put, read, shape, tags, write

from outlast import Kind, State
from outlast.extend import NewerFormatError, attached
from outlast.sqlite import Sqlite
from outlast.tables import NameTakenError, Range
from outlast.tables._stores.sqlite import SqliteStore, catalogue, cleaning, looking
from outlast.tables._stores.sqlite.statements import Statements

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from conftest import RunAsync
    from outlast.tables._stores.port import TableRows


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    async with Sqlite(path) as db:
        store = SqliteStore(db)
        await store.open()
        yield store


def look(path: Path, statement: str) -> list[Any]:
    connection = apsw.Connection(str(path))
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


async def traced(store: SqliteStore) -> list[str]:
    """Return a list to which every statement of the store's writer is added from now on."""
    seen: list[str] = []

    def trace(_: object, statement: str, __: object) -> bool:
        seen.append(statement)
        return True

    await store.dependency.write(lambda connection: setattr(connection, "exec_trace", trace))
    seen.clear()
    return seen


def test_a_catalogue_of_a_newer_format_is_left_alone(tmp_path: Path, run_async: RunAsync) -> None:
    path = tmp_path / "work.db"

    async def main() -> None:
        async with opened(path) as store:
            await shape(store, v=INTEGER)
        look(path, "UPDATE outlast_tables_state SET format = 7")
        async with Sqlite(path) as db:
            for _ in range(2):
                with pytest.raises(NewerFormatError, match=r"tables: .*work\.db .* format 7, .* knows up to 1: install"):
                    await SqliteStore(db).open()
            assert db.state is State.UP
        assert look(path, "SELECT format, version FROM outlast_tables_state") == [(7, 1)]

    run_async(main)


def test_opening_costs_the_same_however_much_there_is(tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        async with opened(tmp_path / "work.db") as store:
            seen = await traced(store)
            await store.open()
            few = list(seen)
            for number in range(50):
                await put(store, f"t{number}", tags(host="a"), {1: {"v": 1}}, v=INTEGER)
            seen.clear()
            await store.open()
            assert seen == few
            assert not [statement for statement in seen if "check" in statement.lower().replace("check (one = 1)", "")]

    run_async(main)


def test_values_are_stored_as_what_they_are(tmp_path: Path, run_async: RunAsync) -> None:
    """Whoever reads the file with SQL gets numbers as numbers and text as text."""
    path = tmp_path / "work.db"

    async def main() -> None:
        async with opened(path) as store:
            point = {"i": 2**63 - 1, "f": 2.0, "s": "12", "b": True, "n": 3}
            await put(store, "cpu", (), {1: point}, i=INTEGER, f=FLOAT, s=STRING, b=BOOLEAN, n=NUMBER)

    run_async(main)
    assert look(path, "SELECT i, f, s, b, n FROM cpu") == [(9223372036854775807, 2.0, "12", 1, 3)]
    assert look(path, "SELECT typeof(i), typeof(f), typeof(s), typeof(b), typeof(n) FROM cpu") == [
        ("integer", "real", "text", "integer", "integer")
    ]
    [(made,)] = look(path, "SELECT sql FROM sqlite_schema WHERE name = 'cpu'")
    assert made.endswith("PRIMARY KEY (series, time)) WITHOUT ROWID")


def test_names_in_the_file_are_those_of_the_tables_where_they_can_be(tmp_path: Path, run_async: RunAsync) -> None:
    path = tmp_path / "work.db"

    async def main() -> None:
        async with opened(path) as store:
            for name in ("cpu", "CPU", "sqlite_x", "a;b"):
                await store.shape(name, {"v": INTEGER, "V": INTEGER, "time": INTEGER}, fields_max=9)

    run_async(main)
    assert look(
        path, "SELECT name FROM sqlite_schema WHERE sql LIKE '%WITHOUT ROWID' AND name NOT LIKE 'outlast_%' ORDER BY 1"
    ) == [
        ("CPU~db9a4c7d",),
        ("_sqlite_x~232bea1c",),
        ("a;b",),
        ("cpu",),
    ]
    assert look(path, "SELECT name FROM pragma_table_info('cpu')")[2:] == [("v",), ("V~de5a6f78",), ("_time~33607480",)]


def test_a_column_that_somebody_added_is_theirs(tmp_path: Path, run_async: RunAsync) -> None:
    path = tmp_path / "work.db"

    async def main() -> None:
        async with opened(path) as store:
            await put(store, "cpu", (), {1: {"v": 1}}, v=INTEGER)
            look(path, "ALTER TABLE cpu ADD COLUMN Note")
            look(path, "UPDATE cpu SET Note = 'mine'")
            await put(store, "cpu", (), {1: {"note": "ours"}}, note=STRING)
            assert await read(store) == [({}, 1, {"v": 1, "note": "ours"})]

    run_async(main)
    assert look(path, "SELECT Note FROM cpu") == [("mine",)]


def test_a_field_whose_column_somebody_dropped_is_absent_until_it_is_written_to(tmp_path: Path, run_async: RunAsync) -> None:
    path = tmp_path / "work.db"

    async def main() -> None:
        async with opened(path) as store:
            await put(store, "cpu", (), {1: {"v": 1, "w": 2}}, v=INTEGER, w=INTEGER)
            look(path, "ALTER TABLE cpu DROP COLUMN v")
            assert await read(store) == [({}, 1, {"w": 2})]
            assert await read(store, Range("cpu", ("v",))) == []
            await put(store, "cpu", (), {1: {"v": 3}}, v=INTEGER)
            assert await read(store) == [({}, 1, {"v": 3, "w": 2})]

    run_async(main)


@pytest.mark.parametrize("made", ["VIEW {} AS SELECT 1 AS series, 2 AS time, 3 AS v", "TABLE {} (series, time, v)"])
def test_what_somebody_put_in_the_place_of_a_table_is_left_alone(tmp_path: Path, run_async: RunAsync, made: str) -> None:
    path = tmp_path / "work.db"

    async def main() -> None:
        async with opened(path) as store:
            await put(store, "cpu", (), {1: {"v": 1}}, v=INTEGER)
            look(path, "DROP TABLE cpu")
            look(path, f"CREATE {made.format('CPU')}")
            with pytest.raises(NameTakenError, match=f"'cpu' cannot be made: the file has a {made[:4].lower()}"):
                await shape(store, v=INTEGER)
            assert await store.drop("cpu") is True, "what is left of ours is the catalogue's"
            assert await store.tables() == []

    run_async(main)
    assert len(look(path, "SELECT * FROM CPU")) == (1 if made.startswith("VIEW") else 0)


@pytest.mark.parametrize("at_once", [0, 2_000])
def test_views_of_others_are_neither_in_the_way_nor_changed(
    tmp_path: Path, run_async: RunAsync, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(catalogue, "DROPPED_AT_ONCE", at_once)
    path = tmp_path / "work.db"

    async def main() -> None:
        async with opened(path) as store:
            await put(store, "cpu", (), {1: {"v": 1}}, v=INTEGER)
            look(path, "CREATE VIEW latest AS SELECT max(time) AS time FROM cpu")
            look(path, "CREATE VIEW broken AS SELECT * FROM gone")
            await put(store, "cpu", (), {2: {"w": 1}}, w=INTEGER)
            assert await store.drop("cpu") is True
            await put(store, "cpu", (), {7: {"v": 1}}, v=INTEGER)

    run_async(main)
    assert look(path, "SELECT time FROM latest") == [(7,)]


def test_the_data_of_a_write_that_is_cancelled_is_there_whole_or_not_at_all(tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        async with opened(tmp_path / "work.db") as store, opened(tmp_path / "work.db") as other:
            record = await shape(store, v=INTEGER)
            [first, second] = await ids(store, record, (), tags(host="a"))
            for turn in range(12):
                rows = [[first, time, turn] for time in range(5_000)]
                writing = asyncio.create_task(store.write([group(record, "v", *rows), group(record, "v", [second, turn, turn])]))
                await asyncio.sleep(turn * 0.001)
                writing.cancel()
                await asyncio.wait({writing})
                # No lock stays, and no half.
                await write(other, group(record, "v", [second, -1, turn]))
                values = {fields["v"] for has, _, fields in await read(other) if not has}
                assert len(values) <= 1
                is_there = any(time == turn for has, time, _ in await read(other) if has)
                assert (turn in values) == is_there
                if not writing.cancelled():
                    assert is_there

    run_async(main)


def test_a_group_that_is_stale_costs_no_failing_statement(tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        async with opened(tmp_path / "work.db") as store, opened(tmp_path / "work.db") as other:
            record = await shape(store, v=INTEGER)
            [one] = await ids(store, record, ())
            await write(store, group(record, "v", [one, 1, 1]))
            await other.drop("cpu")
            seen = await traced(store)
            assert (await store.write([group(record, "v", [one, 2, 2])])).stale == {0}
            assert not [statement for statement in seen if "INSERT" in statement]

    run_async(main)


def test_a_write_costs_one_look_at_the_catalogue_and_a_statement_for_16_rows(tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        async with opened(tmp_path / "work.db") as store:
            records = [await shape(store, f"t{number}", v=INTEGER) for number in range(3)]
            groups: list[TableRows] = []
            for record in records:
                found = await ids(store, record, *(tags(host=str(number)) for number in range(50)))
                groups.append(group(record, "v", *([one, 1, 1] for one in found)))
            await write(store, *groups)
            seen = await traced(store)
            await write(store, *groups)
            kinds = [statement.split()[0] for statement in seen]
            assert kinds.count("SELECT") == 1
            assert set(kinds) <= {"SELECT", "BEGIN", "INSERT", "COMMIT"}
            inserts = [statement for statement in seen if statement.startswith("INSERT")]
            assert sorted(Counter(inserts).values()) == [2, 2, 2, 3, 3, 3], "50 rows are three blocks and two rows"

    run_async(main)


@pytest.mark.parametrize("place", [0, 7, 15, 16, 31, 32])
def test_a_row_that_an_index_of_somebody_refuses_is_alone_in_its_block(tmp_path: Path, run_async: RunAsync, place: int) -> None:
    async def main() -> None:
        async with opened(tmp_path / "work.db") as store:
            record = await shape(store, v=INTEGER)
            [one] = await ids(store, record, tags(host="a"))
            await write(store, group(record, "v", [one, 1_000, 5_000]))
            connection = apsw.Connection(str(tmp_path / "work.db"))
            connection.execute("CREATE UNIQUE INDEX by_hand ON cpu (v)")
            connection.close()
            wrote = await store.write(
                [group(record, "v", *([one, time, 5_000 if time == place else time] for time in range(33)))]
            )
            assert [(each.group, each.row) for each in wrote.refused] == [(0, place)]
            assert [time for _, time, _ in await read(store)] == [*(time for time in range(33) if time != place), 1_000]

    run_async(main)


@pytest.mark.parametrize("large", [2_500, pytest.param(400_000, marks=pytest.mark.long)])
def test_a_large_table_is_dropped_in_short_steps(
    tmp_path: Path, run_async: RunAsync, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    monkeypatch.setattr(cleaning, "ROWS_A_STEP", large // 5)

    async def main() -> None:
        async with opened(tmp_path / "work.db") as store:
            record = await shape(store, v=INTEGER)
            found = await ids(store, record, *(tags(host=str(number), of="all") for number in range(500)))
            await write(store, group(record, "v", *([one, time, 1] for one in found for time in range(large // 500))))
            before = store.dependency.done.commits
            assert await store.drop("cpu") is True
            steps = store.dependency.done.commits - before
            # The catalogue; five times a fifth of the points; and what the catalogue has of it.
            assert steps >= 7
            assert await store.tables() == []
        left = "SELECT count(*) FROM outlast_series UNION ALL SELECT count(*) FROM outlast_tag_values"
        assert look(tmp_path / "work.db", left) == [(0,), (0,)]

    run_async(main)


def test_a_drop_that_was_broken_off_is_ended_by_the_next(
    tmp_path: Path, run_async: RunAsync, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "DROPPED_AT_ONCE", 0)
    path = tmp_path / "work.db"

    async def main() -> None:
        async with opened(path) as store:
            await put(store, "cpu", tags(host="a"), {1: {"v": 1}}, v=INTEGER)
            await store.dependency.write(lambda connection: catalogue.begin_drop(Statements(connection), "cpu"))
            assert look(path, "SELECT stored FROM outlast_tables_dropped") == [("outlast_dropped_1",)]
            await put(store, "cpu", tags(host="b"), {2: {"v": 2}}, v=INTEGER)
            assert await store.drop("another") is False
            assert look(path, "SELECT name FROM sqlite_schema WHERE name LIKE 'outlast_dropped%'") == []
            assert look(path, "SELECT * FROM outlast_tables_dropped") == []
            assert await read(store) == [({"host": "b"}, 2, {"v": 2})]
            assert await store.tag_values("host") == ["b"]

    run_async(main)


def test_old_points_expire_in_steps_that_delete_some_points_each(
    tmp_path: Path, run_async: RunAsync, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaning, "ROWS_A_STEP", 100)

    async def main() -> None:
        async with opened(tmp_path / "work.db") as store:
            record = await shape(store, v=INTEGER)
            [one] = await ids(store, record, ())
            await write(store, group(record, "v", *([one, time, 1] for time in range(1_000))))
            before = store.dependency.done.commits
            assert await store.expire("cpu", 950, 700) == 700
            assert store.dependency.done.commits - before == 7
            assert await store.expire("cpu", 950, 700) == 250

    run_async(main)


def test_old_points_expire_in_steps_that_look_at_some_series_each(
    tmp_path: Path, run_async: RunAsync, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaning, "SERIES_A_STEP", 10)

    async def main() -> None:
        async with opened(tmp_path / "work.db") as store:
            record = await shape(store, v=INTEGER)
            found = await ids(store, record, *(tags(host=str(number)) for number in range(95)))
            await write(store, group(record, "v", *([one, time, 1] for one in found for time in range(4))))
            assert [await store.expire("cpu", 2, 50) for _ in range(5)] == [50, 50, 50, 40, 0]
            before = store.dependency.done.commits
            assert await store.expire("cpu", 2, 50) == 0
            assert store.dependency.done.commits - before == 10, "one walk, ten series a step"
            assert len(await read(store)) == 190
            # A horizon that is put off while the walk stands in the middle begins from the first series again.
            assert await store.expire("cpu", 3, 60) == 60
            total = 0
            while deleted := await store.expire("cpu", 4, 60):
                total += deleted
            assert total == 130

    run_async(main)


def test_a_large_table_is_counted_about(tmp_path: Path, run_async: RunAsync, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "POINTS_COUNTED", 1_000)
    monkeypatch.setattr(looking, "POINTS_A_SAMPLE", 50)

    async def main() -> None:
        async with opened(tmp_path / "work.db") as store:
            record = await shape(store, v=INTEGER)
            found = await ids(store, record, *(tags(host=str(number)) for number in range(40)))
            # Series have 10 to 400 points, evenly in time.
            many = [[one, time * 7, 1] for place, one in enumerate(found, 1) for time in range(place * 10)]
            await write(store, group(record, "v", *many))
            counts = await store.counts("cpu")
            assert counts is not None
            assert (counts.series, counts.is_exact, counts.oldest_ns, counts.newest_ns) == (40, False, 0, 399 * 7)
            assert len(many) == 8_200
            assert 7_000 < counts.points < 9_400

    run_async(main)


def test_series_and_points_are_found_by_indices(tmp_path: Path, run_async: RunAsync, monkeypatch: pytest.MonkeyPatch) -> None:
    """No statement of writing, reading and cleaning walks over a table, whatever is asked."""
    monkeypatch.setattr(cleaning, "ROWS_A_STEP", 1)
    monkeypatch.setattr(catalogue, "DROPPED_AT_ONCE", 1)
    path = tmp_path / "work.db"
    seen: set[str] = set()

    def trace(_: object, statement: str, __: object) -> bool:
        seen.add(statement)
        return True

    async def main() -> None:
        async with opened(path) as store:
            for call in (store.dependency.write, store.dependency.read):
                await call(lambda connection: setattr(connection, "exec_trace", trace))
            await put(store, "cpu", tags(host="a", zone="z"), {1: {"v": 1}, 2: {"v": 2}}, v=INTEGER)
            ask = Range("cpu", ("v",), {"host": ("a", "b"), "zone": ()}, 0, 9)
            first = await store.read(ask, count=1)
            await store.read(ask, after=(first[0][0], first[0][2]))
            await store.read(Range("cpu"))
            await store.newest("cpu", {"host": ("a",)}, 9)
            await store.tag_names()
            await store.tag_names("cpu")
            await store.tag_values()
            await store.tag_values("host")
            await store.tag_values("host", table="cpu", prefix="a")
            await store.expire("cpu", 2, 9)
            await put(store, "cpu", (), {1: {"v": 1}})
            await store.drop("cpu")

    run_async(main)
    look(path, "CREATE TABLE cpu (series INTEGER NOT NULL, time INTEGER NOT NULL, v, PRIMARY KEY (series, time)) WITHOUT ROWID")
    look(path, "ALTER TABLE cpu RENAME TO outlast_dropped_1")
    look(path, "CREATE TABLE cpu (series INTEGER NOT NULL, time INTEGER NOT NULL, v, PRIMARY KEY (series, time)) WITHOUT ROWID")
    of_data = [text for text in seen if re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE)\b", text) and "pragma_" not in text]
    assert len(of_data) > 20
    scans: list[str] = []
    for statement in of_data:
        names = len(set(re.findall(r"\?\d+", statement))) or statement.count("?")
        connection = apsw.Connection(str(path))
        plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", [None] * names).fetchall()
        connection.close()
        scans += [f"{row[3]}: {statement}" for row in plan if str(row[3]).startswith("SCAN")]
    allowed = (
        "SCAN outlast_tables_state",
        "SCAN json_each",
        "SCAN wanted",
        "SCAN s:",
        "SCAN (subquery",
        "SCAN outlast_tables_dropped",
    )
    # One row, some thousand behind the first, is bounded.
    assert [scan for scan in scans if not scan.startswith(allowed) and not scan.endswith("LIMIT 1 OFFSET ?")] == []


def test_a_fault_of_the_file_is_no_refusal_of_a_row(tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        async with opened(tmp_path / "work.db") as store:
            record = await shape(store, v=INTEGER)
            [one] = await ids(store, record, ())
            with pytest.raises(apsw.BindingsError) as caught:
                await store.write([group(record, "v", [one, 1, 1], [one, 2])])
            fault = attached(caught.value)
            assert fault is not None
            assert fault.kind is Kind.REJECTED
            assert await read(store) == [], "a row that is none is a mistake of the caller's, and nothing is written"

    run_async(main)
