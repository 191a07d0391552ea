"""The shared part of the arms that are not built on Outlast: settings, loops, stop."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from outlast._drill.lab.worklog import WorkLog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DSN_VARIABLE = "OUTLAST_DRILL_DSN"
LOOPS_VARIABLE = "OUTLAST_DRILL_LOOPS"
WORK_VARIABLE = "OUTLAST_DRILL_WORK_S"
LOG_VARIABLE = "OUTLAST_DRILL_WORK_LOG"
SEED_VARIABLE = "OUTLAST_DRILL_SEED"
STATE_VARIABLE = "OUTLAST_DRILL_STATE"
PAYMENTS_VARIABLE = "OUTLAST_DRILL_PAYMENTS_PORT"

POLL_S = 0.1
"""Seconds that a loop which found no job waits before it asks again."""


@dataclass(frozen=True, slots=True)
class ArmSettings:
    """The settings of every arm, in environment variables (a DSN has no place in a process list)."""

    dsn: str
    loops: int
    work_s: float
    work_log: Path
    seed: int
    state: Path
    """A directory in which the arm may keep what it likes."""
    payments_port: int = 0
    """The loopback port of the second service that some jobs need; 0: there is none."""

    @classmethod
    def from_environment(cls) -> ArmSettings:
        """Read the settings; a missing variable is a KeyError that names it."""
        return cls(
            dsn=os.environ[DSN_VARIABLE],
            loops=int(os.environ[LOOPS_VARIABLE]),
            work_s=float(os.environ[WORK_VARIABLE]),
            work_log=Path(os.environ[LOG_VARIABLE]),
            seed=int(os.environ[SEED_VARIABLE]),
            state=Path(os.environ[STATE_VARIABLE]),
            payments_port=int(os.environ[PAYMENTS_VARIABLE]),
        )

    def as_environment(self) -> dict[str, str]:
        """Return the variables from which `from_environment` reads the same settings."""
        return {
            DSN_VARIABLE: self.dsn,
            LOOPS_VARIABLE: str(self.loops),
            WORK_VARIABLE: repr(self.work_s),
            LOG_VARIABLE: str(self.work_log),
            SEED_VARIABLE: str(self.seed),
            STATE_VARIABLE: str(self.state),
            PAYMENTS_VARIABLE: str(self.payments_port),
        }


class Slots:
    """Numbers for jobs of a worker that has no loops of its own: the number longest unused comes first."""

    def __init__(self, count: int) -> None:
        """Hand out the numbers 0 to `count` - 1."""
        self._free = deque(range(count))
        self._next = count

    def take(self) -> int:
        """Return a free number; past `count` jobs at once, further numbers are made up."""
        if self._free:
            return self._free.popleft()
        self._next += 1
        return self._next - 1

    def give_back(self, slot: int) -> None:
        """Make the number free again."""
        self._free.append(slot)


def one_line(exc: BaseException) -> str:
    """Return an exception as one line of log, as a structured logger would write it."""
    return f"{type(exc).__name__}: {exc}".replace("\n", "\\n")


class PlainService:
    """Runs loops side by side until SIGTERM: the plainest service there is."""

    def __init__(self, name: str) -> None:
        """Read the settings and open the work log."""
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        self.name = name
        self.log = logging.getLogger(name)
        self.settings = ArmSettings.from_environment()
        self.work_log = WorkLog(self.settings.work_log, name)
        self.stopping = asyncio.Event()
        random.seed(self.settings.seed)

    async def work(self, loop: int, job: int) -> None:
        """Do one job: the same work in every arm."""
        self.work_log.start(loop, job)
        await asyncio.sleep(self.settings.work_s)
        self.work_log.end(loop, job)

    async def sleep(self, seconds: float) -> None:
        """Sleep, but no longer than until the stop."""
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            return

    async def run(self, loop: Callable[[int], Awaitable[None]], *others: Callable[[], Awaitable[None]]) -> None:
        """Run `loop(0)` to `loop(loops - 1)` and the others; ends them when SIGTERM comes, or when one of them fails.

        Raises an ExceptionGroup of what failed.
        """
        running = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            running.add_signal_handler(number, self.stopping.set)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_as_coroutine(loop(index))) for index in range(self.settings.loops)]
            tasks += [group.create_task(_as_coroutine(other())) for other in others]
            await self.stopping.wait()
            # Jobs in flight get a moment to finish; whoever waits for the database is cancelled.
            await asyncio.wait(tasks, timeout=self.settings.work_s + 1.0)
            for task in tasks:
                task.cancel()


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable
