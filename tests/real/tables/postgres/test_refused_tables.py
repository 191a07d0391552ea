"""A table that PostgreSQL refuses as a whole stops no other, says why, and heals."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest
from postgres_table_rig import PostgresRig, emptied, shared_database
from table_store_rig import FLOAT, INTEGER, group, ids, put, read, refused, shape, types, write

from outlast import Kind, Scope
from outlast.extend import attached
from outlast.tables._errors import NameTakenError
from outlast.tables._stores.postgres import PostgresStore, _refusals, _sessions, _shaping, _writing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast import Fault
    from outlast.tables._stores.port import Wrote
    from outlast.testing import PostgresServer


@pytest.fixture(scope="module")
def shared(postgres: PostgresServer) -> Iterator[str]:
    with shared_database(postgres.dsn()) as dsn:
        yield dsn


@pytest.fixture
def rig(shared: str) -> PostgresRig:
    return PostgresRig(emptied(shared))


@pytest.fixture
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for a lock, and nothing is refused from memory."""
    monkeypatch.setattr(_sessions, "SETTINGS", _sessions.SETTINGS.replace("1500ms", "50ms"))
    monkeypatch.setattr(_writing, "SETTINGS", _sessions.SETTINGS)
    monkeypatch.setattr(_shaping, "LOCK_S", 0.05)
    monkeypatch.setattr(_refusals, "HELD_S", 0.0)


async def role(rig: PostgresRig, name: str, *rights: str) -> None:
    await rig.by_hand(f"""DO $$ BEGIN CREATE ROLE {name} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$""")
    for right in rights:
        await rig.by_hand(f"GRANT {right} TO {name}")


def only_fault(wrote: Wrote) -> Fault:
    [fault] = {one.fault for one in wrote.refused}
    return fault


def test_a_role_without_rights_is_told_which_is_missing_until_it_has_it(rig: PostgresRig) -> None:
    async def main() -> None:
        async with rig.opened():
            pass
        name = "outlast_reader"
        await role(rig, name, "USAGE ON SCHEMA outlast, metrics", "ALL ON ALL TABLES IN SCHEMA outlast")
        store = rig.store_of(name)
        try:
            await store.open()
            for _ in range(2):
                with pytest.raises(psycopg.errors.InsufficientPrivilege) as refusal:
                    await shape(store, v=INTEGER)
                fault = attached(refusal.value)
                assert fault is not None
                assert (fault.kind, fault.scope) == (Kind.PERMANENT, Scope.CALL)
                assert fault.hint == f"grant the role {name} CREATE on schema metrics, and ownership of the table"
                assert "metrics.cpu" in fault.reason
            assert await store.table("cpu") is None
            await rig.by_hand(f"GRANT CREATE ON SCHEMA metrics TO {name}")
            await put(store, "cpu", (), {1: {"v": 1}}, v=INTEGER)
            # What another role has made it may not change, nor write to.
            async with rig.opened() as owner:
                record = await shape(owner, "mem", v=INTEGER)
                [series] = await ids(owner, record, ())
            with pytest.raises(psycopg.errors.InsufficientPrivilege) as refusal:
                await shape(store, "mem", w=INTEGER)
            fault = attached(refusal.value)
            assert fault is not None
            assert "must be owner of table mem" in fault.reason
            cpu = await shape(store, v=INTEGER)
            [of_cpu] = await ids(store, cpu, ())
            wrote = await store.write([group(record, "v", [series, 1, 1], [series, 2, 1]), group(cpu, "v", [of_cpu, 2, 2])])
            assert refused(wrote) == [(0, 0), (0, 1)]
            fault = only_fault(wrote)
            assert (fault.kind, fault.code, fault.scope) == (Kind.PERMANENT, "42501", Scope.CALL)
            assert len(await read(store)) == 2, "the others were written"
        finally:
            await store.dependency.close()
        await rig.by_hand(f"DROP OWNED BY {name}")

    rig.run(main)


