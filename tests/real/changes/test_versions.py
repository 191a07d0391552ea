"""The whole stream on every major version of PostgreSQL that this machine has: the system's, and those of wheels."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from changes_mirror import generated_in_the_sink, mirrored
from changes_source import LOGICAL, Memory, ask, insert, running, source_database, streams, until
from click.testing import CliRunner

from outlast._cli.app import app
from outlast.changes import DeliveryPolicy, PostgresSink, SourcePolicy
from outlast.changes._slot.watch import SlotState
from outlast.postgres import Postgres
from outlast.testing import PostgresServer, find_postgres_majors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import RunAsync

pytestmark = pytest.mark.expected_logs

WORKER = Path(__file__).with_name("change_worker.py")
SETTINGS = {**LOGICAL, "logical_decoding_work_mem": "64kB", "min_wal_size": "32MB", "max_wal_size": "32MB"}
"""The smallest work_mem there is: what is larger is streamed, if that was asked for."""

TABLES = """
CREATE TABLE IF NOT EXISTS item (id bigint PRIMARY KEY, name text, amount numeric);
ALTER TABLE item ALTER name SET STORAGE EXTERNAL;
CREATE TABLE keyless (a int, b text, UNIQUE (a, b));
ALTER TABLE keyless REPLICA IDENTITY FULL;
CREATE TABLE coded (code text NOT NULL UNIQUE, n int, twice int GENERATED ALWAYS AS (n * 2) STORED);
ALTER TABLE coded REPLICA IDENTITY USING INDEX coded_code_key;
CREATE TABLE parted (id int PRIMARY KEY, note text) PARTITION BY RANGE (id);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (100);
CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (100) TO (200);
CREATE TYPE colour AS ENUM ('red', 'green');
CREATE TABLE odd (id int PRIMARY KEY, c colour, tags text[], doc jsonb, at timestamptz, span interval, raw bytea);
CREATE TABLE emptied (id int PRIMARY KEY);
CREATE TABLE child (PRIMARY KEY (id)) INHERITS (emptied);
CREATE TABLE plain (doc json, place point, n numeric);
ALTER TABLE plain REPLICA IDENTITY FULL;
CREATE TABLE own (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int, body text);
ALTER TABLE own ALTER body SET STORAGE EXTERNAL;
"""
NAMES = ("item", "keyless", "coded", "parted", "odd", "emptied", "child", "(SELECT plain::text FROM plain) AS plain", "own")
WORK = (
    "INSERT INTO item SELECT g, repeat('x', 5000), g FROM generate_series(1, 20) g",
    # The large value is left alone: the server does not send it.
    "UPDATE item SET amount = amount + 0.5 WHERE id <= 10",
    "UPDATE item SET id = 1000 + id WHERE id <= 3",
    "DELETE FROM item WHERE id % 5 = 0",
    "INSERT INTO keyless VALUES (1, 'a'), (2, 'b'), (3, 'c')",
    "UPDATE keyless SET b = 'changed' WHERE a = 1",
    "DELETE FROM keyless WHERE a = 2",
    "INSERT INTO coded VALUES ('one', 1), ('two', 2), ('three', 3)",
    "UPDATE coded SET code = 'four', n = 4 WHERE code = 'two'",
    "DELETE FROM coded WHERE code = 'three'",
    "INSERT INTO parted VALUES (1, 'low'), (101, 'high')",
    "UPDATE parted SET id = 102 WHERE id = 1",
    "INSERT INTO odd VALUES (1, 'red', '{a,\"b c\",NULL}', '{\"k\": [1, null]}', now(), '-1 day 02:03', '\\x00ff')",
    "INSERT INTO emptied SELECT generate_series(1, 10)",
    "INSERT INTO child SELECT generate_series(5, 15)",
    "UPDATE ONLY emptied SET id = 105 WHERE id = 5",
    "TRUNCATE ONLY emptied",
    "INSERT INTO plain VALUES ('{}', '(1,2)', 1.0), ('{}', '(1,2)', 1.00), ('{}', '(1,2)', 1.0), (NULL, NULL, 2)",
    "DELETE FROM plain WHERE n::text = '1.00' OR ctid = (SELECT min(ctid) FROM plain)",
    "UPDATE plain SET doc = '[]' WHERE n = 2",
    "INSERT INTO own (n, body) SELECT g, repeat('x', 5000) FROM generate_series(1, 3) g",
    "UPDATE own SET n = 0 WHERE id = 1",
    "UPDATE own SET id = DEFAULT WHERE id = 2",
)
LARGE = 20_000


def each_major() -> list[Any]:
    """Those that are there; the wheel with 17 is for Python 3.12 alone."""
    return [
        pytest.param(major, id=f"PostgreSQL {major}", marks=[pytest.mark.short] if major == 17 else [])
        for major in find_postgres_majors()
    ]


@pytest.fixture(scope="module", params=each_major())
def logical(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """One server of each version for the tests of this file that break none."""
    with PostgresServer(major=request.param, settings=SETTINGS) as server:
        assert server.version.split(".")[0] == str(request.param)
        yield server


@pytest.fixture
def source(logical: PostgresServer) -> Iterator[str]:
    with source_database(logical) as dsn:
        yield dsn


@pytest.fixture
def warehouse(logical: PostgresServer, source: str) -> Iterator[str]:
    """The sink's database, on the same server."""
    name = f"{source.rpartition('/')[2]}_mirror"
    ask(logical.dsn(), f"CREATE DATABASE {name}")
    for dsn in (source, logical.dsn(name)):
        ask(dsn, TABLES)
    yield logical.dsn(name)
    ask(logical.dsn(), f"DROP DATABASE {name} WITH (FORCE)")


