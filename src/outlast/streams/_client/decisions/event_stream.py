"""The reader of server-sent events. Pure: it is fed the pieces as they come, and where a piece is cut makes no difference.

Lines end with CR, LF or both, and both may lie in two pieces; a character may as well. Bytes are split into lines before they are
decoded, which is right in UTF-8. An event that has not ended is none.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from outlast.streams._client.values import Batch, is_json

if TYPE_CHECKING:
    from collections.abc import Iterator

BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event: its type, "message" where it has none, and the lines of its data, joined by LF."""

    type: str
    data: str


class EventParser:
    """Turns pieces of an event stream into events."""

    def __init__(self, bytes_max: int) -> None:
        """`bytes_max` bounds one event: a server that never ends one must not fill the memory."""
        self._bytes_max = bytes_max
        self._begun = False
        """Whether the place of the byte order mark is behind."""
        self._line = bytearray()
        self._after_cr = False
        """Whether the last piece ended with CR: an LF at the beginning of the next belongs to it."""
        self._type = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[StreamEvent]:
        """Yield the events that end in this piece. Raises `ValueError` for one that is too large."""
        for line in self._lines(piece):
            event = self._take(line)
            if event is not None:
                yield event

    def _lines(self, piece: bytes) -> Iterator[bytes]:
        if not self._begun:
            piece = bytes(self._line) + piece
            self._line.clear()
            if len(piece) < len(BOM) and BOM.startswith(piece):
                self._line += piece
                return
            piece = piece.removeprefix(BOM)
            self._begun = True
        if not piece:
            return
        if self._after_cr:
            piece = piece.removeprefix(b"\n")
        *ended, rest = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._after_cr = piece.endswith(b"\r")
        for part in ended:
            yield bytes(self._line) + part
            self._line.clear()
        self._line += rest
        self._check(len(self._line))

    def _take(self, line: bytes) -> StreamEvent | None:
        if not line:
            event = StreamEvent(self._type or "message", "\n".join(self._data)) if self._data else None
            self._type, self._data, self._size = "", [], 0
            return event
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._type = value
        elif name == "data":
            self._check(len(line))
            self._data.append(value)
            self._size += len(line)
        return None

    def _check(self, more: int) -> None:
        if self._size + more > self._bytes_max:
            raise ValueError(f"an event is larger than {self._bytes_max} bytes")


class Batches:
    """Puts the events of a stream together: what is in a `data` event counts once a `control` event says where it ends."""

    def __init__(self, content_type: str, *, base64_encoded: bool) -> None:
        """`content_type` is that of the stream, not of the events."""
        self._content_type = content_type
        self._base64 = base64_encoded
        self._held: list[bytes] = []

    def take(self, event: StreamEvent) -> tuple[Batch, str] | None:
        """Return a batch and the cursor, or None. Raises `ValueError` for what no server of the protocol sends."""
        if event.type == "data":
            self._held.append(self._decoded(event.data))
            return None
        if event.type != "control":
            return None
        found = json.loads(event.data)
        if not isinstance(found, dict):
            raise ValueError("a control event is no JSON object")  # noqa: TRY004 - the server's mistake, of whatever type
        told = cast("dict[str, Any]", found)
        following, cursor = told.get("streamNextOffset"), told.get("streamCursor", "")
        if not isinstance(following, str) or not isinstance(cursor, str):
            raise ValueError("a control event has no streamNextOffset")  # noqa: TRY004 - the server's mistake, of whatever type
        closed = told.get("streamClosed") is True
        data, self._held = self._joined(), []
        return Batch(data, following, closed or told.get("upToDate") is True, closed, self._content_type), cursor

    def _decoded(self, text: str) -> bytes:
        if not self._base64:
            return text.encode()
        return base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)

    def _joined(self) -> bytes:
        if len(self._held) < 2 or not is_json(self._content_type):
            return b"".join(self._held)
        inner = (part.strip()[1:-1] for part in self._held)
        return b"[" + b",".join(part for part in inner if part.strip()) + b"]"
