"""Entity tags: which records of which incarnation an answer has, and whether they were all. Pure."""

from __future__ import annotations

import re
from typing import Final

_TAG: Final = re.compile(rb'"[^"]*"')


def etag(stream_id: str, first: int, following: int, *, up_to_date: bool, closed: bool) -> bytes:
    """Return the tag of an answer with the records `first` to `following` - 1.

    It differs whenever the body does, or what the headers say about the end: a client that was told "up to date" and asks again
    is told when that has changed, though not a byte of the body has. `stream_id` is never given to another stream.
    """
    end = ":c" if closed else ":u" if up_to_date else ""
    return f'"{stream_id}:{first}:{following}{end}"'.encode()


def matches(if_none_match: bytes | None, tag: bytes) -> bool:
    """Return whether an `If-None-Match` names the tag, by the weak comparison of RFC 9110, section 13.1.2."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == b"*" or tag in _TAG.findall(if_none_match)
