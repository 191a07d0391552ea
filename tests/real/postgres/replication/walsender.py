"""What the tests of a walsender session share: a server with a table, its publication, and readers of raw messages."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

import psycopg
from psycopg.pq import DiagnosticField

from outlast import Kind, Scope
from outlast._core.faults import attached
from outlast.changes._slot.troubles import Meaning, Names, ReplicationRule, meaning_of
from outlast.postgres.replication import Replication, parse_lsn

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast.postgres import Postgres
    from outlast.testing import PostgresServer

OPTIONS = {"proto_version": "1", "publication_names": "pub"}
NAMES = Names("s", "pub", "app")
RULE = ReplicationRule(NAMES)
BIG = "INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 100000) AS i"
"""Some 30 MB of changes: more than all the sockets on the way can hold."""


def prepare(server: PostgresServer) -> None:
    while sql(server, "SELECT slot_name FROM pg_replication_slots"):
        sql(server, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
    sql(server, "DROP TABLE IF EXISTS t")
    sql(server, "CREATE TABLE t (id int PRIMARY KEY, text text)")
    sql(server, "DROP PUBLICATION IF EXISTS pub")
    sql(server, "CREATE PUBLICATION pub FOR TABLE t")


def sql(server: PostgresServer, statement: str, user: str = "postgres") -> list[tuple[object, ...]]:
    with psycopg.connect(server.dsn(user=user), autocommit=True) as conn:
        cursor = conn.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


async def until(condition: Callable[[], object], limit_s: float = 60.0) -> None:
    async with asyncio.timeout(limit_s):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.01)


def is_active(server: PostgresServer, slot: str = "s") -> bool:
    return bool(sql(server, f"SELECT 1 FROM pg_replication_slots WHERE slot_name = '{slot}' AND active"))


def confirmed(server: PostgresServer, slot: str = "s") -> int:
    return parse_lsn(str(sql(server, f"SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{slot}'")[0][0]))


async def take_rows(session: Replication, count: int) -> int:
    """Read until `count` rows and their commit have come; gives the position behind it."""
    rows, end = 0, 0
    while True:
        for payload in await session.next_batch():
            rows += payload[:1] == b"I"
            if payload[:1] == b"C":
                end = int.from_bytes(payload[10:18])
        if rows >= count and end:
            return end


async def first_commit(session: Replication) -> int:
    while True:
        for payload in await session.next_batch():
            if payload[:1] == b"C":
                return int.from_bytes(payload[10:18])


async def streaming(db: Postgres, **options: float) -> Replication:
    session = await Replication.connect(db, rule=RULE, **options)  # type: ignore[arg-type]
    slot = await session.create_slot("s")
    await session.start("s", slot.consistent_lsn, OPTIONS)
    return session


async def read_on(session: Replication) -> NoReturn:
    """Read until the stream ends, which raises."""
    while True:
        await session.next_batch()


def expect(error: psycopg.Error, meaning: Meaning, kind: Kind, hint: str) -> None:
    assert meaning_of(error, "replication") is meaning or meaning_of(error, "connect") is meaning
    function = (error.diag.source_function or "").encode()
    # 16 and 17 report a lost slot from where they report much else: there a look at the slot has to tell.
    if error.sqlstate and function != b"CreateDecodingContext":
        # The same in a language that nobody here reads: what the server says beside its text is enough.
        info = {DiagnosticField.SQLSTATE: error.sqlstate.encode(), DiagnosticField.SOURCE_FUNCTION: function}
        translated = type(error)("ein Text in einer anderen Sprache", info=info)  # type: ignore[arg-type]
        assert meaning_of(translated) is meaning, f"{error.sqlstate} is reported by {function.decode()}"
    fault = attached(error)
    assert fault is not None
    assert (fault.kind, fault.scope) == (kind, Scope.CALL)
    assert hint in fault.hint
