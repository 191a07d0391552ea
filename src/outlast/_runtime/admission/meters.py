"""The task of an admission in its service: it measures, ends the waits at the stop, and waits for what is under way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from outlast._runtime.admission.lag import LagMeter
from outlast._runtime.admission.memory import SAMPLE_S, MemoryMeter
from outlast._runtime.service.stop import Stopping

if TYPE_CHECKING:
    from outlast._core.admission.memory import Memory
    from outlast._runtime.admission.desk import Desk
    from outlast._runtime.service.stop import Stop


class Meters:
    """Measures memory and lag for the machine that decides."""

    def __init__(self, desk: Desk, policy: Memory | None) -> None:
        self.unknown = "" if policy is None else "it has not been measured yet"
        """The reason why it is not known how near the memory is to its limit; empty while it is known, or nobody asks."""
        self._desk = desk
        # One for the life of the service, however often the task is restarted: it says each reason once.
        self._memory = None if policy is None else MemoryMeter(bytes_max=policy.bytes_max)

    async def begin(self) -> None:
        """Measure the memory once, before the service takes in work: one that starts into a flood has its thresholds."""
        await self._sample(0.0)

    async def run(self, stop: Stop) -> None:
        """Measure until the stop is fired, then wait for what is under way: the drain of the service lasts as long as that."""
        forget = stop.on_fire(self._desk.stop)
        try:
            await self._measure(stop)
        except Stopping:
            await self._desk.empty()
        finally:
            forget()
            if stop.requested:
                self._desk.lines.end(asyncio.get_running_loop().time())

    async def _measure(self, stop: Stop) -> None:
        lag = LagMeter()
        lag.start()
        try:
            while True:
                await self._sample(lag.lag_s)
                await stop.sleep(SAMPLE_S)
        finally:
            lag.stop()
            if self._memory is not None:
                self._memory.close()
            self._desk.measured(None, None, 0.0)

    async def _sample(self, lag_s: float) -> None:
        memory = self._memory
        if memory is None:
            self._desk.measured(None, None, lag_s)
            return
        self._desk.measured(*await memory.sample(), lag_s)
        self.unknown = memory.unknown
        if self._desk.admitter.memory_level:
            await memory.make_room(asyncio.get_running_loop().time())
