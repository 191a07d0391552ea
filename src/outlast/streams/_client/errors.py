"""Errors that only a client meets: of servers and caches that it cannot see behind."""

from __future__ import annotations

from outlast import Kind
from outlast.streams._errors import StreamError


class OffsetGoneError(StreamError):
    """The offset is gone, or the whole stream: a server that is none of ours has not said which. Read from the start, or ask
    `head`.
    """

    code = "offset gone"


class StaleAnswerError(StreamError):
    """A server, or a cache in front of it, answers with what was before: an offset goes backwards or stands still, past the cache
    too.

    The stream may have been deleted and made again, or a proxy keeps what it must not. Nothing of the answer was taken; what was
    read up to `offset` is right.
    """

    code = "stale answer"
    kind = Kind.PERMANENT

    def __init__(self, stream: str, offset: str, answered: str, reason: str) -> None:
        super().__init__(
            stream, f"asked for offset {offset!r}, {reason} (next: {answered!r}): was it made again, or does a cache replay?"
        )
        self.offset = offset
        """The offset up to which all was read."""
        self.answered = answered
        """The next offset that the answer named."""