def test_a_catalogue_that_may_not_be_made_says_so(rig: PostgresRig) -> None:
    async def main() -> None:
        await role(rig, "outlast_nobody")
        store = rig.store_of("outlast_nobody")
        try:
            with pytest.raises(psycopg.errors.InsufficientPrivilege) as refusal:
                await store.open()
            fault = attached(refusal.value)
            assert fault is not None
            assert (fault.kind, fault.scope) == (Kind.PERMANENT, Scope.CALL)
            # The catalogue is there, the schema of the points is not.
            async with rig.opened():
                pass
            await rig.by_hand("DROP SCHEMA metrics")
            await role(rig, "outlast_nobody", "USAGE ON SCHEMA outlast", "ALL ON ALL TABLES IN SCHEMA outlast")
            with pytest.raises(psycopg.errors.InsufficientPrivilege) as refusal:
                await store.open()
            fault = attached(refusal.value)
            assert fault is not None
            assert fault.hint == "grant the role outlast_nobody CREATE on the database"
            async with rig.opened():
                pass
            await store.open()
        finally:
            await store.dependency.close()
        await rig.by_hand("DROP OWNED BY outlast_nobody")

    rig.run(main)


@pytest.mark.usefixtures("_quickly")
def test_a_table_that_somebody_locks_is_refused_alone(rig: PostgresRig) -> None:
    async def main() -> None:
        async with rig.opened() as store:
            locked, free = await shape(store, "locked", v=INTEGER), await shape(store, "free", v=INTEGER)
            [of_locked], [of_free] = await ids(store, locked, ()), await ids(store, free, ())
            async with await psycopg.AsyncConnection.connect(rig.place) as somebody:
                await somebody.execute("LOCK TABLE metrics.locked IN SHARE MODE")
                wrote = await store.write([group(locked, "v", [of_locked, 1, 1]), group(free, "v", [of_free, 1, 1])])
                assert refused(wrote) == [(0, 0)]
                assert (only_fault(wrote).kind, only_fault(wrote).code) == (Kind.CONTENDED, "55P03")
                assert len(await read(store, "free")) == 1
            await write(store, group(locked, "v", [of_locked, 1, 1]))

    rig.run(main)


