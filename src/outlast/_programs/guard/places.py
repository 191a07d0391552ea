"""The places that the program's output goes to, and the lines of the guard's own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from outlast._programs.guard.streams import Stream, Unfolded
from outlast.logs._places import Descriptor
from outlast.logs._writer import LogWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from outlast._programs.guard.logfile import LogFile
    from outlast._programs.guard.options import Options
    from outlast._programs.guard.streams import Folder
    from outlast.logs._gaps import Gap
    from outlast.logs._places import LogPlace

STDOUT: Final = 1
STDERR: Final = 2


class Places:
    """The two streams and their writers: our stdout, our stderr, and the log file that takes both."""

    def __init__(self, options: Options, log: LogFile | None) -> None:
        """Begin to write; each place has its thread."""
        self._flush_s = options.flush_s
        bytes_max = options.backlog_bytes_max
        self.stdout = _writer("standard output", Descriptor(STDOUT), bytes_max)
        self.stderr = _writer("standard error", Descriptor(STDERR), bytes_max)
        self.log = None if log is None else _writer(str(log.path), log, bytes_max, lambda gap: f"outlast guard: {gap.tell()}")
        passed: Sequence[LogWriter | None] = (None, None) if options.log_only else (self.stdout, self.stderr)
        self.streams = (
            Stream("stdout", self._folder(fold=options.fold), passed[0], self.log),
            Stream("stderr", self._folder(fold=options.fold), passed[1], self.log),
        )

    def _folder(self, *, fold: bool) -> Folder:
        if not fold:
            return Unfolded()
        # Loaded when it is used: its rules take a while to compile.
        from outlast.logs.text._safely import text_folding  # noqa: PLC0415

        return text_folding(self.say)

    @property
    def writers(self) -> list[LogWriter]:
        """The writers of all places, stderr last."""
        return [self.stdout, *([self.log] if self.log is not None else []), self.stderr]

    def next_due_at(self) -> float | None:
        """Return when `due` is to be called; None while there is nothing to wait for."""
        times = [stream.folder.next_due_at() for stream in self.streams]
        return min((at for at in times if at is not None), default=None)

    def say(self, text: str) -> None:
        """Write a line of the guard, on stderr and into the log file."""
        line = f"outlast guard: {' '.join(text.split())}\n".encode(errors="replace")
        self.stderr.offer(line, notice=True)
        if self.log is not None:
            self.log.offer(line, notice=True)

    def due(self, now: float) -> None:
        """Write what time makes due."""
        for stream in self.streams:
            stream.due(now)
        for writer in self.writers:
            for text in writer.notices(now):
                self.say(text)

    def close(self) -> None:
        """Write what is held and what waits, for at most `flush_s`, and report what the places did not take."""
        now = time.monotonic()
        for stream in self.streams:
            stream.end(now)
        until = now + self._flush_s
        writers = self.writers
        for writer in writers[:-1]:
            writer.begin_close()
        for writer in writers[:-1]:
            writer.close(until)
        for writer in writers:
            for text in writer.notices(time.monotonic(), last=True):
                self.stderr.offer(f"outlast guard: {text}\n".encode(errors="replace"), notice=True)
        self.stderr.close(max(until, time.monotonic() + 1.0))


def _writer(name: str, place: LogPlace, bytes_max: int, tell: Callable[[Gap], str] | None = None) -> LogWriter:
    """Return a writer for a stream of bytes. Its gaps are reported on stderr, and with `tell` in the place as well."""
    writer = LogWriter(
        place=place, name=name, lines_max=None, bytes_max=bytes_max, tell=tell, told_elsewhere=True, reader_returns=False
    )
    writer.start()
    return writer
