"""An incident book with a clock and a logger: reminders come by timer, not when the next fault happens to come."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from outlast.core.incidents import IncidentBook, Reminders
from outlast.logs.lines import write

if TYPE_CHECKING:
    from outlast.core.faults import Fault


class Incident:
    """Folds the faults of one subject into a handful of log lines with exact counts.

    `fault` writes a line for the first fault and for each new distinct one, `better` says once that things
    look good, `resolve` closes it. Reminders are driven by a timer of the running event loop; without one
    (plain threads) they come with the next call. Lines go to the logger `outlast`.
    """

    def __init__(
        self,
        subject: str,
        *,
        verb: str = "is down",
        reminders: Reminders | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        """Name the subject ("loop settle") and what it is while the incident is open ("is failing")."""
        self.book = IncidentBook(subject, verb, reminders or Reminders())
        self._logger = logger or logging.getLogger("outlast")
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether an incident is open."""
        return self.book.is_open

    @property
    def first(self) -> Fault | None:
        """The first cause of the open incident."""
        return self.book.first

    def fault(self, fault: Fault, exc: BaseException | None = None) -> None:
        """Count one fault; `exc` gives the traceback where the kind asks for one (`BUG`)."""
        write(self._logger, self.book.fault(fault, self._now()), exc)
        self.book.worse()
        self._schedule()

    def better(self) -> None:
        """Note that things look good again. Said once an incident."""
        write(self._logger, self.book.better(self._now()))

    def resolve(self) -> None:
        """Close the incident: health has lasted."""
        write(self._logger, self.book.resolve(self._now()))
        self.forget_timer()

    def refused(self) -> None:
        """Count a caller who was turned away or sent to wait."""
        self.book.refused += 1

    def summary(self) -> str | None:
        """Half a sentence about what is still open, or None."""
        return self.book.summary(self._now())

    def forget_timer(self) -> None:
        """Stop reminding until the next fault: the service ends, or what goes on now was told in other words."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _now(self) -> float:
        return clock()

    def _schedule(self) -> None:
        remind_at = self.book.remind_at
        if self._timer is not None or remind_at is None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            write(self._logger, self.book.remind(self._now()))
            return
        self._timer = loop.call_at(remind_at, self._remind)

    def _remind(self) -> None:
        self._timer = None
        write(self._logger, self.book.remind(self._now()))
        self._schedule()


def clock() -> float:
    """The time on the running event loop's clock, or the monotonic clock where no loop runs.

    An event loop's clock is the monotonic clock, but for a loop in virtual time.
    """
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()