def contents(dsn: str) -> dict[str, list[tuple[Any, ...]]]:
    return {name: ask(dsn, f"SELECT * FROM {name} ORDER BY 1") for name in NAMES}


async def same(source: str, mirror: str, limit_s: float = 60.0) -> None:
    """Return when every table of the mirror has what the source has; at the limit, say what differs."""
    expected = await asyncio.to_thread(contents, source)
    seen = None
    try:
        async with asyncio.timeout(limit_s):
            while (seen := await asyncio.to_thread(contents, mirror)) != expected:
                await asyncio.sleep(0.05)
    except TimeoutError:
        assert seen == expected


async def asked(dsn: str, *statements: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for statement in statements:
        rows = await asyncio.to_thread(ask, dsn, statement)
    return rows


def test_columns_that_are_generated_when_they_are_read_and_some_that_are_published(
    logical: PostgresServer, run_async: RunAsync
) -> None:
    if logical.version < "18":
        pytest.skip("PostgreSQL 18 brought both")
    with mirrored(logical) as mirror:
        mirror.source.execute("CREATE TABLE g (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED)")
        mirror.source.execute("INSERT INTO g SELECT i, i FROM generate_series(1, 5) AS i")
        mirror.source.execute("CREATE PUBLICATION shop FOR ALL TABLES WITH (publish_generated_columns = stored)")
        mirror.sink.execute("CREATE TABLE g (id int PRIMARY KEY, n int, twice int)")
        run_async(lambda: generated_in_the_sink(mirror, "VIRTUAL"))
        assert mirror.differences("g") == {}


@pytest.mark.parametrize("streaming", [False, True], ids=["protocol 1", "protocol 2"])
def test_everything_reaches_the_mirror(
    source: str, warehouse: str, run_async: RunAsync, tmp_path: Path, *, streaming: bool
) -> None:
    large = (
        f"BEGIN; INSERT INTO item SELECT g, 'large', 1 FROM generate_series(10001, {10_000 + LARGE}) g; SAVEPOINT s;"
        f" INSERT INTO item SELECT g, 'undone', 1 FROM generate_series(100001, {100_000 + LARGE}) g; ROLLBACK TO s;"
        " UPDATE item SET name = 'again' WHERE id % 100 = 0; COMMIT"
    )

    async def main() -> None:
        sink = PostgresSink(Postgres(warehouse, name="warehouse"))
        async with running(source, sink, delivery=DeliveryPolicy(streaming=streaming, spool_directory=tmp_path)) as changes:
            await streams(source)
            await asked(source, *WORK)
            await same(source, warehouse)
            await asked(source, large)
            await same(source, warehouse)
            assert changes.link.sessions == 1
        # Once more from the position that the sink has stored: nothing comes twice, which a table without a key would show.
        async with running(source, sink, delivery=DeliveryPolicy(streaming=streaming, spool_directory=tmp_path)):
            await asked(source, "INSERT INTO keyless VALUES (4, 'd')")
            await same(source, warehouse)
        streamed = "SELECT stream_txns > 0 FROM pg_stat_replication_slots WHERE slot_name = 'shop'"
        async with asyncio.timeout(60):
            while streaming and await asked(source, streamed) != [(True,)]:
                await asyncio.sleep(0.05)

    run_async(main, limit_s=90)


def test_the_standby_takes_over_from_an_owner_that_is_killed(source: str, run_async: RunAsync, tmp_path: Path) -> None:
    told = tmp_path / "told"
    environment = {**os.environ, "WORKER_DSN": source, "WORKER_TOLD": str(told), "WORKER_TELL_FROM": "1"}
    standing_by = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'outlast standby shop' AND wait_event_type = 'Lock'"
    )

    async def main() -> None:
        with (tmp_path / "stderr").open("wb") as stderr:
            owner = await asyncio.create_subprocess_exec(sys.executable, WORKER, env=environment, stderr=stderr)
        try:
            await streams(source)
            await insert(source, 1)
            await until(lambda: "given 1 " in told.read_text(encoding="ascii"))
            sink = Memory()
            async with running(source, sink) as changes:
                while await asked(source, standing_by) != [(1,)]:
                    await asyncio.sleep(0.02)
                status = CliRunner(env={"OUTLAST_DSN": source}).invoke
                seen = await asyncio.to_thread(status, app, ["changes", "status", "shop", "--over", "0s", "--json"])
                assert (seen.exit_code, seen.stderr) == (0, "")
                slot = json.loads(seen.stdout)["shop"]
                assert (slot["state"], slot["wal_status"], slot["standbys"]) == ("ok", "reserved", 1)
                assert slot["owner"]["application"] == "outlast changes shop"
                assert changes.epoch == 0
                assert sink.opened == 0
                owner.send_signal(signal.SIGKILL)
                await insert(source, 2)
                await until(lambda: 2 in sink.rows)
                assert changes.epoch == 2
        finally:
            with contextlib.suppress(ProcessLookupError):
                owner.kill()
            await owner.wait()

    run_async(main)


