"""Writing to a place that may be slow, full or gone, from a thread of its own, so that nobody else ever waits for it."""

from __future__ import annotations

import errno
import os
import random
import select
import stat
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

from outlast.core.backoff import INITIAL, Backoff, Jitter
from outlast.guard.backlog import Backlog, GapBook, Patience

if TYPE_CHECKING:
    from outlast.guard.backlog import Gap

BATCH_BYTES: Final = 256 * 1024
"""Written at a time to what is no pipe."""
_TICK_S: Final = 1.0
_RETRY: Final = Backoff(base_s=0.1, cap_s=1.5, jitter=Jitter.NONE)
"""A full disk is looked at again after 0.1 s, growing to 1.5 s: a look costs one failed write."""


_TOLD_AGAIN_S: Final = 60.0
"""A disk that fills up again and again is told once in this time; what is dropped is told by the sums."""

_KEPT: Final = "the program goes on, up to {:.1f} MiB of its output wait, what is beyond is counted"


class Place(Protocol):
    """Where output goes. Used from one thread; its methods may block."""

    batch_bytes: int
    """How much it wants at a time."""

    def write(self, data: bytes) -> int:
        """Write at least one byte and give how many; raises OSError. What was not written comes again."""
        ...

    def tick(self) -> None:
        """Do what time asks for; called about once a second."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class Inherited:
    """The guard's own stdout or stderr. The descriptor is shared with others: its flags stay as they are.

    A pipe is written once it has room, and at most `PIPE_BUF` bytes at a time: such a write is whole or does not happen, so
    a reader that stops never leaves an unknown part unread, and lines of two writers do not tear one another.
    """

    def __init__(self, fd: int) -> None:
        """Write to `fd`."""
        self._fd = fd
        self._is_pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
        self.batch_bytes = select.PIPE_BUF if self._is_pipe else BATCH_BYTES
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def write(self, data: bytes) -> int:
        """Write, waiting for room also where somebody else has made the descriptor non-blocking."""
        if self._is_pipe:
            self._poll.poll()
        while True:
            try:
                return os.write(self._fd, data)
            except BlockingIOError:
                self._poll.poll()

    def tick(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Leave it open: it is not ours."""


class Sink:
    """A place with its backlog. `offer` never blocks; what has no room is dropped, counted, and told by `notices`. When
    the reader of a pipe has gone away, that is told once, and what still comes is only counted.

    With `marks_gaps` a line stands in the place itself where something is missing.
    """

    def __init__(self, name: str, place: Place, *, bytes_max: int, marks_gaps: bool = False) -> None:
        """Begin to write. `name` is what its lines call it."""
        self.name = name
        self.is_gone = False
        """Whether the reader has gone away for good: everything is dropped from now on."""
        self._place = place
        self._marks_gaps = marks_gaps
        self._backlog = Backlog(bytes_max)
        self._patience = Patience()
        self._book = GapBook()
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._closing = False
        self._trouble: str | None = None
        self._trouble_at = self._trouble_told_at = 0.0
        self._thread = threading.Thread(target=self._run, name=f"outlast guard {name}", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> tuple[int, int]:
        """(lines, bytes) dropped so far."""
        return self._backlog.dropped_lines, self._backlog.dropped_bytes

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait to be written."""
        return self._backlog.size

    def offer(self, data: bytes, *, notice: bool = False) -> None:
        """Hand over output; a notice of the guard is taken whatever the room."""
        if not data:
            return
        with self._changed:
            if notice and not self.is_gone:
                self._backlog.insert(data)
            else:
                self._note(self._backlog.put(data, time.monotonic()))
            self._changed.notify()

    def holds(self, now: float) -> bool:
        """Whether to read no more for the moment; see `Patience`."""
        return not self.is_gone and self._patience.holds(self._backlog.size, self._backlog.bytes_max, now)

    def notices(self, now: float, *, last: bool = False) -> list[str]:
        """Give the lines to be written about this place; with `last`, all that has not been told."""
        with self._changed:
            lines, self._lines = self._lines, []
            told = self._book.tell(now, last=last)
        return [*lines, f"{self.name}: {told}"] if told else lines

    def begin_close(self) -> None:
        """Let the thread end once it has written what waits."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def close(self, until: float) -> None:
        """Write what waits, as far as that is possible before `until` (monotonic seconds); the rest is dropped and counted."""
        self.begin_close()
        self._thread.join(max(0.0, until - time.monotonic()))
        with self._changed:
            gap = self._backlog.end(time.monotonic())
            if gap and not self.is_gone:
                self._book.add(gap)

    def _note(self, gap: Gap | None) -> None:
        if gap is None or self.is_gone:
            return
        self._book.add(gap)
        if self._marks_gaps:
            self._backlog.insert(f"outlast guard: {gap.tell()}\n".encode())

    def _run(self) -> None:
        state = INITIAL
        rng = random.Random()
        while True:
            with self._changed:
                if not self._backlog.size and not self._closing:
                    self._changed.wait(_TICK_S)
                data = self._backlog.peek(self._place.batch_bytes)
                if not data and self._closing:
                    break
            try:
                written = self._place.write(data) if data else self._idle()
            except BrokenPipeError:
                self._lose()
                break
            except OSError as error:
                self._note_trouble(error)
                state, wait_s = _RETRY.next(state, time.monotonic(), rng)
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, wait_s)
                if self._closing:
                    time.sleep(_RETRY.base_s)
                continue
            if written:
                state = INITIAL
                self._note_written(written)
        self._place.close()

    def _idle(self) -> int:
        self._place.tick()
        return 0

    def _note_written(self, size: int) -> None:
        now = time.monotonic()
        with self._changed:
            # After `close` has given up, what was written late has been counted as dropped already.
            if size <= self._backlog.size:
                self._note(self._backlog.done(size, now))
            if self._trouble is not None:
                if self._trouble_told_at == self._trouble_at:
                    self._lines.append(f"{self.name} can be written again after {now - self._trouble_at:.1f} s")
                self._trouble = None

    def _note_trouble(self, error: OSError) -> None:
        now = time.monotonic()
        with self._changed:
            if self._trouble is not None:
                return
            self._trouble = error.strerror or str(error)
            told_before = self._trouble_told_at and now - self._trouble_told_at < _TOLD_AGAIN_S
            self._trouble_at = now
            if not told_before:
                self._trouble_told_at = now
                room = self._backlog.bytes_max
                self._lines.append(f"{self.name} cannot be written: {self._trouble}; {_KEPT.format(room / 2**20)}")

    def _lose(self) -> None:
        with self._changed:
            self.is_gone = True
            self._lines.append(f"{self.name}: its reader has gone away ({os.strerror(errno.EPIPE)})")
            self._backlog.end(time.monotonic())
            self._backlog.bytes_max = 0
