"""A writer that never makes the work wait: behind it, in a thread, is a place that may be slow, full, unread or gone.

logging.getLogger().addHandler(QueuedHandler(sys.stderr))
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import logging
import os
import random
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from outlast._core.backoff import INITIAL, Backoff, Jitter
from outlast._core.quantities import size_text
from outlast.logs._backlog import RANKS, Backlog
from outlast.logs._folding.forked import remember
from outlast.logs._gaps import GapBook, Patience
from outlast.logs._places import place_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast._core.backoff import BackoffState
    from outlast.logs._gaps import Gap
    from outlast.logs._places import LogPlace, Stream

LOST: Final = "{lines} log lines ({size} bytes{levels}) lost in {seconds:.1f} s: {why}"
UNREAD: Final = "the log was not read quickly enough"
RETRY: Final = Backoff(base_s=0.1, cap_s=1.5, jitter=Jitter.NONE)
"""A full disk is looked at again after 0.1 s, growing to 1.5 s: a look costs one failed write."""
ROOM_S: Final = 1.0
"""The time that the thread waits for room before it checks whether somebody has given up waiting for it."""
BRIEF_S: Final = 0.01
TOLD_AGAIN_S: Final = 60.0
"""A disk that fills up again and again is reported once in this time; what is dropped is reported by the sums."""
NOTICES_MAX: Final = 16
KEPT: Final = "the program goes on, up to {} of its output wait, what is beyond is counted"


@dataclass(frozen=True, slots=True)
class WriterTotals:
    """Exact counts of lines; `taken == written + dropped + waiting`. What is being written is waiting."""

    taken: int
    written: int
    dropped: int
    waiting: int


def lost(gap: Gap) -> str:
    """Return the line that reports a gap in a log."""
    levels = ", ".join(f"{lines} {logging.getLevelName(rank * 10)}" for rank, lines in gap.by_rank)
    return LOST.format(
        lines=gap.lines, size=gap.size, levels=levels and f"; {levels}", seconds=gap.lasted_s, why=gap.why or UNREAD
    )


class LogWriter:
    """Takes lines (`put`) or a stream of bytes (`offer`), never blocks, never raises; a daemon thread writes them to a place.

    At most `lines_max` lines and `bytes_max` bytes wait. What comes when there is no room is dropped, lines of low levels
    before those of higher ones, the newest first, and counted; when half of the room is free again, one line in the place
    says how many were lost, in which time and why.

    A stream with a file behind it is written to directly, past its buffer, each byte once: while that fails (the disk is full)
    it is tried again with growing pauses. Another stream that raises loses what was being written; it may have arrived in part.

    `close` waits at most `close_s` for what is queued. A writer that nobody closes is closed at exit.
    """

    def __init__(
        self,
        stream: Stream | None = None,
        *,
        place: LogPlace | None = None,
        name: str = "the log",
        lines_max: int | None = 10_000,
        bytes_max: int = 16 * 2**20,
        close_s: float = 2.0,
        tell: Callable[[Gap], str] | None = lambda gap: f"outlast: {lost(gap)}",
        told_elsewhere: bool = False,
        reader_returns: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Write to `stream`, which nobody else should write to meanwhile, or to `place`.

        `tell` makes the line of a gap in the place; None: there is none. `told_elsewhere` says whether somebody asks for
        `notices`. `reader_returns` says whether a broken pipe may get a new reader; otherwise it is the end.
        """
        if bytes_max < 1 or (lines_max is not None and lines_max < 1):
            raise ValueError(f"a queue holds at least one line of one byte, not {lines_max} lines, {bytes_max} bytes")
        self.name = name
        self.is_gone = False
        """Whether the reader has gone away for good: everything is dropped from now on."""
        if place is None:
            if stream is None:
                raise TypeError("a writer writes to a stream or to a place")
            place, self._encoding = place_of(stream)
        else:
            self._encoding = "utf-8"
        self._place = place
        self._bytes_max, self._lines_max, self.close_s, self._clock = bytes_max, lines_max, close_s, clock
        self._tell, self._told_elsewhere, self._reader_returns = tell, told_elsewhere, reader_returns
        self._is_closing = self._has_given_up = False
        self.begin_again()
        remember(self)
        atexit.register(self.close)

    def begin_again(self) -> None:
        """Begin again in a child after a fork: what is queued is written by the parent, and there is no thread."""
        # It protects everything below. Reentrant: a line may be logged by a destructor that runs while this thread holds it.
        self._changed = threading.Condition(threading.RLock())
        self._backlog = Backlog(0 if self._has_given_up or self.is_gone else self._bytes_max, self._lines_max)
        self._patience = Patience()
        self._book = GapBook()
        self._lines = deque[str](maxlen=NOTICES_MAX)
        self._is_idle = False
        self._in_flight = 0
        """Bytes that are being written, of which nobody knows yet whether they arrive."""
        self._trouble: str | None = None
        self._trouble_at = self._trouble_told_at = 0.0
        self._thread: threading.Thread | None = None

    # May be called from every thread

    @property
    def totals(self) -> WriterTotals:
        """Counts of the lines that `put` was given, at this instant."""
        with self._changed:
            taken, written, dropped = self._backlog.taken_lines, self._backlog.written_lines, self._backlog.dropped_lines
        return WriterTotals(taken, written, dropped, taken - written - dropped)

    @property
    def dropped(self) -> tuple[int, int]:
        """(lines, bytes) dropped so far."""
        return self._backlog.dropped_lines, self._backlog.dropped_bytes

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait to be written."""
        return self._backlog.size

    def put(self, line: str, level: int = logging.NOTSET) -> bool:
        """Queue a line, with its line end; return False if it was dropped. Waits for nothing but a lock that is held briefly.

        `level` is one of logging's: where there is no room, the line takes that of lower levels.
        """
        data = line.encode(self._encoding, "backslashreplace")
        with self._changed:
            now = self._clock()
            if self._backlog.is_dropping:
                self._note(self._backlog.settle(now))
            rank = min(max(level // 10, 0), RANKS - 1)
            kept = self._backlog.put_line(data, rank, now, self._trouble or "")
            self._awake()
        return kept

    def offer(self, data: bytes, *, notice: bool = False) -> None:
        """Hand over a part of a stream of bytes. With `notice` it is a line of our own, which is taken whatever the room."""
        if not data:
            return
        with self._changed:
            if notice and not self.is_gone:
                self._backlog.insert(data)
            else:
                self._note(self._backlog.put(data, self._clock()))
            self._awake()

    def start(self) -> None:
        """Start the thread, which otherwise begins with the first line: a place that ticks does so from now on."""
        with self._changed:
            self._awake()

    def holds(self, now: float) -> bool:
        """Return whether to read no more for the moment; see `Patience`."""
        return not self.is_gone and self._patience.holds(self._backlog.size, self._backlog.bytes_max, now)

    def notices(self, now: float, *, last: bool = False) -> list[str]:
        """Return the lines to be written elsewhere about this place; with `last`, all that has not been reported."""
        with self._changed:
            lines = [*self._lines]
            self._lines.clear()
            told = self._book.tell(now, last=last)
        return [*lines, f"{self.name}: {told}"] if told else lines

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until every line put so far is written or lost, and return whether it is. At most `timeout_s`, or `close_s`."""
        with self._changed:
            target = self._backlog.taken_lines
            limit = 0.0 if self._has_given_up else self.close_s if timeout_s is None else timeout_s
            return self._changed.wait_for(lambda: self._settled(target), limit)

    def _settled(self, lines: int) -> bool:
        known = self._backlog.written_lines + self._backlog.dropped_lines >= lines
        return known and not (self._has_given_up and self._in_flight)

    def begin_close(self) -> None:
        """Let the thread end once it has written what waits."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()

    def close(self, until: float | None = None) -> None:
        """Write what waits, for `close_s` or until `until` (monotonic seconds); the rest is dropped. May be called again."""
        atexit.unregister(self.close)
        self.begin_close()
        thread = self._thread
        if thread is not None and not self._has_given_up and thread is not threading.current_thread():
            thread.join(max(0.0, self.close_s if until is None else until - time.monotonic()))
        with self._changed:
            if not self._has_given_up:
                self._give_up()

    def _give_up(self) -> None:
        """Drop what waits and whatever comes."""
        self._has_given_up = True
        gap = self._backlog.end(self._clock())
        if gap is not None and not self.is_gone:
            self._book.add(gap)
        self._backlog.bytes_max = 0
        self._changed.notify_all()

    def _awake(self) -> None:
        """Start the thread, or wake it. Called with the lock."""
        if self._thread is None and not self._is_closing:
            thread = threading.Thread(target=self._run, name=f"outlast writes {self.name}", daemon=True)
            # When no thread can be had, what is queued waits for the next line to try again.
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread
        if self._is_idle:
            self._changed.notify_all()

    def _note(self, gap: Gap | None) -> None:
        """Report a gap that has ended. Called with the lock."""
        if gap is None or self.is_gone:
            return
        self._book.add(gap)
        if self._tell is not None:
            line = f"{self._tell(gap)}\n".encode(self._encoding, "backslashreplace")
            # Where nothing else tells it, the gap must not be lost with its line.
            self._backlog.insert(line, None if self._told_elsewhere else gap)

    # In the thread

    def _run(self) -> None:
        self._place.begin()
        state, rng = INITIAL, random.Random()
        while self._wait_for_work():
            if self._backlog.size and not self._place.has_room(ROOM_S):
                continue
            with self._changed:
                if self._has_given_up:
                    break
                data = self._backlog.peek(self._place.batch_bytes)
                self._in_flight = len(data)
            try:
                written = self._place.write(data) if data else self._tick()
            except Exception as error:  # noqa: BLE001  # whatever a stream raises: the work goes on without its log
                if isinstance(error, BrokenPipeError) and not self._reader_returns:
                    self._lose_reader()
                    break
                state = self._failed(error, state, rng)
                continue
            if written:
                state = INITIAL
            elif data:
                # Somebody else has made it non-blocking and taken the room: ask again, but do not spin.
                time.sleep(BRIEF_S)
            self._wrote(written)
        self._place.close()

    def _wait_for_work(self) -> bool:
        """Wait until there is something to write, or time for a tick; return False when it is all over."""
        with self._changed:
            self._is_idle = True
            self._changed.wait_for(lambda: self._has_work() or self._is_closing, self._place.tick_s)
            self._is_idle = False
            self._note(self._backlog.settle(self._clock()) if self._backlog.is_dropping else None)
            return not self._has_given_up and (bool(self._backlog.size) or not self._is_closing)

    def _has_work(self) -> bool:
        return bool(self._backlog.size) or self._backlog.is_over

    def _tick(self) -> int:
        self._place.tick()
        return 0

    def _wrote(self, size: int) -> None:
        with self._changed:
            self._in_flight = 0
            # After `close` has given up, what was written late has been counted as dropped already.
            if size and not self._has_given_up:
                now = self._clock()
                self._note(self._backlog.done(size, now))
                self._note_recovery(now)
            self._changed.notify_all()

    def _failed(self, error: Exception, state: BackoffState, rng: random.Random) -> BackoffState:
        """Note what the place raised, and wait before it is asked again."""
        now = self._clock()
        with self._changed:
            self._in_flight = 0
            why = f"{type(error).__name__}: {error}"
            if self._place.resumes:
                self._note_trouble(error, why, now)
            elif not self._has_given_up:
                self._backlog.lose(now, why)
            state, wait_s = RETRY.next_always(state, now, rng)
            self._changed.notify_all()
            # Somebody who waits for the end is served in short steps.
            if not self._changed.wait_for(lambda: self._is_closing, wait_s) or self._has_given_up:
                return state
            self._changed.wait_for(lambda: self._has_given_up, RETRY.base_s)
        return state

    def _note_trouble(self, error: Exception, why: str, now: float) -> None:
        if self._trouble is not None:
            return
        self._trouble = why
        told_before = self._trouble_told_at and now - self._trouble_told_at < TOLD_AGAIN_S
        self._trouble_at = now
        if not told_before:
            self._trouble_told_at = now
            said = getattr(error, "strerror", None) or str(error)
            self._lines.append(f"{self.name} cannot be written: {said}; {KEPT.format(size_text(self._bytes_max))}")

    def _note_recovery(self, now: float) -> None:
        if self._trouble is not None:
            if self._trouble_told_at == self._trouble_at:
                self._lines.append(f"{self.name} can be written again after {now - self._trouble_at:.1f} s")
            self._trouble = None

    def _lose_reader(self) -> None:
        with self._changed:
            self.is_gone = True
            self._in_flight = 0
            self._lines.append(f"{self.name}: its reader has gone away ({os.strerror(errno.EPIPE)})")
            self._backlog.end(self._clock())
            self._backlog.bytes_max = 0
            self._changed.notify_all()


class QueuedHandler(logging.Handler):
    """A handler that formats in the thread that logs, and leaves the writing to a `LogWriter`: it never waits for the stream.

    `options` are those of `LogWriter`. Where there is no room, records of low levels are dropped before those of higher ones;
    what was lost is told by a WARNING in the handler's own format. `close`, which `logging.shutdown` calls at exit, waits at most
    `close_s`.
    """

    terminator = "\n"

    def __init__(self, stream: Stream, level: int = logging.NOTSET, **options: float) -> None:
        super().__init__(level)
        self.writer = LogWriter(stream, tell=self.tell, **cast("dict[str, Any]", options))

    def emit(self, record: logging.LogRecord) -> None:
        """Format and queue; what cannot be formatted is logging's business."""
        try:
            line = self.format(record) + self.terminator
        except Exception:  # noqa: BLE001  # as every handler of logging
            self.handleError(record)
        else:
            self.writer.put(line, record.levelno or logging.NOTSET)

    def tell(self, gap: Gap) -> str:
        """Return the line of a gap, in the handler's format if it has one, and if that can be used."""
        if self.formatter is None:
            return f"outlast: {lost(gap)}"
        record = logging.LogRecord("outlast", logging.WARNING, __file__, 0, "%s", (lost(gap),), None, "tell")
        levels = {logging.getLevelName(rank * 10): lines for rank, lines in gap.by_rank}
        record.__dict__["outlast"] = {"lost_lines": gap.lines, "lost_bytes": gap.size, "lost_levels": levels}
        try:
            return self.format(record)
        except Exception:  # noqa: BLE001  # a formatter of the user's costs no count
            return f"outlast: {lost(gap)}"

    def flush(self) -> None:
        """Wait for what is queued, at most the writer's `close_s`."""
        self.writer.flush()

    def close(self) -> None:
        """Write what is queued, for at most `close_s`."""
        self.writer.close()
        super().close()