def test_a_table_that_was_refused_is_refused_from_memory_for_a_while(rig: PostgresRig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with rig.opened() as store:
            record = await shape(store, v=INTEGER)
            [series] = await ids(store, record, ())
            await rig.by_hand("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE SQLSTATE '55000'; END $$")
            await rig.by_hand("CREATE TRIGGER no BEFORE INSERT ON cpu FOR EACH ROW EXECUTE FUNCTION no()")
            assert only_fault(await store.write([group(record, "v", [series, 1, 1])])).code == "55000"
            await rig.by_hand("DROP TRIGGER no ON cpu")
            fault = only_fault(await store.write([group(record, "v", [series, 1, 1])]))
            assert fault.code == "55000"
            assert fault.retry_after_s is not None
            assert 0 < fault.retry_after_s <= _refusals.HELD_S
            loop = asyncio.get_running_loop()
            now = loop.time
            monkeypatch.setattr(loop, "time", lambda: now() + _refusals.HELD_S)
            await write(store, group(record, "v", [series, 1, 1]))

    rig.run(main)


@pytest.mark.usefixtures("_quickly")
def test_a_long_reader_does_not_hold_up_those_who_come_behind_a_shape(rig: PostgresRig) -> None:
    async def main() -> None:
        async with rig.opened() as store:
            record = await shape(store, v=INTEGER)
            [series] = await ids(store, record, ())
            async with await psycopg.AsyncConnection.connect(rig.place) as reader:
                await reader.execute("SELECT * FROM metrics.cpu")
                with pytest.raises(psycopg.errors.LockNotAvailable) as waited:
                    await shape(store, w=INTEGER)
                fault = store.dependency.classifiers.classify(waited.value)
                assert (fault.kind, fault.scope) == (Kind.CONTENDED, Scope.CALL)
                await write(store, group(record, "v", [series, 1, 1]))
                assert await shape(store, v=INTEGER) == record, "known shapes need no lock"
            assert set(types(await shape(store, w=INTEGER))) == {"v", "w"}

    rig.run(main)


@pytest.mark.parametrize(
    ("made", "kind", "dropped"),
    [
        ("CREATE TYPE cpu AS ENUM ('a')", "a type", "DROP TYPE cpu"),
        ("CREATE TYPE cpu AS (a integer)", "a type", "DROP TYPE cpu"),
        ("CREATE SEQUENCE cpu", "a sequence", "DROP SEQUENCE cpu"),
        ("CREATE MATERIALIZED VIEW cpu AS SELECT 1", "a materialized view", "DROP MATERIALIZED VIEW cpu"),
        ("CREATE TABLE cpu (a integer) PARTITION BY RANGE (a)", "a partitioned table", "DROP TABLE cpu"),
    ],
)
def test_whatever_has_the_name_is_named(rig: PostgresRig, made: str, kind: str, dropped: str) -> None:
    async def main() -> None:
        async with rig.opened() as store:
            await rig.by_hand(made)
            with pytest.raises(NameTakenError) as taken:
                await shape(store, v=INTEGER)
            assert str(taken.value) == f"table 'cpu' cannot be made: metrics.cpu is {kind} that is none of the tables of metrics"
            await rig.by_hand(dropped)
            await put(store, "cpu", (), {1: {"v": 1}}, v=INTEGER)

    rig.run(main)


@pytest.mark.usefixtures("_quickly")
def test_a_view_that_took_the_place_of_a_table_is_refused_and_healed(rig: PostgresRig) -> None:
    async def main() -> None:
        async with rig.opened() as store:
            await put(store, "cpu", (), {1: {"v": 1}}, v=INTEGER)
            record = await shape(store, v=INTEGER)
            [series] = await ids(store, record, ())
            await rig.by_hand("DROP TABLE cpu")
            await rig.by_hand("CREATE VIEW cpu AS SELECT 1::bigint AS series, 2::bigint AS time, 3::bigint AS v")
            wrote = await store.write([group(record, "v", [series, 1, 1])])
            assert (only_fault(wrote).kind, only_fault(wrote).reason) == (Kind.PERMANENT, 'cannot insert into view "cpu"')
            with pytest.raises(NameTakenError, match=r"metrics\.cpu is a view"):
                await shape(store, v=FLOAT)
            await rig.by_hand("DROP VIEW cpu")
            await put(store, "cpu", (), {1: {"v": 1.5}}, v=FLOAT)
            assert await read(store) == [({}, 1, {"v": 1.5})]

    rig.run(main)


SEEN = """
CREATE TABLE public.seen (name text, value text);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO public.seen
        SELECT name, current_setting(name) FROM unnest('{synchronous_commit,transaction_isolation}'::text[]) AS name;
    RETURN NULL;
END $$;
CREATE TRIGGER see BEFORE INSERT ON cpu FOR EACH STATEMENT EXECUTE FUNCTION see()
"""


@pytest.mark.parametrize(("theirs", "ours"), [("off", "on"), ("local", "local"), ("remote_write", "remote_write")])
def test_a_write_is_durable_whatever_the_database_sets(database: str, theirs: str, ours: str) -> None:
    rig = PostgresRig(database)

    async def main() -> None:
        await rig.by_hand(f"""DO $$ BEGIN
            EXECUTE format('ALTER DATABASE %I SET synchronous_commit = {theirs}', current_database());
            EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', current_database());
        END $$""")
        async with rig.opened() as store:
            record = await shape(store, v=INTEGER)
            [series] = await ids(store, record, ())
            await rig.by_hand(SEEN)
            await write(store, group(record, "v", [series, 1, 1]))
            seen = {("synchronous_commit", ours), ("transaction_isolation", "read committed")}
            assert set(await rig.ask("SELECT * FROM public.seen")) == seen
            # Whoever borrows the connection next has the settings of the database.
            assert isinstance(store, PostgresStore)
            async with store._db.connection() as conn:
                for name, value in (("synchronous_commit", theirs), ("transaction_isolation", "serializable")):
                    assert await (await conn.execute(f"SHOW {name}".encode())).fetchall() == [(value,)]

    rig.run(main)
