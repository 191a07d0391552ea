"""Readiness, liveness and figures over HTTP, for whoever looks after the guard."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any, Final, cast

from outlast.core.faults import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CONNECTIONS_MAX: Final = 8
REQUEST_S_MAX: Final = 5.0
"""A connection is cut after this, however slowly its request trickles in."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether all is well, and why."""

    ok: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What the endpoint asks. The functions are called from its threads and must not block."""

    ready: Callable[[], Answer]
    live: Callable[[], Answer]
    metrics: Callable[[], str]


class Endpoint:
    """Answers GET and HEAD of /readyz, /livez and /metrics until `close`. At most `CONNECTIONS_MAX` at a time; others are cut."""

    def __init__(self, host: str, port: int, asked: Asked) -> None:
        """Listen; raises ConfigurationError when that is not possible. Port 0 takes a free one."""
        try:
            self._server = _Server((host, port), asked)
        except (OSError, OverflowError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise ConfigurationError(f"cannot listen on {host}:{port}: {reason}") from error
        self.address = f"{f'[{host}]' if ':' in host else host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="outlast guard endpoint", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Server(HTTPServer):
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], asked: Asked) -> None:
        self.asked = asked
        self._places = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without looking up our own name, which may take seconds where a resolver is away."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the base class says so
        """Answer in a thread, if there is a place."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            threading.Thread(target=self._answer, args=(request, client_address), daemon=True).start()
        except RuntimeError:
            # No thread to be had: a program that took them all is no reason for the guard to stumble.
            self._places.release()
            self.shutdown_request(request)

    def _answer(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        cut = threading.Timer(REQUEST_S_MAX, _cut, [request])
        cut.daemon = True
        try:
            cut.start()
            with contextlib.suppress(OSError, RuntimeError):
                self.finish_request(request, client_address)
        finally:
            cut.cancel()
            self.shutdown_request(request)
            self._places.release()


def _cut(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_S_MAX
    server_version = "outlast"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer."""
        asked = cast("_Server", self.server).asked
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._send(HTTPStatus.OK, asked.metrics(), {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
        elif path in {"/readyz", "/livez"}:
            answer = asked.ready() if path == "/readyz" else asked.live()
            plain = {"Content-Type": "text/plain; charset=utf-8"}
            if answer.ok:
                self._send(HTTPStatus.OK, answer.reason + "\n", plain)
            else:
                self._send(HTTPStatus.SERVICE_UNAVAILABLE, answer.reason + "\n", {**plain, "Retry-After": "1"})
        else:
            self._send(HTTPStatus.NOT_FOUND, "there are /readyz, /livez and /metrics\n", {"Content-Type": "text/plain"})

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self.do_GET()

    def _send(self, status: HTTPStatus, text: str, headers: Mapping[str, str]) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: each look would be a line."""
