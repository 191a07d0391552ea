"""Carry bytes from a source through a fold to an output: clocks, timers, signals, and what happens when something fails."""

from __future__ import annotations

import contextlib
import select
import signal
import time
from typing import TYPE_CHECKING, Final

from outlast._runtime.process.signal_pipe import SignalPipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast._programs.fold.output import Output
    from outlast._programs.fold.source import Source
    from outlast._programs.fold.spool import FoldSpool
    from outlast.logs.text._safely import Safely

FOLLOW_S: Final = 0.2
"""A followed file is looked at this often."""

SPOOL_FLUSH_S: Final = 1.0
"""Folded records are readable in the spool after this long."""

GRACE_S: Final = 1.0
"""Reading goes on this long after a signal, so that the last words of a program that got the same signal come through."""

GONE: Final = select.POLLERR | select.POLLHUP | select.POLLNVAL
"""The events by which `poll` reports an output that nobody reads any more."""

BROKEN_PIPE: Final = 128 + signal.SIGPIPE
IO_ERROR: Final = 74
"""EX_IOERR of sysexits.h."""


class StoppedTwice(BaseException):
    """A second signal: end now."""


class Pump:
    """Runs until the source ends, a signal comes, or nobody reads the output.

    `run` returns the exit code: 0 at the end of input, 128 + n after signal n, 141 when nobody reads the output, 74 when the
    input could not be read to its end or some of the output not be written. If the fold itself fails, one line says so, and
    the rest passes unfolded.
    """

    def __init__(
        self, source: Source, fold: Safely, output: Output, say: Callable[[str], None], spool: FoldSpool | None = None
    ) -> None:
        self._source = source
        self._fold = fold
        self._output = output
        self._say = say
        self._spool = spool
        self._signal = 0
        self._stop_at: float | None = None
        self._unread = False
        self._flush_at = 0.0

    def run(self, out_fd: int) -> int:
        """Carry everything, and return the exit code. `out_fd` is watched for a reader that went away."""
        try:
            with contextlib.closing(SignalPipe()) as signals:
                signals.install(dict.fromkeys((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), self._stop))
                self._carry(out_fd, signals)
                self._finish()
        except BrokenPipeError:
            return BROKEN_PIPE
        except StoppedTwice:
            return 128 + self._signal
        finally:
            if self._spool is not None:
                self._spool.close()
        if self._signal:
            return 128 + self._signal
        return IO_ERROR if self._output.lost_bytes or self._unread else 0

    def _carry(self, out_fd: int, signals: SignalPipe) -> None:
        poll = select.poll()
        poll.register(signals.fd, select.POLLIN)
        poll.register(out_fd, 0)
        if self._source.waits_for is not None:
            poll.register(self._source.waits_for, select.POLLIN)
        quiet = False
        while True:
            now = time.monotonic()
            ready = dict(poll.poll(self._wait_ms(now, quiet=quiet)))
            now = time.monotonic()
            if ready.get(out_fd, 0) & GONE:
                raise BrokenPipeError
            if self._signal and self._stop_at is None:
                self._stop_at = now + GRACE_S
            if signals.fd in ready:
                signals.read()
            data = b""
            readable = self._source.waits_for is None or self._source.waits_for in ready
            if readable:
                try:
                    data = self._source.read()
                except OSError as error:
                    self._say(f"reading failed: {error.strerror}")
                    self._unread = True
                if not data and (self._source.ends or self._unread):
                    return
            quiet = not data
            self._take(data, now)
            if self._stop_at is not None and (now >= self._stop_at or (quiet and not self._source.ends)):
                return

    def _wait_ms(self, now: float, *, quiet: bool) -> int:
        """Return how long to wait for the next bytes at most, in milliseconds; -1 means without end."""
        waits: list[float] = []
        if self._source.waits_for is None:
            waits.append(FOLLOW_S if quiet else 0.0)
        due_at = self._fold.next_due_at()
        if due_at is not None:
            waits.append(due_at - now)
        if self._stop_at is not None:
            waits.append(self._stop_at - now)
        if self._spool is not None:
            waits.append(SPOOL_FLUSH_S)
        return -1 if not waits else max(0, int(min(waits) * 1000) + (min(waits) > 0))

    def _take(self, data: bytes, now: float) -> None:
        out = self._fold.feed(data, now)
        due_at = self._fold.next_due_at()
        if due_at is not None and due_at <= now:
            out += self._fold.due(now)
        self._output.write(out)
        if self._spool is not None and now >= self._flush_at:
            self._spool.flush(now)
            self._flush_at = now + SPOOL_FLUSH_S

    def _finish(self) -> None:
        self._output.write(self._fold.end(time.monotonic()))

    def _stop(self, number: int, frame: object) -> None:
        del frame
        if self._signal:
            raise StoppedTwice
        self._signal = number
