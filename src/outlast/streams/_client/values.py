"""The values that a client returns."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

JSON_TYPE: Final = "application/json"
START: Final = "-1"
"""The offset of the oldest data that is there."""
NOW: Final = "now"
"""The offset of the tail."""
BYTES_TYPE: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Sent:
    """An append that is stored: `next` is the offset behind it. `duplicate`: an earlier attempt had stored it.

    `closed`: the stream takes no more.
    """

    next: str
    duplicate: bool = False
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """A piece of a stream as one answer had it. Keep `next`: reading goes on there, after any interruption.

    `up_to_date`: there was no more when it was answered. `closed`: there never will be.
    """

    data: bytes
    next: str
    up_to_date: bool = False
    closed: bool = False
    content_type: str = BYTES_TYPE

    @property
    def is_empty(self) -> bool:
        """Whether it holds nothing."""
        return not self.data or (is_json(self.content_type) and b"".join(self.data.split()) == b"[]")

    @property
    def messages(self) -> list[Any]:
        """The messages of a stream of `application/json`, decoded. Raises `ValueError` for another stream."""
        if not is_json(self.content_type):
            raise ValueError(f"a stream of {self.content_type} has bytes and no messages: see `data`")
        messages: list[Any] = json.loads(self.data) if self.data else []
        return messages


@dataclass(frozen=True, slots=True)
class StreamHead:
    """The state of a stream: `next` is the offset of its tail. `ttl_s` and `expires_at` (RFC 3339) are None where it has none."""

    name: str
    content_type: str
    next: str
    closed: bool = False
    ttl_s: int | None = None
    expires_at: str | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str], repr=False, compare=False)
    """All that the server said, by names in lower case."""


def media_type(content_type: str) -> str:
    """Return a content type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def is_json(content_type: str) -> bool:
    """Return whether streams of this content type consist of messages."""
    return media_type(content_type) == JSON_TYPE


def is_true(headers: dict[str, str], name: str) -> bool:
    """Return whether a header of the protocol says `true`: anything else is as if it were not there."""
    return headers.get(name, "").strip().lower() == "true"


def body_of(data: object, content_type: str) -> bytes:
    """Return the body of an append. Bytes go as they are; others as JSON, or as UTF-8 where the stream has no messages.

    Raises `ValueError` for what stores nothing, and `TypeError` for what is neither bytes nor text, of a stream without messages.
    """
    if isinstance(data, bytes):
        body = data
    elif is_json(content_type):
        if data == []:
            raise ValueError("an append of no messages stores nothing: send at least one, or close the stream by close()")
        body = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    elif isinstance(data, str):
        body = data.encode()
    else:
        raise TypeError(
            f"a stream of {content_type} takes bytes or text, not {type(data).__name__}; for messages it is of {JSON_TYPE}"
        )
    if not body:
        raise ValueError("an append has at least one byte; a stream is closed by close()")
    return body
