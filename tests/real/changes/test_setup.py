"""Setting up a change stream on a real server: every finding's SQL puts it right."""

from __future__ import annotations

import asyncio
import subprocess
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from outlast import ConfigurationError, Fault, Kind
from outlast.changes._slot.blockers import SlotCreationError, create_slot
from outlast.changes._slot.setup import Findings, examine, set_up
from outlast.postgres import Postgres
from outlast.testing import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import RunAsync

SETTINGS = {
    "wal_level": "logical",
    "max_replication_slots": "10",
    "max_wal_senders": "10",
    "max_prepared_transactions": "2",
}


@pytest.fixture(scope="module")
def logical() -> Iterator[PostgresServer]:
    with PostgresServer(settings=SETTINGS) as server:
        yield server


@pytest.fixture
def shop(logical: PostgresServer) -> Iterator[psycopg.Connection]:
    """A connection to a database "shop" of the test's own, with a table; its slots are dropped afterwards."""
    with psycopg.connect(logical.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE shop")
        with psycopg.connect(logical.dsn("shop"), autocommit=True) as conn:
            conn.execute("CREATE TABLE orders (id int PRIMARY KEY, note text)")
            yield conn
        # Whoever read from one was killed, and the server may not have noticed yet.
        admin.execute("SELECT pg_terminate_backend(active_pid, 20000) FROM pg_replication_slots WHERE active_pid IS NOT NULL")
        admin.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        admin.execute("DROP DATABASE shop WITH (FORCE)")


def codes(findings: Findings) -> list[str]:
    return [finding.fault.code for finding in findings.findings]


def repair(conn: psycopg.Connection, findings: Findings) -> None:
    """Run the SQL of every finding, as an operator would."""
    for finding in findings.findings:
        for statement in finding.statements:
            conn.execute(statement.encode())


def using(run_async: RunAsync, dsn: str, act: Callable[[Postgres], object]) -> Findings:
    async def main() -> Findings:
        db = Postgres(dsn)
        try:
            return await act(db)  # type: ignore[misc]
        finally:
            await db.close()

    return run_async(main)


def test_it_is_made_once_and_only_when_allowed(logical: PostgresServer, shop: psycopg.Connection, run_async: RunAsync) -> None:
    dsn = logical.dsn("shop")
    looked = using(run_async, dsn, lambda db: set_up(db, "pub", "slot", tables=["orders"]))
    assert (codes(looked), looked.done) == (["42704 publication missing", "42704 slot missing"], ())
    assert using(run_async, dsn, lambda db: examine(db, "pub", "slot", tables=["orders"])).findings == looked.findings
    made = using(run_async, dsn, lambda db: set_up(db, "pub", "slot", tables=["orders"], create=True))
    assert made.ready
    assert made.done == (
        'CREATE PUBLICATION "pub" FOR TABLE "public"."orders"',
        "SELECT pg_create_logical_replication_slot('slot', 'pgoutput')",
    )
    again = using(run_async, dsn, lambda db: set_up(db, "pub", "slot", tables=["public.orders"], create=True))
    assert (again.findings, again.done) == ((), ())


def test_two_at_once(logical: PostgresServer, shop: psycopg.Connection, run_async: RunAsync) -> None:
    async def both(db: Postgres) -> Findings:
        one, other = await asyncio.gather(*(set_up(db, "pub", "slot", tables=["orders"], create=True) for _ in range(2)))
        assert one.ready
        assert len(one.done) + len(other.done) == 2
        return other

    assert using(run_async, logical.dsn("shop"), both).ready


def test_the_sql_of_the_findings_puts_it_right(logical: PostgresServer, shop: psycopg.Connection, run_async: RunAsync) -> None:
    dsn = logical.dsn("shop")
    repair(shop, using(run_async, dsn, lambda db: examine(db, "pub", "slot", tables=["orders"])))
    assert using(run_async, dsn, lambda db: examine(db, "pub", "slot", tables=["orders"])).findings == ()
    shop.execute(
        'CREATE TABLE keyless (n int); CREATE TABLE "Odd ""name" (code text NOT NULL UNIQUE);'
        " CREATE TABLE mute (id int PRIMARY KEY); ALTER TABLE mute REPLICA IDENTITY NOTHING;"
        " CREATE TABLE parted (id int) PARTITION BY RANGE (id);"
        " CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10)"
    )
    tables = ["keyless", '"Odd ""name"', "mute", "parted", "orders"]
    missing = using(run_async, dsn, lambda db: examine(db, "pub", "slot", tables=tables))
    assert codes(missing) == ["42704"] * 4
    repair(shop, missing)
    bare = using(run_async, dsn, lambda db: examine(db, "pub", "slot", tables=tables))
    assert bare.ready
    assert sorted(statement for finding in bare.findings for statement in finding.statements) == [
        'ALTER TABLE "public"."Odd ""name" REPLICA IDENTITY USING INDEX "Odd ""name_code_key"',
        'ALTER TABLE "public"."keyless" REPLICA IDENTITY FULL',
        'ALTER TABLE "public"."mute" REPLICA IDENTITY DEFAULT',
        'ALTER TABLE "public"."parted_1" REPLICA IDENTITY FULL',
    ]
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        shop.execute("INSERT INTO keyless VALUES (1); UPDATE keyless SET n = 2")
    repair(shop, bare)
    shop.execute("INSERT INTO keyless VALUES (1); UPDATE keyless SET n = 2")
    assert using(run_async, dsn, lambda db: examine(db, "pub", "slot", tables=tables)).findings == ()


def test_a_slot_older_than_its_publication(logical: PostgresServer, shop: psycopg.Connection, run_async: RunAsync) -> None:
    """Its changes from before the publication cannot be decoded; the statements of the finding skip them, and only them."""
    shop.execute("SELECT pg_create_logical_replication_slot('slot', 'pgoutput')")
    shop.execute("INSERT INTO orders VALUES (1)")
    dsn = logical.dsn("shop")
    findings = using(run_async, dsn, lambda db: set_up(db, "pub", "slot", tables=["orders"], create=True))
    assert (codes(findings), findings.done) == (["42704 publication missing"], ())
    create, advance = findings.findings[0].statements
    shop.execute(create.encode())
    changes = b"SELECT count(*) FROM pg_logical_slot_peek_binary_changes('slot', NULL, NULL,"
    changes += b" 'proto_version', '1', 'publication_names', 'pub')"
    if shop.info.server_version < 180000:
        with pytest.raises(psycopg.errors.UndefinedObject):
            shop.execute(changes)
    shop.execute(advance.encode())
    shop.execute("INSERT INTO orders VALUES (2)")
    row = shop.execute(changes).fetchone()
    assert row is not None
    assert row[0] == 4, "begin, relation, insert, commit"


def test_a_user_without_rights(logical: PostgresServer, shop: psycopg.Connection, run_async: RunAsync) -> None:
    shop.execute("CREATE ROLE meek LOGIN")
    dsn = logical.dsn("shop", user="meek")
    try:
        look = lambda: using(run_async, dsn, lambda db: set_up(db, "pub", "slot", tables=["orders"], create=True))  # noqa: E731
        findings = look()
        assert codes(findings) == ["42501", "42704 publication missing", "42704 slot missing"]
        assert findings.done == ()
        shop.execute(findings.findings[0].statements[0].encode())
        shop.execute("GRANT CREATE ON DATABASE shop TO meek")
        findings = look()
        assert codes(findings)[0] == "42501", "it is not theirs to publish"
        assert findings.findings[0].statements == ('CREATE PUBLICATION "pub" FOR TABLE "public"."orders"',)
        assert findings.done == ()
        shop.execute("ALTER TABLE orders OWNER TO meek")
        assert look().ready
    finally:
        shop.execute("ALTER TABLE orders OWNER TO postgres; DROP OWNED BY meek; DROP ROLE meek")


def test_slots_of_others(logical: PostgresServer, shop: psycopg.Connection, run_async: RunAsync) -> None:
    dsn = logical.dsn("shop")
    look = lambda slot: using(run_async, dsn, lambda db: examine(db, "pub", slot))  # noqa: E731
    shop.execute("CREATE PUBLICATION pub FOR TABLE orders")
    shop.execute("SELECT pg_create_physical_replication_slot('physical')")
    shop.execute("SELECT pg_create_logical_replication_slot('plugin', 'test_decoding')")
    shop.execute("SELECT pg_create_logical_replication_slot('brief', 'pgoutput', true)")
    with psycopg.connect(logical.dsn(), autocommit=True) as conn:
        conn.execute("SELECT pg_create_logical_replication_slot('elsewhere', 'pgoutput')")
    assert codes(look("physical")) == ["55000"]
    assert "test_decoding" in look("plugin").findings[0].fault.reason
    assert "belongs to database postgres" in look("elsewhere").findings[0].fault.reason
    assert codes(look("brief")) == ["55006"]
    shop.execute("SELECT pg_drop_replication_slot('brief')")


def test_a_slot_in_use_names_who_holds_it(logical: PostgresServer, shop: psycopg.Connection, run_async: RunAsync) -> None:
    dsn = logical.dsn("shop")
    using(run_async, dsn, lambda db: set_up(db, "pub", "slot", tables=["orders"], create=True))
    program = [logical.bin_dir / "pg_recvlogical", "-d", dsn, "-S", "slot", "--start", "-f", "/dev/null"]
    options = ["-o", "proto_version=1", "-o", "publication_names=pub"]
    with subprocess.Popen([*program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as reader:
        try:
            deadline_s = time.monotonic() + 60
            findings = using(run_async, dsn, lambda db: examine(db, "pub", "slot"))
            while not findings.findings and time.monotonic() < deadline_s:
                findings = using(run_async, dsn, lambda db: examine(db, "pub", "slot"))
        finally:
            reader.kill()
    (held,) = findings.findings
    assert (held.fault.kind, held.fault.code, held.blocks) == (Kind.CONTENDED, "55006", False)
    assert "pg_recvlogical of user postgres, since 20" in held.fault.reason
    assert findings.ready


@pytest.mark.parametrize("prepared", [False, True])
def test_a_creation_names_who_blocks_it_once_and_goes_on(
    logical: PostgresServer, shop: psycopg.Connection, run_async: RunAsync, *, prepared: bool
) -> None:
    told: list[Fault] = []
    with psycopg.connect(logical.dsn("shop"), application_name="forgotten", autocommit=True) as other:
        pid = other.info.backend_pid
        other.execute("BEGIN; INSERT INTO orders VALUES (1)")
        end = "ROLLBACK"
        if prepared:
            other.execute("PREPARE TRANSACTION 'half way'")
            end = "ROLLBACK PREPARED 'half way'"

        async def act(db: Postgres) -> Findings:
            making = asyncio.create_task(set_up(db, "pub", "slot", tables=["orders"], create=True, on_blocked=told.append))
            while not told:
                await asyncio.sleep(0.05)
            await asyncio.sleep(1.5)
            assert not making.done()
            other.execute(end.encode())
            return await making

        assert using(run_async, logical.dsn("shop"), act).ready
    (fault,) = told
    assert fault.kind is Kind.CONTENDED
    assert ("half way" if prepared else f"pid {pid} (forgotten of user postgres") in fault.reason
    assert "open since 20" in fault.reason


def test_a_creation_is_bounded_and_leaves_nothing(
    logical: PostgresServer, shop: psycopg.Connection, run_async: RunAsync, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "outlast.changes")

    async def act(db: Postgres) -> None:
        with pytest.raises(SlotCreationError, match=r"within 2 s: .*forgotten.*pg_terminate_backend"):
            await create_slot(db, "slot", wait_s=2.0)
        making = asyncio.create_task(create_slot(db, "slot"))
        await asyncio.sleep(1.0)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making

    with psycopg.connect(logical.dsn("shop"), application_name="forgotten", autocommit=True) as other:
        other.execute("BEGIN; INSERT INTO orders VALUES (1)")
        using(run_async, logical.dsn("shop"), act)
        deadline_s = time.monotonic() + 60
        creating = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_create_logical%' AND state = 'active'"
        while shop.execute(creating.encode()).fetchone() != (0,):
            assert time.monotonic() < deadline_s, "the server still makes a slot for nobody"
    assert shop.execute("SELECT count(*) FROM pg_replication_slots").fetchone() == (0,)
    assert len([record for record in caplog.records if "forgotten" in record.getMessage()]) <= 2, "once for each creation"


def test_a_failover_slot(logical: PostgresServer, shop: psycopg.Connection, run_async: RunAsync) -> None:
    dsn = logical.dsn("shop")
    made = using(run_async, dsn, lambda db: set_up(db, "pub", "slot", tables=["orders"], create=True, failover=True))
    if shop.info.server_version < 170000:
        assert (codes(made)[-2:], made.done) == (["0A000", "42704 slot missing"], ())
        return
    assert made.ready
    assert made.survey.slot is not None
    assert made.survey.slot.failover
    using(run_async, dsn, lambda db: set_up(db, "pub", "plain", tables=["orders"], create=True))
    assert codes(using(run_async, dsn, lambda db: examine(db, "pub", "plain", failover=True))) == ["failover"]


def test_read_only_and_bad_names(logical: PostgresServer, shop: psycopg.Connection, run_async: RunAsync) -> None:
    dsn = logical.dsn("shop")
    shop.execute("ALTER DATABASE shop SET default_transaction_read_only = on")
    findings = using(run_async, dsn, lambda db: set_up(db, "pub", "slot", tables=["orders"], create=True))
    assert (codes(findings)[0], findings.done) == ("25006", ())
    shop.execute(findings.findings[0].statements[0].encode())
    assert using(run_async, dsn, lambda db: set_up(db, "pub", "slot", tables=["orders"], create=True)).ready
    for name in ("a b", "a.b.c.d", '"'):
        look = lambda db, name=name: examine(db, "pub", "slot", tables=[name])  # noqa: E731
        if name in {"a b", '"'} and shop.info.server_version >= 160000:
            # The server says of such a name only that there is no such table.
            assert codes(using(run_async, dsn, look)) == ["42P01"]
            continue
        with pytest.raises(ConfigurationError, match="name cannot be read"):
            using(run_async, dsn, look)


def test_a_server_that_is_not_configured_for_it(run_async: RunAsync) -> None:
    with PostgresServer(settings={"wal_level": "replica", "max_replication_slots": "1", "max_wal_senders": "1"}) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            conn.execute("CREATE TABLE orders (id int PRIMARY KEY)")
            conn.execute("SELECT pg_create_physical_replication_slot('only')")
        look = lambda: using(run_async, server.dsn(), lambda db: set_up(db, "pub", "slot", create=True))  # noqa: E731
        findings = look()
        assert codes(findings) == ["55000 wal_level", "53400", "42704 publication missing", "42704 slot missing"]
        assert findings.done == ()
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            repair_settings = [statement for finding in findings.findings[:2] for statement in finding.statements]
            for statement in repair_settings:
                conn.execute(statement.encode())
        for name in ("wal_level", "max_replication_slots"):
            del server.settings[name]
        server.restart()
        assert look().ready
