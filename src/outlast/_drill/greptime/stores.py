"""The stores in which arms keep their tasks: launched for one arm each, and asked by the harness how much they hold."""

from __future__ import annotations

import base64
import json
import time
import urllib.request
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, LiteralString, Protocol

import psycopg

from outlast._core.quantities import size_text
from outlast._drill.greptime.arms.table_server import TASKS_PREFIX
from outlast._drill.greptime.etcd_server import EtcdServer
from outlast._drill.greptime.writers import BAD_TABLE
from outlast._drill.lab.target import connect_direct, number
from outlast.testing import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack

_ASK_S_MAX: Final = 5.0


@dataclass(frozen=True, slots=True)
class Look:
    """The state of a store at one moment (monotonic)."""

    at_s: float
    size_bytes: int
    records: int
    """Those of the bad table."""
    alarm: bool
    """Whether it refuses every write, because it has no room."""


class TaskStore(Protocol):
    """A store of one arm."""

    address: str
    """By which the arm reaches it."""

    def open(self, stack: ExitStack) -> Mapping[str, str]:
        """Launch it; leaving `stack` ends it. Return its version by its name."""
        ...

    def look(self) -> Look:
        """Ask it how much it holds. Called on one thread at a time."""
        ...


class EtcdStore:
    """An etcd with a quota. `prefix` is that of the keys of the bad table."""

    def __init__(self, prefix: str, quota_bytes: int) -> None:
        self.address = ""
        self._quota_bytes = quota_bytes
        self._prefix = prefix.encode()

    def open(self, stack: ExitStack) -> Mapping[str, str]:
        """Launch it."""
        server = stack.enter_context(EtcdServer(quota_bytes=self._quota_bytes))
        self.address = server.url
        return {"etcd": f"{self._ask('maintenance/status')['version']}, quota {size_text(self._quota_bytes)}"}

    def look(self) -> Look:
        """Ask for its status and for the number of keys."""
        status = self._ask("maintenance/status")
        after = self._prefix[:-1] + bytes([self._prefix[-1] + 1])
        keys = self._ask("kv/range", key=_encoded(self._prefix), range_end=_encoded(after), count_only=True)
        alarms = self._ask("maintenance/alarm", action="GET").get("alarms", [])
        return Look(time.monotonic(), int(status["dbSize"]), int(keys.get("count", 0)), bool(alarms))

    def _ask(self, what: str, **body: object) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.address}/v3/{what}", json.dumps(body).encode())  # noqa: S310  our own server
        with urllib.request.urlopen(request, timeout=_ASK_S_MAX) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
            return found


class PostgresStore:
    """A PostgreSQL. `query` counts the records of the bad table once there are tables, which the arm makes."""

    def __init__(self, query: LiteralString) -> None:
        self.address = ""
        self._query: LiteralString = query
        self._conn: psycopg.Connection[tuple[object, ...]] | None = None

    def open(self, stack: ExitStack) -> Mapping[str, str]:
        """Launch it."""
        server = stack.enter_context(PostgresServer())
        self.address = server.dsn("postgres")
        self._conn = stack.enter_context(closing(connect_direct(self.address)))
        version = self._conn.info.server_version
        return {"postgres": f"{version // 10_000}.{version % 10_000}"}

    def look(self) -> Look:
        """Ask for the size of the database and the number of rows."""
        assert self._conn is not None  # noqa: S101  it is open
        size = number(self._conn, "SELECT pg_database_size(current_database())")
        try:
            records = number(self._conn, self._query)
        except psycopg.errors.UndefinedTable:
            records = 0
        return Look(time.monotonic(), size, records, alarm=False)


def tasks_in_etcd(quota_bytes: int) -> EtcdStore:
    """Return the store of the arms that keep their tasks in etcd by themselves."""
    return EtcdStore(f"{TASKS_PREFIX}{BAD_TABLE}/", quota_bytes)


def jobs_of_procrastinate(quota_bytes: int) -> PostgresStore:
    """Return the store of the arm *procrastinate*. A PostgreSQL has no quota."""
    del quota_bytes
    return PostgresStore("SELECT count(*) FROM procrastinate_jobs WHERE queueing_lock = 'broken'")


def workflows_of_dbos(quota_bytes: int) -> PostgresStore:
    """Return the store of the arm *dbos*."""
    del quota_bytes
    return PostgresStore("SELECT count(*) FROM dbos.workflow_status WHERE workflow_uuid LIKE 'broken-%'")


def procedures_in_etcd(quota_bytes: int) -> EtcdStore:
    """Return the store of the arm *outlast*."""
    return EtcdStore("/outlast/", quota_bytes)


def procedures_in_postgres(quota_bytes: int) -> PostgresStore:
    """Return the store of the arm *outlast-postgres*."""
    del quota_bytes
    return PostgresStore("SELECT count(*) FROM outlast.procedures WHERE key = 'broken'")


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
