"""A small HTTP server with a bound on everything: what it holds, how long a client may take, how many are served."""

from __future__ import annotations

import contextlib
import http.server
import io
import logging
import selectors
import socket
import socketserver
import threading
import time
from collections import deque
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

REQUESTS_MAX: Final = 8
REQUEST_S: Final = 2.0
HEAD_BYTES_MAX: Final = 8192
REFUSED_MAX: Final = 64
"""Refused connections that are kept open for a moment, so that the refusal is read before the reset."""
ACCEPT_PAUSE_S: Final = 0.1
"""After an accept that failed, out of descriptors say: the selector would report it again at once."""
TEXT: Final = "text/plain; charset=utf-8"
_BUSY_BODY: Final = b"unknown: as many requests are being answered as this endpoint allows\n"
_BUSY: Final = (
    b"HTTP/1.0 503 Service Unavailable\r\nCache-Control: no-store\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BUSY_BODY), _BUSY_BODY)
)
logger = logging.getLogger("outlast")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: status, type and text."""

    code: HTTPStatus
    content_type: str
    text: str
    retry_after_s: int | None = None


class BoundedServer(socketserver.TCPServer):
    """Accepts in one thread, answers GET and HEAD with `answer(path)` in at most `REQUESTS_MAX` others.

    `answer` returns None for a path that does not exist: 404. Other methods get 405, connections beyond the limit 503 at
    once. A client has `request_s` seconds for all of its request, of at most 8 KiB, and one connection serves one
    request. Nothing is written to stderr. Raises `OSError` if the address cannot be had.
    """

    # No HTTPServer: that one looks its own name up in DNS.

    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], answer: Callable[[str], Answer | None], *, request_s: float) -> None:
        """Listen; nothing is accepted before `serve_forever`."""
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.answer = answer
        self.request_s = request_s
        # Taken by the thread that accepts, released by the one that has answered.
        self._free = threading.Semaphore(REQUESTS_MAX)
        self._closing = threading.Event()
        # Of the thread that accepts alone, but for `server_close`, which that thread calls last.
        self._refused: deque[tuple[float, socket.socket]] = deque()
        self._woken, self._waker = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        super().__init__(address, _Request)
        self.socket.setblocking(False)
        for readable in (self.socket, self._woken):
            self._selector.register(readable, selectors.EVENT_READ)

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Accept until `shutdown`, which wakes this at once; then close what is open."""
        while not self._closing.is_set():
            self._selector.select(poll_interval if self._refused else None)
            if not self._closing.is_set():
                self._accept()
            self._forget(REFUSED_MAX, time.monotonic() - self.request_s)
        self.server_close()

    def shutdown(self) -> None:
        """End `serve_forever`, from another thread; does not wait for it."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._waker.send(b"x")

    def server_close(self) -> None:
        """Close every socket but those of connections being served."""
        super().server_close()
        self._forget(0, time.monotonic())
        self._selector.close()
        self._woken.close()
        self._waker.close()

    def _accept(self) -> None:
        try:
            connection, client = self.socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            logger.debug("endpoint: accept failed: %s", error)
            self._closing.wait(ACCEPT_PAUSE_S)
            return
        if not self._free.acquire(blocking=False):
            self._refuse(connection)
            return
        try:
            threading.Thread(target=self._serve, args=(connection, client), name="outlast endpoint request", daemon=True).start()
        except RuntimeError:
            # No more threads to be had.
            self._free.release()
            self._refuse(connection)

    def _serve(self, connection: socket.socket, client: Any) -> None:  # noqa: ANN401 - as the socket module has it
        try:
            _Request(connection, client, self)
        except OSError as error:
            logger.debug("endpoint: a client left or was too slow: %s", error)
        finally:
            self.shutdown_request(connection)
            self._free.release()

    def _refuse(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            connection.sendall(_BUSY)
            connection.shutdown(socket.SHUT_WR)
        self._refused.append((time.monotonic(), connection))

    def _forget(self, refused_max: int, before: float) -> None:
        """Close refused connections: those refused at `before` or earlier, and the oldest above `refused_max`."""
        while self._refused and (len(self._refused) > refused_max or self._refused[0][0] <= before):
            _, connection = self._refused.popleft()
            with contextlib.suppress(OSError):
                # What has not been read when a socket is closed resets the connection.
                connection.recv(HEAD_BYTES_MAX)
            connection.close()


class _Request(http.server.BaseHTTPRequestHandler):
    """One request: its head read within the limits of time and bytes, one answer, end of connection."""

    protocol_version = "HTTP/1.0"

    def __init__(self, connection: socket.socket, client: Any, server: BoundedServer) -> None:  # noqa: ANN401 - as the socket module has it
        self._server = server
        self._answer = io.BytesIO()
        super().__init__(connection, client, server)

    def setup(self) -> None:
        """Set the time within which all of it has to happen."""
        self._deadline_at = time.monotonic() + self._server.request_s
        self.connection: socket.socket = self.request
        self.wfile = self._answer

    def handle(self) -> None:
        """Read, answer, and wait for the client to read it where closing now would take the answer from it."""
        head = self._read_head()
        if not head:
            return
        self.rfile = io.BytesIO(head)
        self.raw_requestline = self.rfile.readline()
        if len(head) > HEAD_BYTES_MAX:
            self.requestline, self.request_version, self.command = "", self.protocol_version, ""
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self.parse_request():
            self._route()
        self.connection.settimeout(self._left_s())
        self.connection.sendall(self._answer.getvalue())
        self.connection.shutdown(socket.SHUT_WR)
        if self.command not in {"GET", "HEAD"}:
            # A body may still be on its way.
            for _ in range(64):
                self.connection.settimeout(self._left_s())
                if not self.connection.recv(HEAD_BYTES_MAX):
                    break

    def finish(self) -> None:
        """Leave the socket to the server."""

    def _left_s(self) -> float:
        left_s = self._deadline_at - time.monotonic()
        if left_s <= 0:
            msg = f"not done within {self._server.request_s:g} s"
            raise TimeoutError(msg)
        return left_s

    def _read_head(self) -> bytes:
        """Read up to the empty line. The limit is for the whole head: a byte now and then wins no time."""
        head = bytearray()
        while b"\r\n\r\n" not in head and b"\n\n" not in head and len(head) <= HEAD_BYTES_MAX:
            self.connection.settimeout(self._left_s())
            chunk = self.connection.recv(HEAD_BYTES_MAX)
            if not chunk:
                break
            head += chunk
        return bytes(head)

    def _route(self) -> None:
        if self.command not in {"GET", "HEAD"}:
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)
        elif (answer := self._server.answer(self.path.partition("?")[0])) is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            self._send(answer)

    def _send(self, answer: Answer) -> None:
        code, body = answer.code, answer.text.encode("utf-8", "replace")
        # After a request line that makes no sense the base class supposes HTTP/0.9, and would send no status.
        self.request_version = self.protocol_version
        self.send_response(code)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if answer.retry_after_s is not None:
            self.send_header("Retry-After", str(answer.retry_after_s))
        if code is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Answer a request that cannot be met; what the client sent is not repeated."""
        self._send(Answer(HTTPStatus(code), TEXT, f"{HTTPStatus(code).phrase.lower()}\n"))

    def version_string(self) -> str:
        """Name no versions."""
        return "outlast"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - as the base class has it
        """Write nothing: probes come all the time."""
