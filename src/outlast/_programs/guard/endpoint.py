"""Readiness, liveness and figures over HTTP, for whoever looks after the guard."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from outlast._core.faults import ConfigurationError
from outlast._serve.server import TEXT, BoundedServer
from outlast._serve.server import Answer as Reply

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST_S_MAX: Final = 5.0
"""A connection is cut after this, however slowly its request trickles in."""
METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"


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
    """Answers GET and HEAD of /readyz, /livez and /metrics until `close`, within the bounds of `BoundedServer`."""

    def __init__(self, host: str, port: int, asked: Asked) -> None:
        """Listen; raises ConfigurationError when that is not possible. Port 0 takes a free one."""
        self._asked = asked
        try:
            self._server = BoundedServer((host, port), self._answer, request_s=REQUEST_S_MAX)
        except (OSError, OverflowError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise ConfigurationError(f"cannot listen on {host}:{port}: {reason}") from error
        self.address = f"{f'[{host}]' if ':' in host else host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="outlast guard endpoint", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; the port is free then."""
        self._server.shutdown()
        # It leaves at once; the limit is for an interpreter that gives it no turn.
        self._thread.join(timeout=1.0)

    def _answer(self, path: str) -> Reply:
        if path == "/metrics":
            return Reply(HTTPStatus.OK, METRICS, self._asked.metrics())
        if path not in {"/readyz", "/livez"}:
            return Reply(HTTPStatus.NOT_FOUND, "text/plain", "there are /readyz, /livez and /metrics\n")
        answer = self._asked.ready() if path == "/readyz" else self._asked.live()
        if answer.ok:
            return Reply(HTTPStatus.OK, TEXT, answer.reason + "\n")
        return Reply(HTTPStatus.SERVICE_UNAVAILABLE, TEXT, answer.reason + "\n", retry_after_s=1)
