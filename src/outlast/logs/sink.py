"""A sink that never makes the work wait: behind it, in a thread, is a stream that may be slow, full or unread.

logging.getLogger().addHandler(SinkHandler(sys.stderr))
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import random
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

from outlast.core.backoff import INITIAL, Backoff, Jitter
from outlast.logs.forked import remember

if TYPE_CHECKING:
    from collections.abc import Callable

LOST: Final = "outlast: {lines} log lines ({size} characters) lost in {seconds:.1f} s: {why}"
UNREAD: Final = "the log was not read quickly enough"
AGAIN: Final = Backoff(base_s=0.1, cap_s=5.0, jitter=Jitter.NONE)
"""After an error a file is tried again, first after 0.1 s, then after twice as long, at most 5 s."""
BATCH_CHARS: Final = 65_536


class Stream(Protocol):
    """What a sink writes to: a text file, standard error, a socket's file."""

    def write(self, text: str, /) -> object:
        """Write; may block, may raise OSError."""

    def flush(self) -> object:
        """Hand over what was written; may block, may raise OSError."""


@dataclass(frozen=True, slots=True)
class SinkTotals:
    """Exact counts of lines; `taken == written + dropped + waiting`. What is being written is waiting."""

    taken: int
    written: int
    dropped: int
    waiting: int


class Sink:
    """Takes lines, never blocks, never raises; a daemon thread writes them to `stream`.

    At most `lines_max` lines and `chars_max` characters wait. What comes when there is no room is dropped, newest first, and
    counted; in its place stands one line that tells how many were lost, in which time and why.

    A stream with a file behind it is written to directly, past its buffer, each byte once: while that fails (the disk is full)
    it is tried again with growing pauses. Another stream that raises loses what was being written; it may have arrived in part.

    `close` waits at most `close_s` for what is queued. A sink that nobody closes is closed at exit.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        lines_max: int = 10_000,
        chars_max: int = 16 * 2**20,
        close_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Write to `stream`, which nobody else should write to meanwhile."""
        if lines_max < 1 or chars_max < 1:
            raise ValueError(f"a queue holds at least one line of one character, not {lines_max} lines, {chars_max} characters")
        self._stream = stream
        self._lines_max, self._chars_max, self._close_s, self._clock = lines_max, chars_max, close_s, clock
        self._rng = random.Random()
        self._fd = file_of(stream)
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self._queue: deque[Entry] = deque()
        self._gap_at = 0.0
        self._gap_why = ""
        self._is_closed = False
        self.begin_again()
        remember(self)
        atexit.register(self.close)

    def begin_again(self) -> None:
        """In a child after a fork: what is queued is written by the parent, and there is no thread."""
        # Reentrant: a line may be logged by a destructor that runs while this thread holds the lock.
        self._changed = threading.Condition(threading.RLock())
        self._queue.clear()
        self._queued_chars = self._gap_lines = self._gap_chars = 0
        self._taken = self._written = self._dropped = 0
        self._thread: threading.Thread | None = None

    @property
    def totals(self) -> SinkTotals:
        """Counts at this instant."""
        with self._changed:
            return SinkTotals(self._taken, self._written, self._dropped, self._taken - self._written - self._dropped)

    def put(self, line: str) -> bool:
        """Queue a line, with its line end; False if it was dropped. Never blocks for longer than a lock is held."""
        with self._changed:
            self._taken += 1
            has_room = len(self._queue) < self._lines_max and self._queued_chars + len(line) <= self._chars_max
            if has_room and not self._is_closed:
                if self._gap_lines:
                    self._queue.append(self._notice())
                self._queue.append(Entry(line, 1))
                self._queued_chars += len(line)
            else:
                has_room = False
                self._dropped += 1
                self._lose(1, len(line), UNREAD)
            if self._thread is None and not self._is_closed:
                self._thread = threading.Thread(target=self._run, name="outlast-log-sink", daemon=True)
                self._thread.start()
            if len(self._queue) <= 2:  # Otherwise the thread is not waiting for any.
                self._changed.notify_all()
        return has_room

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until everything queued so far is written or lost, at most `timeout_s` (`close_s` by default); whether it is."""
        with self._changed:
            target = self._taken
            if self._is_closed:
                return self._written + self._dropped >= target
            limit = self._close_s if timeout_s is None else timeout_s
            return self._changed.wait_for(lambda: self._written + self._dropped >= target, limit)

    def close(self) -> None:
        """Write what is queued, for at most `close_s`; what is left then is dropped. May be called again."""
        self.flush()
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        atexit.unregister(self.close)

    def _lose(self, lines: int, size: int, why: str) -> None:
        if not self._gap_lines:
            self._gap_at, self._gap_why = self._clock(), why
        self._gap_lines += lines
        self._gap_chars += size

    def _run(self) -> None:
        with contextlib.suppress(Exception):
            # What somebody wrote before comes first.
            self._stream.flush()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._gap_lines or self._is_closed)
                if not self._queue and (self._is_closed or not self._gap_lines):
                    return
                batch = self._batch()
            lost = self._write(batch) if self._fd is None else self._write_all(self._fd, batch)
            with self._changed:
                own = sum(entry.lines for entry in batch)
                if lost is None:
                    self._written += own
                else:
                    self._dropped += own
                    size = sum(len(entry.text) if entry.lines else entry.lost_chars for entry in batch)
                    self._lose(own + sum(entry.lost for entry in batch), size, lost)
                self._changed.notify_all()

    def _write_all(self, fd: int, batch: list[Entry]) -> str | None:
        """Write to a file, however long it takes, each byte once; why not, if the sink was closed first."""
        left = memoryview("".join([entry.text for entry in batch]).encode(self._encoding, "backslashreplace"))
        state = INITIAL
        while left:
            try:
                left = left[os.write(fd, left) :]
                state = INITIAL
            except OSError as failed:
                state, again_s = AGAIN.next(state, self._clock(), self._rng)
                if self._pause(AGAIN.cap_s if again_s is None else again_s):
                    return f"{type(failed).__name__}: {failed}"
        return None

    def _write(self, batch: list[Entry]) -> str | None:
        """Write to what is no file; why not, if that failed: nobody knows how much of it arrived, so it is not tried again."""
        try:
            self._stream.write("".join([entry.text for entry in batch]))
            self._stream.flush()
        except Exception as failed:  # noqa: BLE001  # whatever the stream raises: the work goes on without its log
            self._pause(AGAIN.base_s)
            return f"{type(failed).__name__}: {failed}"
        return None

    def _pause(self, seconds: float) -> bool:
        """Wait; whether the sink was closed."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_closed, seconds)

    def _batch(self) -> list[Entry]:
        """Take lines off the queue: few enough that a stream that stands still holds little."""
        if not self._queue:
            return [self._notice()]
        taken: list[Entry] = []
        size = 0
        while self._queue and size < BATCH_CHARS:
            taken.append(self._queue.popleft())
            size += len(taken[-1].text)
        self._queued_chars -= sum(len(entry.text) for entry in taken if entry.lines)
        return taken

    def _notice(self) -> Entry:
        """The line about the gap that is over: it stands where the lost lines would have stood."""
        seconds = self._clock() - self._gap_at
        text = LOST.format(lines=self._gap_lines, size=self._gap_chars, seconds=seconds, why=self._gap_why)
        notice = Entry(f"{text}\n", 0, self._gap_lines, self._gap_chars)
        self._gap_lines = self._gap_chars = 0
        return notice


