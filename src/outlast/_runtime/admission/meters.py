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
        self._policy = policy

    async def begin(self) -> None:
        """Measure the memory once, before the service takes in work: one that starts into a flood has its thresholds."""
        if self._policy is not None:
            memory = MemoryMeter(bytes_max=self._policy.bytes_max)
            try:
                await self._sample(memory, 0.0)
            finally:
                memory.close()

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
        memory = None if self._policy is None else MemoryMeter(bytes_max=self._policy.bytes_max)
        lag.start()
        try:
            while True:
                await self._sample(memory, lag.lag_s)
                await stop.sleep(SAMPLE_S)
        finally:
            lag.stop()
            if memory is not None:
                memory.close()
            self._desk.measured(None, None, 0.0)

    async def _sample(self, memory: MemoryMeter | None, lag_s: float) -> None:
        used_bytes = limit_bytes = None
        if memory is not None:
            used_bytes, limit_bytes = await memory.sample()
            self.unknown = memory.unknown
        self._desk.measured(used_bytes, limit_bytes, lag_s)
