"""The deadlines of appends, with one timer for all of them."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast.streams._commit.lane import Item, Lane

SPARE: Final = 1_000
"""Deadlines of appends that have ended are taken out when there are so many beside twice those of the others."""


class Deadlines:
    """Calls `passed` for each append that has no answer yet at its deadline."""

    def __init__(self, passed: Callable[[Lane, Item], None]) -> None:
        self._passed = passed
        self._due: list[tuple[float, int, Lane, Item]] = []
        """A heap; appends that have ended stay in it for a while."""
        self._numbers = itertools.count()
        self._alarm: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._due)

    def add(self, due_at: float, lane: Lane, item: Item, waiting: int) -> None:
        """Take a deadline, on the clock of the event loop; `waiting` appends have no answer yet."""
        due = self._due
        if len(due) > 2 * waiting + SPARE:
            due[:] = [each for each in due if not each[3].future.done()]
            heapq.heapify(due)
        heapq.heappush(due, (due_at, next(self._numbers), lane, item))
        if self._alarm is None or due_at < self._alarm.when():
            self._set_alarm()

    def close(self) -> None:
        """Wait for none of them any more."""
        self._due.clear()
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(self._due[0][0], self._look) if self._due else None

    def _look(self) -> None:
        due, now = self._due, asyncio.get_running_loop().time()
        while due and (due[0][0] <= now or due[0][3].future.done()):
            _, _, lane, item = heapq.heappop(due)
            if not item.future.done():
                self._passed(lane, item)
        self._set_alarm()
