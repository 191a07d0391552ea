"""The log lines of one admission: those its book decides on, written when they are due, by a timer."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from outlast._core.admission.shedding import Shedding
from outlast._runtime.dependency.outbox import Outbox

if TYPE_CHECKING:
    from outlast._core.admission.values import Refusal


class Lines:
    """Writes to the logger `outlast`. On the event loop's thread only.

    A refusal that opens no spell costs a look into a dict of five and two numbers.
    """

    def __init__(self, subject: str) -> None:
        self.book = Shedding(subject)
        """Its `open` and `since` may be read from any thread."""
        self._outbox = Outbox(logging.getLogger("outlast"))
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def refused(self, refusal: Refusal, now: float) -> None:
        """Count a refusal; write a line for the first of a spell."""
        line = self.book.refused(refusal, now)
        if line is not None:
            self._outbox.put(line)
            self._outbox.write()
            self._arm()

    def end(self, now: float) -> None:
        """Write the last lines: the service ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for line in self.book.end(now):
            self._outbox.put(line)
        self._outbox.write()

    def _arm(self) -> None:
        """Set the one timer, unless it is set: a new spell is due no earlier than those that were open."""
        loop, next_at = asyncio.get_running_loop(), self.book.next_at
        # One of an event loop that has ended would never come.
        if next_at is not None and (self._timer is None or self._loop is not loop):
            self._loop = loop
            self._timer = loop.call_at(next_at, self._due, loop)

    def _due(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        for line in self.book.due(loop.time()):
            self._outbox.put(line)
        self._outbox.write()
        self._arm()
