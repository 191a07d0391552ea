"""Lines on their way to a logger: collected under a lock, written after it, in order, by one thread at a time."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from outlast._core.incidents import Line
from outlast._core.reaction import WARNING
from outlast.logs._lines import write

if TYPE_CHECKING:
    import logging

LINES_MAX: Final = 1_000
"""Lines that may wait for a handler that blocks: many more than all the distinct faults of an incident and its reminders."""


class Outbox:
    """Lines for a logger whose handler may block for minutes: a full pipe, a slow disk. Only the thread that writes waits for it.

    `put` is cheap and may be called under any lock. `write` is called after every lock is released; if another thread is at
    it, that one writes what was put here as well, so that lines keep their order.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        # Appending and taking are atomic; `_writing` is held by the one thread that hands lines to the logger.
        self._waiting: deque[tuple[Line, BaseException | None]] = deque()
        self._writing = threading.Lock()
        self._dropped = 0
        self._held: Line | None = None
        """The line that waits for more to be said, and all behind it with it."""
        self._completed: tuple[Line, str] | None = None

    def hold(self, line: Line) -> None:
        """Keep this line, which was just put in, and those that come after it, until `complete`."""
        self._held = line

    def complete(self, more: str) -> None:
        """Add `more` to the line that was held, and let it go: the next `write` writes it."""
        if self._held is not None:
            # In this order: a thread that sees that nothing is held any more finds what belongs to the line.
            self._completed, self._held = (self._held, more), None

    def put(self, line: Line | None, exc: BaseException | None = None) -> None:
        """Queue `line` for the next `write`, with the traceback of `exc` where it asks for one; None is no line."""
        if line is None:
            return
        # Threads that meet here put in a line or two more than that.
        if len(self._waiting) >= LINES_MAX:
            self._dropped += 1
            return
        self._waiting.append((line, exc))

    def write(self) -> None:
        """Write what waits, unless another thread is writing: then it does so."""
        # Looked at again after the release: what was put in between would otherwise wait for the next call.
        while self._waiting and self._held is None and self._writing.acquire(blocking=False):
            try:
                self._write_all()
            finally:
                self._writing.release()

    def _write_all(self) -> None:
        while self._waiting and self._held is None:
            line, exc = self._waiting.popleft()
            if self._completed is not None and self._completed[0] is line:
                more, self._completed = self._completed[1], None
                line = replace(line, text=f"{line.text}; {more}") if more else line
            write(self._logger, line, exc)
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            write(self._logger, Line(WARNING, f"{dropped} lines were dropped: more than {LINES_MAX} waited for a log handler"))
