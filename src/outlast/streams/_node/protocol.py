"""The words of the protocol: names of headers, offsets, numbers, media types, instants. Pure."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from outlast.streams._model import NUMBER_MAX

CONTENT_TYPE: Final = b"content-type"
NEXT_OFFSET: Final = b"stream-next-offset"
UP_TO_DATE: Final = b"stream-up-to-date"
CLOSED: Final = b"stream-closed"
SEQ: Final = b"stream-seq"
TTL: Final = b"stream-ttl"
EXPIRES_AT: Final = b"stream-expires-at"
CURSOR: Final = b"stream-cursor"
FORKED_FROM: Final = b"stream-forked-from"
FORK_OFFSET: Final = b"stream-fork-offset"
FORK_SUB_OFFSET: Final = b"stream-fork-sub-offset"
PRODUCER_ID: Final = b"producer-id"
PRODUCER_EPOCH: Final = b"producer-epoch"
PRODUCER_SEQ: Final = b"producer-seq"
PRODUCER_EXPECTED_SEQ: Final = b"producer-expected-seq"
PRODUCER_RECEIVED_SEQ: Final = b"producer-received-seq"
OLDEST_OFFSET: Final = b"stream-oldest-offset"
"""Ours: beside the tail, in the answer to a position that is not there."""
SENT: Final = (
    *(SEQ, TTL, EXPIRES_AT, CLOSED, FORKED_FROM, FORK_OFFSET, FORK_SUB_OFFSET),
    *(PRODUCER_ID, PRODUCER_EPOCH, PRODUCER_SEQ),
)
"""The headers that a client sends, beside those of HTTP."""
TRUE: Final = b"true"

DIGITS_MAX: Final = 16
"""Those of `NUMBER_MAX`, 2^53 - 1; a longer text is not looked at."""
OCTETS: Final = "application/octet-stream"
"""The content type of a stream that was made without one."""
JSON: Final = "application/json"
START: Final = "-1"
NOW: Final = "now"
_MEDIA_TYPE: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*;[\t -~]*)?")
CONTENT_TYPE_MAX: Final = 256
_INSTANT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def offset_text(position: int) -> str:
    """Return the offset of a position: its 16 digits, so that offsets sort as texts do."""
    return f"{position:016d}"


def offset_value(position: int) -> bytes:
    """Return the offset of a position as the value of a header."""
    return b"%016d" % position


def parse_offset(text: str) -> int | None:
    """Return the position of an offset that this node has written; None for any other text."""
    if len(text) != DIGITS_MAX or not text.isascii() or not text.isdigit():
        return None
    position = int(text)
    return position if position <= NUMBER_MAX else None


def parse_number(value: bytes) -> int | None:
    """Return a number from 0 to 2^53 - 1 in ASCII digits; None for anything else. No sign, no blank, no leading zero."""
    if not 0 < len(value) <= DIGITS_MAX or not value.isdigit() or (value[0] == 0x30 and len(value) > 1):
        return None
    number = int(value)
    return number if number <= NUMBER_MAX else None


def parse_content_type(text: str) -> str | None:
    """Return the media type in lower case, without parameters; None for what is no content type."""
    if len(text) > CONTENT_TYPE_MAX or _MEDIA_TYPE.fullmatch(text) is None:
        return None
    return text.partition(";")[0].rstrip(" \t").lower()


def parse_instant(text: str) -> float | None:
    """Return the seconds since 1970 of a timestamp of RFC 3339; None for anything else."""
    if _INSTANT.fullmatch(text) is None:
        return None
    # `fromisoformat` takes microseconds at most; a nanosecond decides nothing here.
    trimmed = re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", text.upper())
    try:
        return datetime.fromisoformat(trimmed).timestamp()
    except (ValueError, OverflowError):
        # 30 February, 25 o'clock; a leap second is none of Python's either.
        return None
