"""One output of the program on its way: read, folded, and handed to the places it goes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from outlast.logs._writer import LogWriter

LINE_BYTES_MAX: Final = 1 << 20
"""A longer line is broken in the log file, where the lines of two streams meet and each has to be whole."""


class Folder(Protocol):
    """Folds one stream. Times are seconds of one monotonic clock; what is returned is to be written at once."""

    def feed(self, data: bytes, now: float) -> bytes:
        """Take what was read; return what is to be shown."""
        ...

    def due(self, now: float) -> bytes:
        """Return what time makes due: reminders, ends of storms, a record that waited for its continuation."""
        ...

    def next_due_at(self) -> float | None:
        """Return when `due` is to be called; None while there is nothing to wait for."""
        ...

    def flush(self, now: float) -> bytes:
        """Return the record that waits for its continuation, which will not come. An unfinished line stays held."""
        ...

    def end(self, now: float) -> bytes:
        """Return everything that is still held."""
        ...


class Unfolded:
    """A `Folder` that folds nothing."""

    def feed(self, data: bytes, now: float) -> bytes:
        """Return it as it is."""
        del now
        return data

    def due(self, now: float) -> bytes:
        """Return nothing."""
        del now
        return b""

    def next_due_at(self) -> float | None:
        """Return None: nothing is ever due."""
        return None

    def flush(self, now: float) -> bytes:
        """Return nothing: no record waits."""
        del now
        return b""

    def end(self, now: float) -> bytes:
        """Return nothing: no record is held."""
        del now
        return b""


@dataclass(slots=True)
class WholeLines:
    """Lets whole lines through and holds back the rest; a line beyond `LINE_BYTES_MAX` is broken into several."""

    _rest: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; return the lines that are whole by now."""
        cut = data.rfind(b"\n") + 1
        whole = b""
        if cut:
            whole = bytes(self._rest) + data[:cut] if self._rest else data[:cut]
            self._rest.clear()
        self._rest += data[cut:]
        return whole + self.end() if len(self._rest) >= LINE_BYTES_MAX else whole

    def end(self) -> bytes:
        """Return the rest as a line."""
        rest = bytes(self._rest)
        self._rest.clear()
        return rest + b"\n" if rest else b""


@dataclass(slots=True)
class Stream:
    """stdout or stderr of the program, over all its runs: a storm goes on where a restart interrupts it."""

    name: str
    folder: Folder
    passed_to: LogWriter | None
    """The guard's own stdout or stderr; None when the output goes to the log file alone."""
    log: LogWriter | None = None
    lines_read: int = 0
    bytes_read: int = 0
    lines_written: int = 0
    _whole: WholeLines = field(default_factory=WholeLines)
    _inside: bool = False

    def feed(self, data: bytes, now: float) -> None:
        """Take what was read."""
        self.lines_read += data.count(b"\n")
        self.bytes_read += len(data)
        self._inside = not data.endswith(b"\n")
        self._write(self.folder.feed(data, now))

    def due(self, now: float) -> None:
        """Write what time makes due."""
        at = self.folder.next_due_at()
        if at is not None and now >= at:
            self._write(self.folder.due(now))

    def cut(self, now: float) -> None:
        """End an unfinished line: the run that wrote it is over, and another one follows."""
        if self._inside:
            self._inside = False
            self._write(self.folder.feed(b"\n", now))
            self.flush(now)

    def flush(self, now: float) -> None:
        """Write the record that waits for its continuation: a run is over, and what comes next is not part of it."""
        self._write(self.folder.flush(now))

    def end(self, now: float) -> None:
        """Write everything that is still held."""
        self._write(self.folder.end(now))
        if self.log is not None:
            self.log.offer(self._whole.end())

    def _write(self, data: bytes) -> None:
        if not data:
            return
        self.lines_written += data.count(b"\n")
        if self.passed_to is not None:
            self.passed_to.offer(data)
        if self.log is not None:
            self.log.offer(self._whole.feed(data))

    def holds(self, now: float) -> bool:
        """Return whether to read no more for the moment, so that a quick place catches up."""
        return any(writer.holds(now) for writer in (self.passed_to, self.log) if writer is not None)
