"""The places that a `LogWriter` writes to: a descriptor, or a text stream that has none."""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import stat
from typing import Any, Final, Protocol, cast

BATCH_BYTES: Final = 256 * 1024
"""Written at a time to what is no pipe."""
TEXT_BYTES: Final = 64 * 1024
"""Written at a time to a text stream, which may lose it all."""


class LogPlace(Protocol):
    """A place that lines are written to. It is used from one thread; its methods may block."""

    batch_bytes: int
    """The bytes to be written at a time."""
    resumes: bool
    """Whether what `write` refused can be written again: it has kept nothing of it, or said how much."""
    tick_s: float | None
    """The interval at which `tick` is called while nothing is written; None: never."""

    def begin(self) -> None:
        """Get ready; called once, before everything else. Raises nothing."""
        ...

    def has_room(self, timeout_s: float) -> bool:
        """Wait until it can take something, at most `timeout_s`; return whether it can."""
        ...

    def write(self, data: bytes) -> int:
        """Write some of `data` and return how many bytes; raises `OSError`. The rest comes again."""
        ...

    def tick(self) -> None:
        """Do what time asks for."""
        ...

    def close(self) -> None:
        """Release what `begin` or `__init__` has opened."""
        ...


class Stream(Protocol):
    """A text file, standard error, a socket's file."""

    def write(self, text: str, /) -> object:
        """Write; may block, may raise OSError."""

    def flush(self) -> object:
        """Hand over what was written; may block, may raise OSError."""


class Descriptor:
    """An open descriptor, standard error for one. It is shared with others: its flags stay as they are, and it stays open.

    A pipe is written once it has room, and at most `PIPE_BUF` bytes at a time: such a write is whole or does not happen, so
    a reader that stops never leaves an unknown part unread, and lines of two writers do not tear one another.
    """

    resumes = True
    tick_s: float | None = None

    def __init__(self, fd: int, stream: Stream | None = None) -> None:
        """Write to `fd`, past the buffer of `stream`, of which it is the file."""
        self._fd = fd
        self._stream = stream
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self.batch_bytes = select.PIPE_BUF if stat.S_ISFIFO(os.fstat(fd).st_mode) else BATCH_BYTES

    def begin(self) -> None:
        """Let what somebody wrote to the stream before come first."""
        with contextlib.suppress(Exception):
            if self._stream is not None:
                self._stream.flush()

    def has_room(self, timeout_s: float) -> bool:
        """Wait for room. A reader that has gone away counts as room: the write says so."""
        return bool(self._poll.poll(timeout_s * 1000))

    def write(self, data: bytes) -> int:
        """Write; return 0 where somebody else has made the descriptor non-blocking and the room is gone."""
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0

    def tick(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Leave it open: it is not ours."""


class TextStream:
    """A stream without a file. Nobody knows how much of a write that raised has arrived."""

    batch_bytes = TEXT_BYTES
    resumes = False
    tick_s: float | None = None

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def begin(self) -> None:
        """Let what somebody wrote to the stream before come first."""
        with contextlib.suppress(Exception):
            self._stream.flush()

    def has_room(self, timeout_s: float) -> bool:
        """Return True: nobody can know, and `write` waits."""
        del timeout_s
        return True

    def write(self, data: bytes) -> int:
        """Write it all, or raise whatever the stream raises."""
        self._stream.write(self._decoder.decode(data))
        self._stream.flush()
        return len(data)

    def tick(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Leave it open: it is not ours."""


def place_of(stream: Stream) -> tuple[LogPlace, str]:
    """Return the place that a stream is (its file, past its buffer, where it has one), and its encoding."""
    try:
        descriptor = Descriptor(int(cast("Any", stream).fileno()), stream)
    except (AttributeError, OSError, ValueError, TypeError):
        return TextStream(stream), "utf-8"
    return descriptor, getattr(stream, "encoding", None) or "utf-8"
