"""The data node: the tables of an arm and the writes in them. It is the harness's own, so it knows what an arm really did.

A table is made in three steps, each of which may be repeated: `allocate`, `region`, `publish`. What the fault breaks is the
second, and for one table only.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from contextlib import AsyncExitStack
from enum import Enum
from typing import Final

from outlast._drill.greptime.wire import DONE, REFUSED, serving

STEPS: Final = ("allocate", "region", "publish")
"""The steps in which a table is made."""
STORE: Final = "store"
WORK_S: Final = 0.001
"""Seconds that a step takes."""
_TIMES_MAX: Final = 2_000_000


class Trouble(Enum):
    """Ways in which a region cannot be made."""

    REFUSES = "refuses"
    HANGS = "hangs"


class DataNode:
    """Keeps tables and writes in memory. On one event loop; what it has counted may be read from other threads."""

    def __init__(self) -> None:
        self.attempts: deque[float] = deque(maxlen=_TIMES_MAX)
        """The monotonic times at which a region was asked for that could not be made."""
        self.attempt_count = 0
        self.published: Counter[str] = Counter()
        """How many times each table was published: it exists from the first time on."""
        self.writes: set[int] = set()
        """The numbers of the writes that are stored."""
        self.troubles: dict[str, Trouble] = {}
        """The tables that cannot be made. May be changed from other threads."""
        self._stack = AsyncExitStack()

    async def open(self, path: str) -> None:
        """Answer on that Unix socket."""
        await self._stack.enter_async_context(serving(path, self._answer))

    async def close(self) -> None:
        """Answer no more."""
        await self._stack.aclose()

    async def _answer(self, words: list[str]) -> str:
        what, table = words[0], words[1]
        if what == STORE:
            if not self.published[table]:
                return f"{REFUSED} there is no table {table}"
            self.writes.add(int(words[2]))
            return DONE
        await asyncio.sleep(WORK_S)
        if what == "region" and table in self.troubles:
            self.attempt_count += 1
            self.attempts.append(time.monotonic())
            while self.troubles.get(table) is Trouble.HANGS:  # noqa: ASYNC110  it is ended from another thread
                await asyncio.sleep(0.05)
            if table in self.troubles:
                return f"{REFUSED} cannot open a region of {table}: no such volume"
        if what == "publish":
            self.published[table] += 1
        return DONE
