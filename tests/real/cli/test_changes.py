"""`outlast changes` on a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from outlast._cli.app import app
from outlast.postgres.ownership._standby import lock_key
from outlast.testing import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def logical() -> Iterator[PostgresServer]:
    with PostgresServer(settings={"wal_level": "logical", "max_slot_wal_keep_size": "1GB"}) as server:
        yield server


@pytest.fixture
def shop(logical: PostgresServer) -> Iterator[psycopg.Connection]:
    with psycopg.connect(logical.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE shop")
        with psycopg.connect(logical.dsn("shop"), autocommit=True) as conn:
            conn.execute("CREATE TABLE orders (id int PRIMARY KEY)")
            yield conn
        # Whoever read from one was killed, and the server may not have noticed yet.
        admin.execute("SELECT pg_terminate_backend(active_pid, 20000) FROM pg_replication_slots WHERE active_pid IS NOT NULL")
        admin.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        admin.execute("DROP DATABASE shop WITH (FORCE)")


@pytest.fixture
def changes(logical: PostgresServer, shop: psycopg.Connection) -> Callable[..., Result]:
    def run(*words: str, text: str | None = None) -> Result:
        environment = {"OUTLAST_DSN": logical.dsn("shop"), "COLUMNS": "160"}
        return CliRunner(env=environment).invoke(app, ["changes", *words], input=text)

    return run


@pytest.fixture
def read(changes: Callable[..., Result]) -> Callable[..., Any]:
    def run(*words: str, code: int = 0) -> Any:
        result = changes(*words, "--json")
        assert (result.exit_code, result.stderr) == (code, "")
        return json.loads(result.stdout)

    return run


@contextmanager
def recvlogical(server: PostgresServer, conn: psycopg.Connection) -> Iterator[int]:
    """Hold slot "slot" as another program would; gives the pid of the server's process that serves it."""
    program = [server.bin_dir / "pg_recvlogical", "-d", server.dsn("shop"), "-S", "slot", "--start", "-f", "/dev/null"]
    options = ["-o", "proto_version=1", "-o", "publication_names=pub"]
    with subprocess.Popen([*program, *options], stderr=subprocess.DEVNULL) as reader:
        try:
            deadline_s, pid = time.monotonic() + 60, None
            while pid is None and time.monotonic() < deadline_s:
                (pid,) = conn.execute("SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'slot'").fetchone() or (
                    None,
                )
            assert pid is not None
            yield pid
        finally:
            reader.kill()


def test_setup_says_what_it_found_and_did(changes: Callable[..., Result]) -> None:
    looked = changes("setup", "pub", "slot", "--table", "orders", "--check")
    assert looked.exit_code == 78
    assert looked.stdout.splitlines()[1:] == [
        "publication pub: none",
        "slot slot: none",
        "missing: publication pub does not exist in database shop (42704 publication missing)",
        '    CREATE PUBLICATION "pub" FOR TABLE "public"."orders";',
        "missing: replication slot slot does not exist (42704 slot missing)",
        "    SELECT pg_create_logical_replication_slot('slot', 'pgoutput');",
        "not ready",
    ]
    made = changes("setup", "pub", "slot", "--table", "orders")
    assert made.exit_code == 0
    assert made.stdout.splitlines()[1:] == [
        "publication pub: public.orders",
        "slot slot: pgoutput, WAL reserved, used by nobody",
        'done: CREATE PUBLICATION "pub" FOR TABLE "public"."orders"',
        "done: SELECT pg_create_logical_replication_slot('slot', 'pgoutput')",
        "ready: a stream can start",
    ]
    assert "done" not in changes("setup", "pub", "slot").stdout


def test_setup_for_all_tables_as_json(read: Callable[..., Any]) -> None:
    missing = read("setup", "pub", "slot", "--check", code=78)
    assert [finding["statements"] for finding in missing["findings"]] == [
        ['CREATE PUBLICATION "pub" FOR ALL TABLES'],
        ["SELECT pg_create_logical_replication_slot('slot', 'pgoutput')"],
    ]
    assert (missing["ready"], missing["done"], missing["slot"]) == (False, [], None)
    made = read("setup", "pub", "slot")
    assert (made["ready"], len(made["done"]), made["findings"]) == (True, 2, [])
    assert made["publication"]["all_tables"]
    assert made["slot"]["plugin"] == "pgoutput"


def test_setup_names_who_blocks_it_and_ends(changes: Callable[..., Result], logical: PostgresServer) -> None:
    with psycopg.connect(logical.dsn("shop"), application_name="forgotten") as other:
        other.execute("INSERT INTO orders VALUES (1)")
        result = changes("setup", "pub", "slot", "--wait", "2s")
        other.rollback()
    assert result.exit_code == 69
    told, ended = result.stderr.splitlines()
    assert "waits for the transaction of pid" in told
    assert "(forgotten of user postgres" in told
    assert "was not created within 2 s" in ended


def test_a_bad_name_and_a_server_that_is_away(changes: Callable[..., Result]) -> None:
    result = changes("setup", "pub", "No Slot")
    assert (result.exit_code, len(result.stderr.splitlines())) == (78, 1)
    assert "cannot name a replication slot" in result.stderr
    for words in (("setup", "pub", "slot"), ("status",), ("drop", "slot", "--yes")):
        away = changes(*words, "--dsn", "postgresql://app:hunter2@127.0.0.1:1/shop")
        assert (away.exit_code, len(away.stderr.splitlines())) == (69, 1)
        assert "127.0.0.1:1, database shop" in away.stderr
        assert "hunter2" not in away.output
    wrong = changes("status", "--dsn", "host=a port=xyz password=hunter2")
    assert wrong.exit_code == 78
    assert "hunter2" not in wrong.output


