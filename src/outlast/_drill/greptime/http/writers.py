"""The writers of the drill over HTTP: twenty collectors of tables that can be made, and a flood to one that cannot."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from outlast._drill.greptime.http.client import LOST, HttpClient
from outlast._drill.greptime.http.collectors import Collectors
from outlast._drill.greptime.writers import BAD_TABLE, OTHERS

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from outlast._drill.greptime.background import Background
    from outlast._drill.greptime.http.collectors import Sent

BODY_POINTS: Final = 50
EVERY_S: Final = 1.0
"""Each of the twenty sends a body of so many points a second."""


class Writers:
    """Writes to one arm from the thread of a `Background`."""

    def __init__(self, background: Background, address: str, bad_per_s: float) -> None:
        """Write to the arm at `host:port`; to the bad table so many times a second, one point each."""
        self._background = background
        self._address = address
        self._bad_per_s = bad_per_s
        self._client: HttpClient | None = None
        self._collectors: Collectors | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def sent(self) -> list[Sent]:
        """The requests that were answered so far, in the order of their answers. May be read from other threads."""
        return [] if self._collectors is None else self._collectors.sent

    def connect(self) -> bool:
        """Begin if the arm listens; return whether it does."""
        return self._collectors is not None or self._background.run(self._begin())

    def write_to_bad_table(self) -> None:
        """Begin with the writes to the table that cannot be made."""
        self._background.run(self._flood())

    def stop(self, limit_s: float) -> None:
        """Write no more, and wait for the answers that are due, `limit_s` seconds at most."""
        self._background.run(self._end(limit_s))

    async def _begin(self) -> bool:
        client = HttpClient(self._address)
        if (await client.ask(b"GET", "/ping")).status == LOST:
            client.close()
            return False
        self._client, self._collectors = client, Collectors(client)
        for number in range(OTHERS):
            self._begin_task(self._collectors.collect(f"other_{number}", BODY_POINTS, every_s=EVERY_S))
        return True

    async def _flood(self) -> None:
        assert self._collectors is not None  # noqa: S101  the arm was ready
        self._begin_task(self._collectors.flood(BAD_TABLE, 1, self._bad_per_s))

    def _begin_task(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _end(self, limit_s: float) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._client is not None and self._collectors is not None:
            await self._collectors.settle(limit_s)
            self._client.close()
        self._tasks.clear()
