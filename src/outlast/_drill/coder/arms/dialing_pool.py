"""A connection pool that dials when asked and says at once what went wrong, as Go's `database/sql` does.

The service that had the incident used `database/sql` with at most 10 open connections. psycopg's own pool hides a
failed connect for up to 30 s, so it would measure another program. The arms *naive*, *coder-fixed* and *tenacity*
share this pool, so that they differ in one thing only: what they do when a call fails.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

CONNECTIONS_MAX = 10
"""Open connections at most: what the service of the incident set (`SetMaxOpenConns(10)`)."""

Connection = psycopg.AsyncConnection[tuple[object, ...]]


class DialingPool:
    """At most 10 connections, dialled on demand, kept while they work, thrown away when a call on them fails."""

    def __init__(self, dsn: str) -> None:
        """Dial `dsn` when a connection is needed and none is idle."""
        self._dsn = dsn
        self._idle: list[Connection] = []
        self._room = asyncio.Semaphore(CONNECTIONS_MAX)

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """Lend a connection in autocommit mode; raises what the connect raises, without a second try."""
        async with self._room:
            conn = self._idle.pop() if self._idle else await self.dial()
            try:
                yield conn
            except BaseException:
                with contextlib.suppress(psycopg.Error):
                    await conn.close()
                raise
            self._idle.append(conn)

    async def dial(self) -> Connection:
        """Open a connection outside the pool."""
        return await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)
