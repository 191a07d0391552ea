"""The talk of the fluvio drill with an arm that is a server of Durable Streams: plain HTTP/1.1, as any client speaks it.

One stream, of bytes: one POST is one record. Offsets are opaque to clients of the protocol; the drill knows how those of its arms
are made: digits that count records, so that the offset before a record is one below the one after it.
"""

from __future__ import annotations

import http.client
import json
import socket
from http import HTTPMethod, HTTPStatus
from typing import TYPE_CHECKING, Final, Self

import httptools

from outlast._drill.fluvio.wire import RECORD_BYTES, Answer, Reply, Request
from outlast._drill.lab.errors import DrillError
from outlast.testing import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from outlast._drill.fluvio.wire import Answers

PATH: Final = "/v1/stream/drill"
CONTENT_TYPE: Final = "application/octet-stream"
_NEXT_OFFSET: Final = b"stream-next-offset"
_CONNECT_S_MAX: Final = 5.0
_TEXT_BYTES_MAX: Final = 200


class HttpTalk:
    """The talk over HTTP, with the stream PATH of one server."""

    def __init__(self, host: str, port: int) -> None:
        """Talk with the server there."""
        self._host, self.port = host, port
        self._digits = 0
        """Of an offset of this server, as the first one that it returned has them."""
        self._headers = f"Host: {host}:{port}\r\n".encode()

    @classmethod
    def new_address(cls, folder: Path) -> str:
        """Return a free port of this machine."""
        del folder
        return f"127.0.0.1:{free_port()}"

    @classmethod
    def to(cls, address: str) -> Self:
        """Return the talk with the server at `host:port`."""
        host, _, port = address.rpartition(":")
        return cls(host, int(port))

    def greet(self) -> bool:
        """Make the stream; return False while the server cannot do that yet (503). Raises OSError if nobody listens."""
        connection = http.client.HTTPConnection(self._host, self.port, timeout=_CONNECT_S_MAX)
        try:
            connection.request(HTTPMethod.PUT, PATH, headers={"Content-Type": CONTENT_TYPE})
            with connection.getresponse() as response:
                text = response.read(_TEXT_BYTES_MAX)
                offset = response.headers.get(_NEXT_OFFSET.decode())
        finally:
            connection.close()
        if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
            return False
        if response.status not in {HTTPStatus.OK, HTTPStatus.CREATED} or offset is None or not offset.isdigit():
            msg = f"PUT {PATH} was answered {response.status} and the offset {offset!r}, expected 201 and digits: {text!r}"
            raise DrillError(msg)
        self._digits = len(offset)
        return True

    def dial(self) -> socket.socket:
        """Connect. Raises OSError."""
        connection = socket.create_connection((self._host, self.port), timeout=_CONNECT_S_MAX)
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def request(self, what: Request, record: bytes, position: int) -> bytes:
        """Return a POST of the record, or a GET from the offset before the position."""
        if what is Request.READ:
            return b"GET %s?offset=%0*d HTTP/1.1\r\n%s\r\n" % (PATH.encode(), self._digits, position, self._headers)
        length = b"Content-Type: %s\r\nContent-Length: %d\r\n" % (CONTENT_TYPE.encode(), len(record))
        return b"POST %s HTTP/1.1\r\n%s%s\r\n%s" % (PATH.encode(), self._headers, length, record)

    def answers(self) -> Answers:
        """Return what reads the answers of a new connection."""
        return _HttpAnswers()


class _HttpAnswers:
    """Reads one answer after another, with the parser that uvicorn has, which calls the methods that begin with `on_`."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._begin()

    def _begin(self) -> None:
        self._body = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._whole = self._last = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        # Of a read the first record is looked at, of a refusal the text; the rest is only received.
        if len(self._body) < max(RECORD_BYTES, 1 << 14):
            self._body += body

    def on_message_complete(self) -> None:
        # Asked here: the parser forgets it with the message.
        self._whole, self._last = True, not self._parser.should_keep_alive()

    def feed(self, data: bytes) -> Reply | None:
        """Take what was received. Raises httptools.HttpParserError for what is no HTTP/1.1."""
        self._parser.feed_data(data)
        if not self._whole:
            return None
        status, last = self._parser.get_status_code(), self._last
        headers, body = self._headers, bytes(self._body)
        self._begin()
        if status in {HTTPStatus.OK, HTTPStatus.NO_CONTENT}:
            # One record: the offset after it is one above that before it, from which it is read.
            position = int(headers[_NEXT_OFFSET]) - 1
            return Reply(Answer.DONE, body[:RECORD_BYTES], position, last)
        what = Answer.UNKNOWN if status == HTTPStatus.GATEWAY_TIMEOUT else Answer.REFUSED
        return Reply(what, f"{status} {_told(headers, body)}".encode(), last=last)


def _told(headers: dict[bytes, bytes], body: bytes) -> str:
    """Return what a refusal says: kind and code where a program can read them, else its text."""
    if headers.get(b"content-type", b"").startswith(b"application/problem+json"):
        problem = json.loads(body)
        return f"{problem.get('kind')}: {problem.get('code')}"
    return body[:_TEXT_BYTES_MAX].decode(errors="replace")
