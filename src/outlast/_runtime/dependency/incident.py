"""An incident book with a clock and a logger: reminders come by timer, not when the next fault happens to come."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING

from outlast._core.incidents import IncidentBook, Reminders
from outlast._runtime.dependency.outbox import Outbox

if TYPE_CHECKING:
    from outlast._core.faults import Fault
    from outlast._core.incidents import Line


class Incident:
    """Folds the faults of one subject into a handful of log lines with exact counts.

    `fault` writes a line for the first fault and for each new distinct one, `better` says once that things
    look good, `resolve` closes it. Reminders are driven by a timer of the running event loop; without one
    (plain threads) they come with the next call. Lines go to the logger `outlast`. May be used from any thread: a log
    handler that blocks holds up the one thread that writes, and no other.
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
        self._outbox = Outbox(logger or logging.getLogger("outlast"))
        # Protects the book and the timer; nothing is written and nobody is called while it is held. Re-entrant, because the
        # garbage collector may run a finalizer inside that logs, and a folding handler asks for `summary`.
        self._lock = threading.RLock()
        self._timer: asyncio.TimerHandle | None = None
        self._held_until: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether an incident is open."""
        return self.book.is_open

    @property
    def first(self) -> Fault | None:
        """The first cause of the open incident."""
        return self.book.first

    def fault(self, fault: Fault, exc: BaseException | None = None) -> None:
        """Count one fault; the traceback is that of `exc`, where the kind asks for one (`BUG`)."""
        self.note_fault(fault, exc)
        self.write()

    def better(self) -> None:
        """Note that things look good again. Said once an incident."""
        self.note_better()
        self.write()

    def resolve(self) -> None:
        """Close the incident: health has lasted."""
        self.note_resolved()
        self.write()

    def refused(self) -> None:
        """Count a caller who was turned away or sent to wait."""
        with self._lock:
            self.book.refused += 1

    def summary(self) -> str | None:
        """Return half a sentence about what is still open, or None."""
        with self._lock:
            return self.book.summary(clock())

    def forget_timer(self) -> None:
        """Stop reminding until the next fault: the service ends, or what goes on now was told in other words."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    # The same in two steps, for whoever holds a lock: note under it, write after it.

    def note_fault(self, fault: Fault, exc: BaseException | None = None, *, hold_s: float = 0.0) -> None:
        """Count one fault as `fault` does; the line is written by the next `write`.

        The one that opens the incident is held for up to `hold_s` seconds, until `complete` says more.
        """
        with self._lock:
            opens, line = not self.book.is_open, self.book.fault(fault, clock())
            self._put(line, exc)
            if opens and line is not None and hold_s:
                self._outbox.hold(line)
                self._held_until = clock() + hold_s
            self.book.worse()
            self._schedule()

    def note_better(self) -> None:
        """Note it as `better` does; the line is written by the next `write`."""
        with self._lock:
            self._put(self.book.better(clock()))

    def note_resolved(self) -> None:
        """Close it as `resolve` does; the line is written by the next `write`."""
        with self._lock:
            self._put(self.book.resolve(clock()))
        self.forget_timer()

    def note(self, line: Line) -> None:
        """Queue a line about the subject, in its place among the others, for the next `write`."""
        self._put(line)

    @property
    def is_held(self) -> bool:
        """Whether the line that opened the incident waits for more to be said."""
        return self._held_until is not None

    def complete(self, more: str) -> None:
        """Add `more` to the line that is held, if one is, and let it go with the next `write`."""
        with self._lock:
            self._held_until = None
            self._outbox.complete(more)

    def write(self) -> None:
        """Write what was noted. Call it without a lock: a log handler may block."""
        until = self._held_until
        if until is not None and clock() >= until:
            # Whoever was to say more does not get its turn: an event loop that stands still.
            self.complete("")
        self._outbox.write()

    def _put(self, line: Line | None, exc: BaseException | None = None) -> None:
        self._outbox.put(line, exc)

    def _schedule(self) -> None:
        remind_at = self.book.remind_at
        if self._timer is not None or remind_at is None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._put(self.book.remind(clock()))
            return
        self._timer = loop.call_at(remind_at, self._remind)

    def _remind(self) -> None:
        with self._lock:
            self._timer = None
            self._put(self.book.remind(clock()))
            self._schedule()
        self.write()


def clock() -> float:
    """Return the time on the running event loop's clock, or the monotonic clock where no loop runs.

    An event loop's clock is the monotonic clock, but for a loop in virtual time.
    """
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()
