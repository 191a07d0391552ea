"""Errors of streams, by what the caller can do.

A full or lost disk is `outlast.Unavailable`; an append that never fits is an `outlast.admission.TooLargeError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast import Fault, Kind, OutlastError, Scope
from outlast.admission import Reason, Refusal, TooLargeError
from outlast.extend import attach

if TYPE_CHECKING:
    from outlast.streams._model import Producer


class StreamError(OutlastError):
    """The base of what is wrong with one request or one stream; it says nothing about the disk."""

    kind = Kind.REJECTED
    code = "stream"

    def __init__(self, stream: str, message: str) -> None:
        super().__init__(f"stream {stream!r}: {message}", Fault(self.kind, self.code, message, scope=Scope.CALL))
        self.stream = stream


class StreamNotFoundError(StreamError):
    """There is no such stream, or it was deleted meanwhile."""

    code = "no such stream"


class StreamExistsError(StreamError):
    """A stream of this name is there already, with other options."""

    code = "stream exists"


class StreamClosedError(StreamError):
    """The stream was closed: it can be read, and nothing is ever added to it."""

    code = "stream closed"


def closed_error(stream: str, tail: int) -> StreamClosedError:
    """Return the error for whoever would add to a stream that is closed."""
    return StreamClosedError(stream, f"it was closed at position {tail}; nothing can be added")


class TrimmedError(StreamError):
    """The position is gone: trimmed, or given up by retention. `oldest` is there, and so is all up to `tail`."""

    code = "trimmed"

    def __init__(self, stream: str, position: int, oldest: int, tail: int) -> None:
        super().__init__(stream, f"position {position} is gone; the oldest there is {oldest}, the tail {tail}")
        self.position, self.oldest, self.tail = position, oldest, tail


class BeyondTailError(StreamError):
    """The position is above the tail, so it was never given to anybody by this stream."""

    code = "beyond the tail"

    def __init__(self, stream: str, position: int, oldest: int, tail: int) -> None:
        super().__init__(stream, f"position {position} is beyond the tail {tail}; the oldest there is {oldest}")
        self.position, self.oldest, self.tail = position, oldest, tail


class PositionMismatchError(StreamError):
    """An append demanded a position that is not the tail. Nothing was stored."""

    code = "position"

    def __init__(self, stream: str, at: int, tail: int) -> None:
        super().__init__(stream, f"an append was to be at position {at}, and the tail is {tail}")
        self.at, self.tail = at, tail


class FencedError(StreamError):
    """A newer epoch of this producer has written: whoever holds the old one is to end. Nothing was stored."""

    code = "fenced"

    def __init__(self, stream: str, producer: str, epoch: int, newest: int) -> None:
        super().__init__(stream, f"producer {producer!r} writes with epoch {epoch}, and epoch {newest} has begun")
        self.producer, self.epoch, self.newest = producer, epoch, newest


class SequenceError(StreamError):
    """A producer's sequence has a gap, or begins above 0: `expected` is the next one. Nothing was stored."""

    code = "sequence"

    def __init__(self, stream: str, producer: str, sequence: int, expected: int) -> None:
        super().__init__(stream, f"producer {producer!r} sent sequence {sequence}, and {expected} is the next")
        self.producer, self.sequence, self.expected = producer, sequence, expected


class LimitError(StreamError):
    """A bound of one stream is reached: its quota, its producers, its consumers, the ranges a consumer has acknowledged."""

    kind = Kind.EXHAUSTED
    code = "limit"


class ExpiredError(StreamError):
    """The deadline passed before the append was begun. Nothing was stored, and nothing will be."""

    code = "expired"
    kind = Kind.OVERLOADED


class OutcomeUnknownError(StreamError):
    """Whether the append is stored is not known: the disk has not answered, or would not take it back.

    Send it again with the same producer, epoch and sequence: then it is stored once.
    """

    code = "outcome unknown"
    kind = Kind.TRANSIENT
    producer: Producer | None = None
    """The identity with which a client had sent it, or None."""


class DamagedError(StreamError):
    """Bytes on the disk are not those that were written. What is before can still be read, and so is all from `next` on."""

    code = "damaged"
    kind = Kind.PERMANENT
    """A person has to act, for this stream: a loop that meets it waits long, and everything else goes on."""

    def __init__(self, stream: str, segment: str, position: int, reason: str, following: int | None = None) -> None:
        super().__init__(stream, f"segment {segment} is damaged at position {position}: {reason}; run: outlast streams verify")
        self.segment, self.position, self.reason, self.next = segment, position, reason, following


class AppendTooLargeError(TooLargeError):
    """An append has more records, or bytes, than any may have. Nothing was stored; divide it."""

    def __init__(self, stream: str, what: str, seen: int, limit: int) -> None:
        super().__init__(stream, Refusal(Reason.MEMORY, seen, limit, None))
        message = f"stream {stream!r}: an append has {seen} {what} and the limit is {limit}: divide it"
        self.args = (message,)
        self.fault = Fault(Kind.REJECTED, "too large", message, scope=Scope.CALL)
        attach(self, self.fault)
        self.stream, self.what, self.seen, self.limit = stream, what, seen, limit
