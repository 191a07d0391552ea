"""Bodies of requests: read in pieces and inflated, never more than the bound of either."""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING, Final

from outlast.tables._http.answers import RefusedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from typing import Any

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]

BODY_BYTES_MAX: Final = 16 * 1024 * 1024
"""The largest body, before and after it is inflated: that of `outlast.http.Limits`, unless an application is told otherwise."""
PIECE_BYTES: Final = 64 * 1024
"""The input of a step of inflating: what is behind the end of a member is copied, and it is never more than this. A body of
more than one step is inflated in a thread."""
MEMBERS_MAX: Final = 1_000
"""The members of one gzip body. Each costs a step, however short it is."""
_GZIP: Final = 16 + zlib.MAX_WBITS
_WBITS: Final = {b"gzip": _GZIP, b"x-gzip": _GZIP, b"deflate": zlib.MAX_WBITS}
_PLAIN: Final = frozenset({b"", b"identity"})


class ClientGoneError(Exception):
    """The client left before its body had come. There is nobody to answer."""


async def read(receive: Receive, encoding: bytes, length: int | None, bytes_max: int) -> bytes:
    """Return a body without its Content-Encoding. What is refused is not read to its end.

    `length` is what was declared, None if nothing was. Raises `RefusedError`: 413 for more than `bytes_max` bytes, before or
    after inflating, 415 for an encoding that is not known, 400 for one that is broken. Raises `ClientGoneError`.
    """
    encoding = encoding.strip().lower()
    if encoding not in _PLAIN and encoding not in _WBITS:
        known = "send the body as it is, or with gzip or deflate"
        raise RefusedError(415, f"unacceptable content-encoding: {encoding[:40].decode('latin-1')!r}: {known}")
    if length is not None and length > bytes_max:
        raise _too_large(bytes_max)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] != "http.request" or message.get("more_body", False):
        body = await _rest(message, receive, bytes_max)
    elif len(body) > bytes_max:
        raise _too_large(bytes_max)
    if encoding in _PLAIN:
        return body
    if len(body) <= PIECE_BYTES:
        return inflated(body, encoding, bytes_max)
    return await asyncio.to_thread(inflated, body, encoding, bytes_max)


async def _rest(message: Message, receive: Receive, bytes_max: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        if message["type"] != "http.request":
            raise ClientGoneError
        part = message.get("body", b"")
        size += len(part)
        if size > bytes_max:
            raise _too_large(bytes_max)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await receive()


def inflated(body: bytes, encoding: bytes, bytes_max: int) -> bytes:
    """Return `body` inflated. Never holds more than `bytes_max` bytes of it, and a piece. Raises `RefusedError` (413, 400)."""
    wbits = _WBITS[encoding]
    if encoding == b"deflate" and not _has_zlib_head(body):
        wbits = -zlib.MAX_WBITS
    parts: list[bytes] = []
    size, place, members = 0, 0, 1
    inflater = zlib.decompressobj(wbits)
    while place < len(body):
        piece = body[place : place + PIECE_BYTES]
        place += len(piece)
        try:
            # One byte more than there may be: it tells the end of the body from the end of the room.
            part = inflater.decompress(piece, bytes_max - size + 1)
        except zlib.error as error:
            raise _broken(encoding, str(error).partition(": ")[2] or str(error)) from None
        size += len(part)
        if size > bytes_max:
            raise _too_large(bytes_max)
        parts.append(part)
        if inflater.eof:
            place -= len(inflater.unused_data)
            # Some senders fill up the last member with zeros.
            if place == len(body) or (body[place] == 0 and body.count(0, place) == len(body) - place):
                break
            if wbits != _GZIP:
                # What stands there would be acknowledged, and nobody has read it.
                raise _broken(encoding, "there is more behind its end")
            members += 1
            if members > MEMBERS_MAX:
                raise _broken(encoding, f"it has more than {MEMBERS_MAX} members")
            inflater = zlib.decompressobj(wbits)
    if not inflater.eof:
        raise _broken(encoding, "it ends too early")
    return b"".join(parts)


def _has_zlib_head(body: bytes) -> bool:
    # RFC 9110 means zlib by deflate; some senders leave out its head, two bytes that are a multiple of 31 and begin with 8.
    return len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0


def _broken(encoding: bytes, reason: str) -> RefusedError:
    return RefusedError(400, f"the body cannot be read as {encoding.decode()}: {reason}")


def _too_large(bytes_max: int) -> RefusedError:
    text = f"the body is larger than the {bytes_max} bytes that it may have, before or after inflating: send it in parts"
    return RefusedError(413, text)
