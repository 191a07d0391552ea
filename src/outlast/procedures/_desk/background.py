"""The regular work of a process that only submits and looks, and has no service: tasks that begin with the first use."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from outlast import Stop, Stopping

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast.procedures._desk.desk import Desk

AGAIN_S: Final = 1.0
"""After a fault of the store that its dependency does not explain."""
logger = logging.getLogger("outlast.procedures")


class Background:
    """News and upkeep without a service, for as long as the event loop runs. On the event loop's thread only."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.attached = False
        """Whether a service does this."""
        self._stop: Stop | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Open the store; begin the tasks unless a service has them. Raises what the store raises."""
        await self._desk.open()
        if self.attached or (self._tasks and not all(task.done() for task in self._tasks)):
            return
        stop = self._stop = Stop()
        self._tasks = [
            asyncio.create_task(self._keep(work, stop), name="outlast procedures")
            for work in (self._desk.run_news, self._desk.run_upkeep)
        ]

    async def close(self) -> None:
        """End the tasks."""
        if self._stop is not None:
            self._stop.fire("closed")
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []

    async def _keep(self, work: Callable[[Stop], Awaitable[None]], stop: Stop) -> None:
        while not stop.requested:
            try:
                await self._desk.keep(work, stop)
            except Stopping:
                return
            except Exception as exc:  # noqa: BLE001 - the dependency has it, or the next round meets it again
                logger.debug("procedures: %s", exc)
                await asyncio.sleep(AGAIN_S)