def file_of(stream: Stream) -> int | None:
    """The descriptor of a stream's file, if it has one."""
    try:
        return int(cast("Any", stream).fileno())
    except (AttributeError, OSError, ValueError, TypeError):
        return None


class Entry(NamedTuple):
    """What is queued: a line, or a notice about lines that were lost."""

    text: str
    lines: int
    lost: int = 0
    lost_chars: int = 0


class SinkHandler(logging.Handler):
    """A handler that formats in the thread that logs, and leaves the writing to a `Sink`: it never waits for the stream.

    `options` are those of `Sink`. `close`, which `logging.shutdown` calls at exit, waits at most `close_s`.
    """

    terminator = "\n"

    def __init__(self, stream: Stream, level: int = logging.NOTSET, **options: float) -> None:
        """Write to `stream`."""
        super().__init__(level)
        self.sink = Sink(stream, **cast("dict[str, Any]", options))

    def emit(self, record: logging.LogRecord) -> None:
        """Format and queue; what cannot be formatted is logging's business."""
        try:
            line = self.format(record) + self.terminator
        except Exception:  # noqa: BLE001  # as every handler of logging
            self.handleError(record)
        else:
            self.sink.put(line)

    def flush(self) -> None:
        """Wait for what is queued, at most the sink's `close_s`."""
        self.sink.flush()

    def close(self) -> None:
        """Write what is queued, for at most `close_s`."""
        self.sink.close()
        super().close()
