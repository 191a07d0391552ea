"""The target of a fault: a PostgreSQL server behind a counting proxy, one for each arm."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from outlast._drill.coder.cancels import Cancels
from outlast._drill.lab.errors import DrillError
from outlast.testing import FaultProxy, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Generator

HARNESS_NAME = "outlast-drill"
"""application_name of the harness's own connections, so that no fault strikes the one that measures."""

_CONNECT_LIMIT_S = 5

_SERVER_SETTINGS = {"authentication_timeout": "3s"}
"""A stopping server waits for clients that have connected but not yet said who they are, for a minute by default."""


@dataclass(slots=True)
class PostgresTarget:
    """A database for one arm: `direct_dsn` for the harness, `proxied_dsn` for the arm."""

    direct_dsn: str
    proxied_dsn: str
    proxy: FaultProxy
    cancels: Cancels
    """The cancel requests among the connections that the proxy was offered."""
    server: PostgresServer | None
    version: str

    def own_server(self) -> PostgresServer:
        """Return the server that the drill launched; raises DrillError when the user gave one."""
        if self.server is None:
            msg = "this fault stops or changes the whole server, which a drill does only to a server of its own; leave out --dsn"
            raise DrillError(msg)
        return self.server

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """Open a harness connection past the proxy, in autocommit mode."""
        return connect_direct(self.direct_dsn)

    def answers(self) -> bool:
        """Return whether the server would let a client in now (libpq's ping: no login, no trace in the proxy)."""
        return pq.PGconn.ping(self.direct_dsn.encode()) == pq.Ping.OK


def connect_direct(dsn: str) -> psycopg.Connection[tuple[object, ...]]:
    """Open a harness connection in autocommit mode."""
    return psycopg.connect(dsn, autocommit=True, connect_timeout=_CONNECT_LIMIT_S, application_name=HARNESS_NAME)


def number(conn: psycopg.Connection[tuple[object, ...]], query: LiteralString) -> int:
    """Run a query for one whole number, and return it."""
    row = conn.execute(query).fetchone()
    value = row[0] if row else None
    if not isinstance(value, int):
        msg = f"expected one whole number from the server, got {value!r}"
        raise DrillError(msg)
    return value


@contextmanager
def launched_target() -> Generator[PostgresTarget]:
    """Launch a server in a fresh directory with a proxy before it; both are gone afterwards."""
    with PostgresServer(settings=_SERVER_SETTINGS) as server, _proxied(server.dsn("postgres"), server) as target:
        yield target


@contextmanager
def given_target(dsn: str) -> Generator[PostgresTarget]:
    """Use the user's server: a database of our own in it, dropped afterwards, with a proxy before it."""
    name = f"outlast_drill_{uuid.uuid4().hex[:12]}"
    try:
        with connect_direct(dsn) as conn:
            conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except psycopg.Error as exc:
        reason = str(exc).splitlines()[0]
        msg = f"could not create a database for the drill on the given server: {reason}; the user needs CREATEDB"
        raise DrillError(msg) from exc
    try:
        with _proxied(make_conninfo(dsn, dbname=name), None) as target:
            yield target
    finally:
        with connect_direct(dsn) as conn:
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def _proxied(direct: str, server: PostgresServer | None) -> Generator[PostgresTarget]:
    with connect_direct(direct) as conn:
        version = conn.info.server_version
        host, port = conn.info.hostaddr or conn.info.host, conn.info.port
    if host.startswith("/"):
        msg = f"the drill counts connections with a TCP proxy, but the given server is on the socket {host}; give a host"
        raise DrillError(msg)
    cancels = Cancels()
    proxy = FaultProxy(host, port, watch=cancels)
    proxy_port = proxy.start()
    try:
        keywords = {key: value for key, value in conninfo_to_dict(direct).items() if key not in {"host", "hostaddr", "port"}}
        proxied = make_conninfo("", host="127.0.0.1", port=proxy_port, **keywords)
        yield PostgresTarget(direct, proxied, proxy, cancels, server, f"{version // 10_000}.{version % 10_000}")
    finally:
        proxy.stop()