def test_a_slot_that_somebody_reads_past_the_lock_is_waited_for(
    source: str, logical: PostgresServer, run_async: RunAsync, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "outlast")
    setup = CliRunner(env={"OUTLAST_DSN": source}).invoke(app, ["changes", "setup", "shop", "--json"])
    assert json.loads(setup.stdout)["ready"], setup.output
    reader = [logical.bin_dir / "pg_recvlogical", "-d", source, "-S", "shop", "--start", "-f", os.devnull]
    options = ["-o", "proto_version=1", "-o", "publication_names=shop"]

    async def main() -> None:
        holder = await asyncio.create_subprocess_exec(*reader, *options, stderr=subprocess.DEVNULL)
        try:
            await streams(source)
            sink = Memory()
            async with running(source, sink) as changes:
                await until(lambda: "standing by, slot shop is read by" in caplog.text)
                holder.kill()
                await insert(source, 1)
                await until(lambda: 1 in sink.rows)
                assert changes.link.sessions == 1
        finally:
            with contextlib.suppress(ProcessLookupError):
                holder.kill()
            await holder.wait()

    run_async(main)
    lines = [record.getMessage() for record in caplog.records if "standing by" in record.getMessage()]
    assert len(lines) == 1
    assert "pg_recvlogical" in lines[0]
    assert "since 20" in lines[0]


def loses_its_log(dsn: str) -> None:
    """Write more than the server keeps for a slot, and have it look."""
    ask(dsn, "ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'")
    ask(dsn, "SELECT pg_reload_conf()")
    for _ in range(4):
        ask(dsn, "SELECT count(pg_logical_emit_message(false, 'x', repeat('x', 8000))) FROM generate_series(1, 2000)")
        ask(dsn, "SELECT pg_switch_wal()")
        ask(dsn, "CHECKPOINT")


