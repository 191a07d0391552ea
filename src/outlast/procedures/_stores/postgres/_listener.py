"""The session that hears what other processes did: one for a store, kept up while somebody waits for news."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from outlast import Link, Stop, Stopping
from outlast.postgres import wait_on_purpose
from outlast.procedures._stores.postgres._statements import NEWEST

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from outlast.postgres import Connection, Postgres
    from outlast.procedures._stores.postgres._statements import Statements

WORK: Final = "work"
"""The payload that tells of work; all others are the number of an event."""


class Listener:
    """Listens on the channel of a store, on its event loop's thread, from the first call of `begin` to `close`."""

    def __init__(self, db: Postgres, said: Statements) -> None:
        """Nothing is dialled yet."""
        self._db = db
        self._said = said
        self._stop = Stop()
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self.newest: int | None = None
        """The number of the newest event; None while nobody listens, so that it has to be read."""
        self.works = 0
        """Counts the times that there may have been something to claim."""

    def begin(self) -> None:
        """Listen from now on."""
        if self._task is None and not self._stop.requested:
            link = Link("procedures", dial=self._dial, serve=self._serve, needs=(self._db,))
            self._task = asyncio.create_task(self._run(link), name="procedures listener")

    async def close(self) -> None:
        """End the session. Whoever waits goes on."""
        self._stop.fire("closed")
        self._tell()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def wait(self, wait_s: float) -> None:
        """Wait until something is heard, at most for so many seconds."""
        changed = self._changed
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await changed.wait()

    def _tell(self) -> None:
        # Those who wait hold the old event, so none of them can miss this.
        self._changed.set()
        self._changed = asyncio.Event()

    async def _run(self, link: Link[Connection]) -> None:
        with contextlib.suppress(Stopping):
            await link.run(self._stop)

    @contextlib.asynccontextmanager
    async def _dial(self) -> AsyncGenerator[Connection]:
        conn = await self._db.connect()
        try:
            conn.operation_timeout_s = self._db.operation_timeout_s
            await wait_on_purpose(conn)
            await conn.execute(self._said.listen())
            # What came while nobody listened is not told any more: it is read.
            [(self.newest,)] = await (await conn.execute(self._said(NEWEST))).fetchall()
            self.works += 1
            self._tell()
            conn.operation_timeout_s = None
            yield conn
        finally:
            self.newest = None
            await conn.close()

    async def _serve(self, conn: Connection, stop: Stop) -> None:
        async with stop.timeout(None):
            try:
                async for notification in conn.notifies():
                    self._hear(notification.payload)
            except Exception as exc:
                self._db.report(exc, epoch=conn.epoch)
                raise

    def _hear(self, payload: str) -> None:
        if payload == WORK:
            self.works += 1
        else:
            self.newest = max(self.newest or 0, int(payload))
        self._tell()
