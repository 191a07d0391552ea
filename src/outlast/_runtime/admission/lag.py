"""The lag of the event loop: that it is late again and again says that it has taken in more than the processor can carry."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

BEAT_S: Final = 0.1
BEATS: Final = 5
"""The beats whose median it is, half a second of them. Three late ones of five are a state; one or two are an event."""


class LagMeter:
    """Sets a timer each tenth of a second and measures how late the event loop calls it.

    `lag_s` is the median of the last five beats, in seconds; 0 before there are three. A single enormous value therefore
    means nothing, and need not be told from others: a process that was stopped (SIGSTOP, a frozen group), a machine that was
    suspended, one collection of garbage are over when they are measured, and fewer pieces of work at once would not have
    helped. An event loop that is overloaded is late beat after beat, and so is a process whose share of the processor is used up.

    Turns of the loop that take `t` seconds are a lag between 0 and `2 t`: a beat comes due while one turn lasts, and has others
    before it in the next.

    A beat costs some microseconds, and memory is bounded. The methods are for the event loop's thread; `lag_s` is one
    attribute that any thread may read.
    """

    def __init__(self) -> None:
        self.lag_s = 0.0
        self._lags_s = deque([0.0] * BEATS, maxlen=BEATS)
        self._due_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Measure the running event loop from now on, as if it had never been late; again after `stop`, or on another loop."""
        self.stop()
        self._lags_s.extend([0.0] * BEATS)
        self._next(asyncio.get_running_loop())

    def stop(self) -> None:
        """Measure no longer: the lag is 0 until the next `start`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.lag_s = 0.0

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due_at = loop.time() + BEAT_S
        self._timer = loop.call_at(self._due_at, self._beat, loop)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not negative: a loop calls a timer that is due within the resolution of its clock.
        self._lags_s.append(max(0.0, loop.time() - self._due_at))
        self.lag_s = sorted(self._lags_s)[BEATS // 2]
        self._next(loop)