def test_status_of_none(changes: Callable[..., Result], read: Callable[..., Any]) -> None:
    assert changes("status").stdout == "no logical replication slots in this database\n"
    assert read("status") == {}
    result = changes("status", "slot")
    assert result.exit_code == 78
    assert "there is no replication slot slot; 'outlast changes setup' creates one" in result.stderr


def test_status(
    changes: Callable[..., Result], read: Callable[..., Any], logical: PostgresServer, shop: psycopg.Connection
) -> None:
    read("setup", "pub", "slot")
    shop.execute("INSERT INTO orders SELECT generate_series(1, 20000)")
    seen = read("status", "--over", "0s")["slot"]
    assert (seen["state"], seen["wal_status"], seen["owner"]) == ("ok", "reserved", None)
    assert seen["retained_bytes"] >= seen["lag_bytes"] > 1_000_000
    assert seen["limit_bytes"] == 2**30
    assert seen["loss_s"] is None
    assert seen["standbys"] == 0
    with recvlogical(logical, shop) as pid:
        held = read("status", "slot", "--over", "100ms")["slot"]
        assert held["owner"]["pid"] == pid
        assert held["owner"]["application"] == "pg_recvlogical"
        shown = changes("status").stdout
    head, lag, wal, owner = [line.split() for line in shown.splitlines()]
    assert head == ["slot", "ok"]
    assert lag[0] == "lag"
    assert wal[0] == "WAL"
    assert {"retained,", "reserved"} <= set(wal)
    assert owner[:3] == ["owner", str(pid), "pg_recvlogical,"]
    assert owner[-2:] == ["standbys:", "0"]
    assert max(map(len, shown.splitlines())) <= 80


def test_standbys_are_counted(read: Callable[..., Any], logical: PostgresServer) -> None:
    read("setup", "slot")
    for options, name in (((), "slot"), (("--name", "stream"), "stream")):
        key = lock_key(name)
        with (
            psycopg.connect(logical.dsn("shop"), autocommit=True) as owner,
            psycopg.connect(logical.dsn("shop"), autocommit=True) as standby,
            ThreadPoolExecutor(1) as pool,
        ):
            owner.execute("SELECT pg_advisory_lock(%s)", (key,))
            waiting = pool.submit(standby.execute, "SELECT pg_advisory_lock(%s)", (key,))
            try:
                deadline_s = time.monotonic() + 60
                while read("status", "slot", "--over", "0s", *options)["slot"]["standbys"] != 1:
                    assert time.monotonic() < deadline_s
            finally:
                owner.execute("SELECT pg_advisory_unlock(%s)", (key,))
                waiting.result(20)


def test_drop_asks_and_refuses_a_slot_in_use(
    changes: Callable[..., Result], read: Callable[..., Any], logical: PostgresServer, shop: psycopg.Connection
) -> None:
    read("setup", "pub", "slot")
    refused = changes("drop", "slot", text="n\n")
    assert refused.exit_code == 130
    assert "Drop replication slot slot on PostgreSQL at 127.0.0.1" in refused.stderr
    assert changes("drop", "slot", "--json").exit_code == 64
    with recvlogical(logical, shop) as pid:
        result = changes("drop", "slot", "--yes")
        assert result.exit_code == 69
        assert f"it is used by pid {pid} (pg_recvlogical of user postgres, since 20" in result.stderr
        deadline_s = time.monotonic() + 60
    result = changes("drop", "slot", "--publication", "pub", text="y\n")
    while result.exit_code == 69 and time.monotonic() < deadline_s:
        result = changes("drop", "slot", "--publication", "pub", text="y\n")
    assert (result.exit_code, result.stdout) == (0, "slot slot: dropped\npublication pub: dropped\n")
    assert changes("drop", "slot", "--yes").stdout == "slot slot: there is none\n"
    assert read("drop", "slot", "--publication", "pub", "--yes") == {"slot": False, "publication": False}


def test_tail_needs_a_publication_and_says_how_to_make_one(changes: Callable[..., Result]) -> None:
    result = changes("tail", "shop")
    assert result.exit_code == 78
    assert "there is no publication shop; 'outlast changes setup shop' creates one" in result.stderr


@pytest.mark.parametrize("end", ["interrupted", "the reader leaves"])
def test_tail_prints_json_lines_and_leaves_nothing_behind(logical: PostgresServer, shop: psycopg.Connection, end: str) -> None:
    shop.execute("CREATE PUBLICATION shop FOR TABLE orders")
    command = [sys.executable, "-m", "outlast", "changes", "tail", "shop"]
    environment = {**os.environ, "OUTLAST_DSN": logical.dsn("shop")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "following publication shop" in process.stderr.readline()
        while not shop.execute("SELECT FROM pg_replication_slots WHERE active").rowcount:
            time.sleep(0.01)
        shop.execute("INSERT INTO orders VALUES (7)")
        change, commit = json.loads(process.stdout.readline()), json.loads(process.stdout.readline())
        if end == "interrupted":
            process.send_signal(signal.SIGINT)
        else:
            process.stdout.close()
            shop.execute("INSERT INTO orders VALUES (8)")
        assert process.wait(60) == 0
        assert process.stderr.read() == ""
    assert (change["op"], change["table"], change["new"]) == ("insert", "public.orders", {"id": "7"})
    assert commit["op"] == "commit"
    while shop.execute("SELECT FROM pg_replication_slots").rowcount:
        time.sleep(0.01)
