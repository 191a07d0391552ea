"""Answers over HTTP whether the process lives, is ready, and how it is: also while the event loop stands still."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import logging
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from outlast._core.faults import ConfigurationError
from outlast._core.redact import clean
from outlast._serve.server import REQUEST_S, TEXT, Answer, BoundedServer

if TYPE_CHECKING:
    from collections.abc import Callable

PATHS: Final = ("/livez", "/readyz", "/statusz")
logger = logging.getLogger("outlast")


@dataclasses.dataclass(frozen=True, slots=True)
class DependencyStatus:
    """One dependency: its state, the first cause of the present outage, and for how many seconds it has lasted."""

    name: str
    state: str
    cause: str = ""
    since_s: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class HealthStatus:
    """How a service is now. It is shown to whoever asks: it holds no secrets, and no contents of requests.

    `phase` is "starting", "running", or the phase of the stop: "refuse", "drain", "flush", "close", "report".
    `reason` says why it is not ready or not live. `since_s` is how many seconds ago `phase` began; `holders`, how
    many still hold the gate of the phase.
    """

    name: str
    ready: bool
    live: bool
    phase: str
    reason: str = ""
    since_s: float = 0.0
    dependencies: tuple[DependencyStatus, ...] = ()
    holders: int = 0


class HealthEndpoint:
    """Serves `/livez`, `/readyz` and `/statusz` from threads of its own.

    `address` is "127.0.0.1:8080", ":8080" for the loopback interface, "[::1]:8080", or "0.0.0.0:8080" when every
    interface is meant; port 0 takes a free one. A malformed address raises `ConfigurationError`. `status` is called
    in a thread for each request: it must be safe there and must not wait for the event loop. When it raises, the
    answer is 503 "unknown".

    At most 8 requests are answered at a time, others are refused at once with 503; a client has `request_s` seconds for
    all of its request. What holds the interpreter lock without a pause holds this endpoint too.
    """

    def __init__(self, address: str, status: Callable[[], HealthStatus], *, request_s: float = REQUEST_S) -> None:
        """Parse the address; nothing listens yet."""
        self.address = address
        self._host, self._port = parse_address(address)
        self._status = status
        self._request_s = request_s
        self._status_broken = False
        self._server: BoundedServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port it listens on; before `start`, the one that was asked for."""
        return self._port if self._server is None else int(self._server.server_address[1])

    def start(self) -> None:
        """Listen, and answer from now on. Raises `ConfigurationError` if the address cannot be had; again: nothing."""
        if self._server is not None:
            return
        try:
            server = BoundedServer((self._host, self._port), self._look, request_s=self._request_s)
        except OSError as error:
            msg = (
                f"health endpoint: cannot listen on {clean(self.address)}: {error.strerror or error}; "
                "choose another address, or end the process that has this one"
            )
            raise ConfigurationError(msg) from error
        self._thread = threading.Thread(target=server.serve_forever, name="outlast health", daemon=True)
        self._thread.start()
        self._server = server

    def close(self) -> None:
        """Stop listening: the port is free then. Requests being answered are not waited for. Again: nothing."""
        server, self._server = self._server, None
        if server is not None and self._thread is not None:
            server.shutdown()
            # It leaves at once; the limit is for an interpreter that gives it no turn.
            self._thread.join(timeout=1.0)

    def _look(self, path: str) -> Answer | None:
        """Answer for a path, or None if there is no such path."""
        if path not in PATHS:
            return None
        try:
            answer = _render(path, self._status())
        except Exception:
            if not self._status_broken:
                self._status_broken = True
                logger.exception("health endpoint: the status cannot be told; answering 503 unknown until it can")
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, TEXT, "unknown\n")
        self._status_broken = False
        return answer


def _render(path: str, status: HealthStatus) -> Answer:
    if path == "/statusz":
        text = json.dumps(dataclasses.asdict(status), allow_nan=False)
        return Answer(HTTPStatus.OK, "application/json", text + "\n")
    well, otherwise = (status.live, "not live") if path == "/livez" else (status.ready, status.phase)
    if well:
        return Answer(HTTPStatus.OK, TEXT, "ok\n")
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE, TEXT, (clean(status.reason) or otherwise) + "\n")


def parse_address(address: str) -> tuple[str, int]:
    """Give host and port of "host:port", or raise `ConfigurationError`. No name is looked up: DNS may be down too."""
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    host = "127.0.0.1" if host in {"", "localhost"} and not bracketed else host
    try:
        valid = ipaddress.ip_address(host).version == (6 if bracketed else 4) and "%" not in host
    except ValueError:
        valid = False
    if not (colon and valid and port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        msg = (
            f"health endpoint: {clean(address)!r} is no address to listen on; "
            'write "127.0.0.1:8080", ":8080" (loopback), "[::1]:8080" or "0.0.0.0:8080" (every interface), port 0 to 65535'
        )
        raise ConfigurationError(msg)
    return host, int(port)