def lies_idle(dsn: str) -> None:
    """Have the server give up what nobody has read for a second (PostgreSQL 18), which is told before."""
    ask(dsn, "ALTER SYSTEM SET idle_replication_slot_timeout = '1s'")
    ask(dsn, "SELECT pg_reload_conf()")
    ask(dsn, "SELECT pg_sleep(0.5) FROM pg_replication_slots WHERE slot_name = 'shop'")
    status = CliRunner(env={"OUTLAST_DSN": dsn}).invoke(app, ["changes", "status", "shop", "--over", "0s", "--json"])
    assert json.loads(status.stdout)["shop"]["state"] == "endangered"
    # It counts from when the slot was left; a checkpoint looks.
    idle = "SELECT now() - inactive_since > '1 s' FROM pg_replication_slots WHERE slot_name = 'shop'"
    while ask(dsn, idle) != [(True,)]:
        ask(dsn, "SELECT pg_sleep(0.2)")
    ask(dsn, "CHECKPOINT")


@pytest.mark.parametrize("lose", [loses_its_log, lies_idle])
def test_a_slot_that_is_lost_ends_the_stream_and_is_told_once(
    source: str,
    warehouse: str,
    logical: PostgresServer,
    run_async: RunAsync,
    caplog: pytest.LogCaptureFixture,
    lose: Callable[[str], None],
) -> None:
    if lose is lies_idle and int(logical.version.split(".")[0]) < 18:
        pytest.skip("PostgreSQL 18 is the first that gives up a slot for being unused")

    async def main() -> None:
        sink = PostgresSink(Postgres(warehouse, name="warehouse"))
        async with running(source, sink):
            await streams(source)
            await insert(source, 1)
            await same(source, warehouse)
        while (await asked(source, "SELECT active FROM pg_replication_slots WHERE slot_name = 'shop'")) != [(False,)]:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(lose, source)
        async with running(source, sink) as changes:
            await until(lambda: changes.over)
            await changes.monitor.sample()
            assert changes.monitor.state is SlotState.LOST
            sessions = changes.link.sessions
            await asyncio.sleep(1.0)
            assert changes.link.sessions == sessions

    try:
        run_async(main)
    finally:
        ask(source, "ALTER SYSTEM RESET ALL")
        ask(source, "SELECT pg_reload_conf()")
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1, told
    assert ("idle_timeout" if lose is lies_idle else "slot shop is lost") in told[0].partition(" - ")[0]
    assert "SELECT pg_drop_replication_slot('shop')" in told[0]
    status = CliRunner(env={"OUTLAST_DSN": source}).invoke(app, ["changes", "status", "shop", "--over", "0s", "--json"])
    assert status.exit_code == 1
    assert json.loads(status.stdout)["shop"]["state"] == "lost"


def test_a_publication_that_is_dropped_under_the_stream_is_told(
    source: str, logical: PostgresServer, run_async: RunAsync, caplog: pytest.LogCaptureFixture
) -> None:
    """Up to 17 the server ends the session; 18 goes on without what changes meanwhile."""
    ask(source, "CREATE PUBLICATION shop FOR TABLE item")
    ask(source, "SELECT pg_create_logical_replication_slot('shop', 'pgoutput')")

    async def main() -> None:
        sink = Memory()
        async with running(source, sink, source=SourcePolicy(create=False)) as changes:
            await streams(source)
            await insert(source, 1)
            await until(lambda: sink.rows == [1])
            await asked(source, "DROP PUBLICATION shop")
            await insert(source, 2, 3)
            if int(logical.version.split(".")[0]) < 18:
                await until(lambda: changes.link.incident.is_open)
                return
            await until(lambda: "there is no publication shop" in caplog.text)
            await asked(source, "CREATE PUBLICATION shop FOR TABLE item")
            await insert(source, 4)
            await until(lambda: sink.rows == [1, 4])
            assert changes.link.sessions == 1

    run_async(main)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(told) == 1, told
    assert "CREATE PUBLICATION" in told[0]
