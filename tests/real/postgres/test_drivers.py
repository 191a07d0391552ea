"""What psycopg 3 and asyncpg raise in each real situation, as faults; on a server that speaks German where it can."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import pytest

from outlast import Classifiers, Fault, Kind, Scope
from outlast.postgres import postgres_rule
from outlast.postgres._dsn import Dsn
from outlast.postgres._login.probe import ProbeFailedError, probe
from outlast.testing import PostgresServer
from outlast.testing._network.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

RULES = Classifiers([postgres_rule])
GERMAN = "de_DE.UTF-8"
HBA = """
local all all trust
host all stranger 127.0.0.1/32 reject
host all scram 127.0.0.1/32 scram-sha-256
host all md5 127.0.0.1/32 md5
host all plain 127.0.0.1/32 password
host all all 127.0.0.1/32 trust
"""
ROLES = (
    "CREATE ROLE stranger LOGIN",
    "CREATE ROLE scram LOGIN PASSWORD 'right'",
    "CREATE ROLE plain LOGIN PASSWORD 'right'",
    "SET password_encryption = 'md5'",
    "CREATE ROLE md5 LOGIN PASSWORD 'right'",
    "CREATE ROLE app LOGIN",
    "CREATE DATABASE closed ALLOW_CONNECTIONS false",
    "CREATE DATABASE private",
    "REVOKE CONNECT ON DATABASE private FROM PUBLIC",
    "CREATE TABLE orders (id int PRIMARY KEY, email text)",
    "INSERT INTO orders VALUES (1, 'ann@example.org')",
)


def run_sql(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement.encode())


@pytest.fixture(scope="module")
def german() -> Iterator[PostgresServer]:
    """A server whose messages are German, if this machine can; English otherwise: the tests are the same."""
    settings = {"max_connections": "30"}
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        # Not below pytest's own directory, which every other run of pytest closes again to the server's user.
        places = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outlast-locales-")))
        places.chmod(0o755)
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["localedef", "-i", "de_DE", "-f", "UTF-8", str(places / GERMAN)]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            patch.setenv("LOCPATH", str(places))
            settings["lc_messages"] = GERMAN
        server = stack.enter_context(PostgresServer(settings=settings))
        run_sql(server.dsn(), *ROLES)
        (server.data / "pg_hba.conf").write_text(HBA, encoding="utf-8")
        run_sql(server.dsn(), "SELECT pg_reload_conf()")
        yield server


@pytest.fixture(params=["psycopg", "asyncpg"])
def driver(request: pytest.FixtureRequest) -> Any:
    return {"psycopg": Psycopg, "asyncpg": Asyncpg}[request.param]


class Psycopg:
    """psycopg 3, in as few words as both drivers need here."""

    shows_state_while_connecting = False

    def __init__(self, conn: psycopg.AsyncConnection[Any]) -> None:
        self.conn = conn
        self.backend = conn.info.backend_pid

    @classmethod
    async def connect(cls, dsn: str) -> Psycopg:
        return cls(await psycopg.AsyncConnection.connect(dsn, autocommit=True, connect_timeout=2))

    async def execute(self, statement: str) -> None:
        await self.conn.execute(statement.encode())

    def end(self) -> None:
        self.conn.pgconn.finish()


class Asyncpg:
    """asyncpg, the same."""

    shows_state_while_connecting = True

    def __init__(self, conn: Any) -> None:
        self.conn = conn
        self.backend = conn.get_server_pid()

    @classmethod
    async def connect(cls, dsn: str) -> Asyncpg:
        return cls(await asyncpg.connect(dsn, timeout=2))

    async def execute(self, statement: str) -> None:
        await self.conn.execute(statement)

    def end(self) -> None:
        self.conn.terminate()


def fault_of(act: Callable[[], Awaitable[object]], phase: str) -> Fault:
    async def main() -> Fault:
        try:
            await act()
        except Exception as exc:  # noqa: BLE001 - that it is classified is the test
            return RULES.classify(exc, source="db", phase=phase)
        pytest.fail("it worked")

    return asyncio.run(main())


REFUSED = [
    ("scram", "wrong", "postgres", "28P01", Kind.PERMANENT),
    ("md5", "wrong", "postgres", "28P01", Kind.PERMANENT),
    ("plain", "wrong", "postgres", "28P01", Kind.PERMANENT),
    ("stranger", "", "postgres", "28000", Kind.PERMANENT),
    ("nobody_such", "", "postgres", "28000", Kind.PERMANENT),
    ("app", "", "missing", "3D000", Kind.PERMANENT),
    ("app", "", "private", "42501", Kind.PERMANENT),
    ("app", "", "closed", "55000", Kind.TRANSIENT),
]


@pytest.mark.short
@pytest.mark.parametrize(("user", "password", "database", "code", "kind"), REFUSED, ids=[f"{row[0]} {row[2]}" for row in REFUSED])
def test_a_refused_login(
    german: PostgresServer, driver: Any, user: str, password: str, database: str, code: str, kind: Kind
) -> None:
    dsn = f"postgresql://{user}:{password}@127.0.0.1:{german.port}/{database}"
    fault = fault_of(lambda: driver.connect(dsn), "connect")
    if driver.shows_state_while_connecting:
        assert (fault.kind, fault.code) == (kind, code)
    else:
        assert (fault.kind, fault.code) == (Kind.TRANSIENT, "connect"), "psycopg hides it"
    assert fault.is_evidence
    # The probe is told in any case.
    told = fault_of(lambda: probe(Dsn.parse(dsn)), "probe")
    assert (told.kind, told.code) == (kind, code)
    assert told.is_evidence
    assert told.hint
    assert "wrong" not in told.reason


@pytest.mark.parametrize("user", ["scram", "md5", "plain", "postgres"])
def test_the_right_password_is_let_in(german: PostgresServer, user: str) -> None:
    dsn = f"postgresql://{user}:right@127.0.0.1:{german.port}/postgres"
    asyncio.run(probe(Dsn.parse(dsn)))


def test_no_password_where_one_is_asked_for(german: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("PGPASSFILE", "/dev/null")
    fault = fault_of(lambda: probe(Dsn.parse(f"postgresql://scram@127.0.0.1:{german.port}/postgres")), "probe")
    assert (fault.kind, fault.code) == (Kind.PERMANENT, "28P01")
    assert "PGPASSWORD" in fault.hint


def test_the_server_does_speak_german_where_it_can(german: PostgresServer) -> None:
    if german.settings.get("lc_messages") != GERMAN:
        pytest.skip("no German locale can be made here")
    with pytest.raises(ProbeFailedError) as caught:
        asyncio.run(probe(Dsn.parse(german.dsn("missing"))))
    if "existiert nicht" not in str(caught.value):
        pytest.skip("this server has no translations")


WRONG = [
    ("SELECT * FROM missing", "42P01", Kind.PERMANENT),
    ("SELECT missing FROM orders", "42703", Kind.PERMANENT),
    ("SELECT missing()", "42883", Kind.PERMANENT),
    ("SELECT 1 +", "42601", Kind.REJECTED),
    ("CREATE TABLE orders (id int)", "42P07", Kind.REJECTED),
    ("INSERT INTO orders VALUES (1, 'bob@example.org')", "23505", Kind.REJECTED),
    ("SELECT 1 / 0", "22012", Kind.REJECTED),
    ("DO $$ BEGIN RAISE EXCEPTION 'no'; END $$", "P0001", Kind.REJECTED),
    ("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'U0001'; END $$", "U0001", Kind.REJECTED),
    ("SET statement_timeout = '50ms'; SELECT pg_sleep(5)", "57014", Kind.TRANSIENT),
    ("SET ROLE app; SELECT * FROM orders", "42501", Kind.PERMANENT),
]


@pytest.mark.short
@pytest.mark.parametrize(("statement", "code", "kind"), WRONG, ids=[row[1] for row in WRONG])
def test_a_statement_that_fails_is_about_the_statement(
    german: PostgresServer, driver: Any, statement: str, code: str, kind: Kind
) -> None:
    async def act() -> None:
        conn = await driver.connect(german.dsn())
        try:
            for each in statement.split("; SELECT"):
                await conn.execute(each if each == statement.split("; SELECT", maxsplit=1)[0] else f"SELECT{each}")
        finally:
            conn.end()

    fault = fault_of(act, "query")
    assert (fault.kind, fault.code, fault.scope) == (kind, code, Scope.CALL)
    assert not fault.is_evidence
    assert "example.org" not in fault.reason


def test_a_lock_that_somebody_holds(german: PostgresServer, driver: Any) -> None:
    async def act() -> None:
        holder, waiter = await driver.connect(german.dsn()), await driver.connect(german.dsn())
        try:
            await holder.execute("BEGIN")
            await holder.execute("LOCK TABLE orders")
            await waiter.execute("SET lock_timeout = '50ms'")
            await waiter.execute("SELECT * FROM orders")
        finally:
            holder.end()
            waiter.end()

    fault = fault_of(act, "query")
    assert (fault.kind, fault.code, fault.scope) == (Kind.CONTENDED, "55P03", Scope.CALL)


def test_a_slot_that_somebody_uses(german: PostgresServer, driver: Any) -> None:
    german.settings.setdefault("wal_level", "logical")
    german.restart()
    run_sql(german.dsn(), "SELECT pg_create_logical_replication_slot('busy', 'pgoutput')", "CREATE PUBLICATION pub")

    async def act() -> None:
        dsn = f"{german.dsn()}?replication=database"
        holder = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        conn = await driver.connect(german.dsn())
        try:
            options = b"proto_version '1', publication_names 'pub'"
            await holder.execute(b"START_REPLICATION SLOT busy LOGICAL 0/0 (" + options + b")")
            await conn.execute("SELECT pg_drop_replication_slot('busy')")
        finally:
            conn.end()
            holder.pgconn.finish()

    fault = fault_of(act, "query")
    free = "NOT EXISTS (SELECT FROM pg_replication_slots WHERE active)"
    wait = f"DO $$ BEGIN WHILE NOT ({free}) LOOP PERFORM pg_sleep(0.02); END LOOP; END $$"
    run_sql(german.dsn(), wait, "SELECT pg_drop_replication_slot('busy')", "DROP PUBLICATION pub")
    assert (fault.kind, fault.code, fault.is_evidence) == (Kind.CONTENDED, "55006", False)


def test_a_backend_that_is_terminated(german: PostgresServer, driver: Any) -> None:
    async def during() -> None:
        conn = await driver.connect(german.dsn())
        task = asyncio.create_task(conn.execute("SELECT pg_sleep(20)"))
        await asyncio.sleep(0.2)
        await asyncio.to_thread(run_sql, german.dsn(), f"SELECT pg_terminate_backend({conn.backend})")
        await task

    async def while_idle() -> None:
        conn = await driver.connect(german.dsn())
        await asyncio.to_thread(run_sql, german.dsn(), f"SELECT pg_terminate_backend({conn.backend})")
        await asyncio.sleep(0.2)
        await conn.execute("SELECT 1")

    for act in (during, while_idle):
        fault = fault_of(act, "query")
        assert fault.kind is Kind.TRANSIENT
        assert fault.code in {"57P01", "08003", "ECONNRESET"}
        assert fault.is_evidence


def test_nobody_listens_and_a_name_that_is_none(driver: Any) -> None:
    port = free_port()
    refused = fault_of(lambda: driver.connect(f"postgresql://a@127.0.0.1:{port}/x"), "connect")
    assert refused.kind is Kind.TRANSIENT
    assert refused.code in {"connect", "ECONNREFUSED"}
    told = fault_of(lambda: probe(Dsn.parse(f"postgresql://a@127.0.0.1:{port}/x")), "probe")
    assert (told.kind, told.code) == (Kind.TRANSIENT, "ECONNREFUSED")
    unknown = fault_of(lambda: driver.connect("postgresql://a@no-such-host.invalid/x"), "connect")
    assert unknown.kind is Kind.TRANSIENT
    assert refused.is_evidence
    assert unknown.is_evidence


def test_too_many_connections(server: PostgresServer, driver: Any) -> None:
    server.settings = {**server.settings, "max_connections": "5", "superuser_reserved_connections": "1", "max_wal_senders": "0"}
    server.restart()
    run_sql(server.dsn(), "CREATE ROLE app LOGIN")
    dsn = server.dsn(user="app")

    async def act() -> None:
        holders = []
        try:
            while len(holders) < 10:
                holders.append(await driver.connect(dsn))
        except Exception:
            told = await asyncio.gather(probe(Dsn.parse(dsn)), return_exceptions=True)
            faults.append(RULES.classify(told[0]))
            raise
        finally:
            for holder in holders:
                holder.end()

    faults: list[Fault] = []
    fault = fault_of(act, "connect")
    assert (fault.code, fault.kind) in {("53300", Kind.EXHAUSTED), ("connect", Kind.TRANSIENT)}
    assert (faults[0].code, faults[0].kind) == ("53300", Kind.EXHAUSTED)


def test_a_frozen_server_is_a_timeout_to_the_drivers_and_to_the_probe(server: PostgresServer, driver: Any) -> None:
    async def limited() -> None:
        async with asyncio.timeout(0.5):
            await probe(Dsn.parse(server.dsn()))

    server.freeze()
    try:
        for act in (lambda: driver.connect(server.dsn()), limited):
            fault = fault_of(act, "connect")
            assert (fault.kind, fault.code) == (Kind.TRANSIENT, "timeout")
            assert fault.is_evidence
            assert fault.reason
    finally:
        server.thaw()
