"""A request whose body stays open while its answer is read: how a watch is asked whether it is still there.

httpx2 sends a whole body before it reads an answer, so this is made of a socket and h11, which httpx2 is made of as well. The
header `connection: close` lets etcd's server, Go's of HTTP/1.1, answer before the body has ended; without it the server would
read the body to its end first.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import h11

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from outlast.etcd._gateway.endpoints import Endpoint

PIECE_BYTES: Final = 65_536


class Duplex:
    """One connection with one request. Whoever opened it calls `abort`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http: Any = h11.Connection(h11.CLIENT)

    @classmethod
    async def open(cls, endpoint: Endpoint, path: str, headers: Mapping[str, str], tls: ssl.SSLContext | None) -> Duplex:
        """Connect, and send the head of the request. Raises `OSError`."""
        reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=tls if endpoint.is_tls else None)
        self = cls(reader, writer)
        fixed = {"host": endpoint.place, "connection": "close", "transfer-encoding": "chunked", "user-agent": "outlast"}
        self._send(h11.Request(method="POST", target=path, headers=list({**fixed, **headers}.items())))
        return self

    def send(self, piece: bytes) -> None:
        """Send a piece of the body. It does not wait: nobody sends much here."""
        self._send(h11.Data(data=piece))

    async def status(self) -> int:
        """Return the status of the answer, once it has begun. Raises `OSError`."""
        event = await self._next()
        while not isinstance(event, h11.Response):
            event = await self._next()
        return event.status_code

    async def read(self) -> bytes:
        """Return the next piece of the answer, b"" at its end. Raises `OSError`."""
        while True:
            event = await self._next()
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage | h11.ConnectionClosed) or event is h11.PAUSED:
                return b""

    def abort(self) -> None:
        """End the connection at once. May be called again."""
        self._writer.transport.abort()

    def _send(self, event: Any) -> None:  # noqa: ANN401 - h11's events have no common type
        self._writer.write(self._http.send(event) or b"")

    async def _next(self) -> Any:  # noqa: ANN401 - as above
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(PIECE_BYTES))
        except h11.ProtocolError as error:
            msg = f"the answer is no HTTP, or ended early: {error}"
            raise ConnectionError(msg) from error
        return event
