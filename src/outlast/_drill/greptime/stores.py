"""The stores in which arms keep their tasks: launched for one arm each, and asked by the harness how much they hold."""

from __future__ import annotations

import base64
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, LiteralString, Protocol

import psycopg

from outlast._core.quantities import size_text
from outlast._drill.greptime.arms.table_server import TASKS_PREFIX
from outlast._drill.greptime.writers import BAD_TABLE
from outlast._drill.lab.target import connect_direct, number
from outlast.testing import EtcdServer, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack

PAYLOAD: Final = b"/p"
"""The keys of payloads of `outlast.procedures` end so."""
_BAD_TABLE: Final = f'"{BAD_TABLE}'.encode()


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
    """An etcd with a quota, with the tasks of arms that keep them there by themselves."""

    def __init__(self, quota_bytes: int) -> None:
        self.address = ""
        self.server = EtcdServer(quota_bytes=quota_bytes)

    def open(self, stack: ExitStack) -> Mapping[str, str]:
        """Launch it."""
        stack.enter_context(self.server)
        self.address = self.server.url
        return {"etcd": f"{self.server.version}, quota {size_text(self.server.quota_bytes or 0)}"}

    def look(self) -> Look:
        """Ask for its status, its alarms and the records."""
        status = self.server.ask("maintenance/status", {})
        alarms = self.server.ask("maintenance/alarm", {"action": "GET"}).get("alarms", [])
        return Look(time.monotonic(), int(status["dbSize"]), self.records(), bool(alarms))

    def records(self) -> int:
        """Count the keys that begin with the bad table's prefix."""
        prefix = f"{TASKS_PREFIX}{BAD_TABLE}"
        # All keys from the one that ends in a slash up to the one that ends in the character behind it.
        return int(self._range(f"{prefix}/", f"{prefix}0", count_only=True).get("count", 0))

    def _range(self, first: str, end: str, **more: object) -> dict[str, Any]:
        keys = {name: base64.b64encode(key.encode()).decode() for name, key in (("key", first), ("range_end", end))}
        return self.server.ask("kv/range", keys | more)


class ProceduresInEtcd(EtcdStore):
    """The same, with the records of `outlast.procedures`: each has one payload, which names its table."""

    def __init__(self, quota_bytes: int) -> None:
        super().__init__(quota_bytes)
        self._seen_revision = 0
        self._payloads: set[str] = set()

    def records(self) -> int:
        """Count the payloads of the bad table that were ever there: what was made since the last look is read."""
        found = self._range("\0", "\0", min_create_revision=str(self._seen_revision + 1))
        self._seen_revision = int(found["header"]["revision"])
        for kv in found.get("kvs", []):
            if base64.b64decode(kv["key"]).endswith(PAYLOAD) and _BAD_TABLE in base64.b64decode(kv.get("value", "")):
                self._payloads.add(kv["key"])
        return len(self._payloads)


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


def jobs_of_procrastinate(quota_bytes: int) -> PostgresStore:
    """Return the store of the arm *procrastinate*. A PostgreSQL has no quota."""
    del quota_bytes
    return PostgresStore("SELECT count(*) FROM procrastinate_jobs WHERE queueing_lock = 'broken'")


def workflows_of_dbos(quota_bytes: int) -> PostgresStore:
    """Return the store of the arm *dbos*."""
    del quota_bytes
    return PostgresStore("SELECT count(*) FROM dbos.workflow_status WHERE workflow_uuid LIKE 'broken-%'")


def procedures_in_postgres(quota_bytes: int) -> PostgresStore:
    """Return the store of the arm *outlast-postgres*."""
    del quota_bytes
    return PostgresStore("SELECT count(*) FROM outlast.procedures WHERE key = 'broken'")
