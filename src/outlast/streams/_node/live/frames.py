"""Server-sent events as the protocol has them: `data`, `control` and, ours, `error`. Pure.

No payload can forge a line: each of its lines begins with `data:`, and CR, LF and CRLF all end one, as they do for the reader.
So a text comes back with LF for each of them; bytes that are no text come back as they are.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_DATA: Final = b"event: data\n"


def joined(records: Sequence[bytes], *, is_json: bool) -> bytes:
    """Return some records as one body: messages as an array, each as it was sent; bytes one behind the other."""
    return b"[" + b",".join(records) + b"]" if is_json else b"".join(records)


def data_frame(records: Sequence[bytes], *, is_json: bool, is_text: bool) -> bytes:
    """Return the event of some records: JSON as one array, text as it is, everything else in base64."""
    body = joined(records, is_json=is_json)
    if is_json or is_text:
        return _DATA + _lines(body)
    return b"%sdata:%s\n\n" % (_DATA, b2a_base64(body, newline=False))


def control_frame(offset: str, *, cursor: int | None, up_to_date: bool, closed: bool) -> bytes:
    """Return the event behind the records: where to go on. `cursor` is left out where `closed`: nobody comes back."""
    members = [f'"streamNextOffset":"{offset}"']
    if cursor is not None and not closed:
        members.append(f'"streamCursor":"{cursor}"')
    if up_to_date or closed:
        members.append('"upToDate":true')
    if closed:
        members.append('"streamClosed":true')
    return f"event: control\ndata:{{{','.join(members)}}}\n\n".encode()


def error_frame(problem: bytes) -> bytes:
    """Return the event that says why the stream of events breaks off; `problem` is a JSON object."""
    return b"event: error\n" + _lines(problem)


def _lines(text: bytes) -> bytes:
    """Return the lines of the data of an event, and the empty one that ends it."""
    if b"\n" not in text and b"\r" not in text:
        return b"%s%s\n\n" % (_prefix(text), text)
    return b"".join(b"%s%s\n" % (_prefix(line), line) for line in _LINE_END.split(text)) + b"\n"


def _prefix(line: bytes) -> bytes:
    """Return the name of the field. A reader drops one blank behind it, so a line that begins with a blank gets one more."""
    return b"data: " if line[:1] == b" " else b"data:"
