"""The server by which a process answers for itself: also while its event loop or its main thread stands still."""

from __future__ import annotations

import logging
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias

from outlast._core.faults import ConfigurationError
from outlast._core.redact import clean
from outlast._serve.address import parse_address
from outlast._serve.server import REQUEST_S, TEXT, Answer, BoundedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Page: TypeAlias = Callable[[], Answer]

logger = logging.getLogger("outlast")


class Endpoint:
    """Answers GET and HEAD of a few paths from threads of its own, within the bounds of `BoundedServer`.

    `address` is "127.0.0.1:8080", ":8080" or "8080" for the loopback interface, "[::1]:8080", or "0.0.0.0:8080" when every
    interface is meant; port 0 takes a free one. A malformed address raises `ConfigurationError`. The page of a path is
    called in a thread for each request, up to 8 at a time: it must be safe there, and must not wait for the event loop.
    When it raises, the answer is 503 "unknown".

    What holds the interpreter lock without a pause holds this endpoint too.
    """

    def __init__(self, address: str, pages: Mapping[str, Page], *, request_s: float = REQUEST_S) -> None:
        """Parse the address; nothing listens yet. A client has `request_s` seconds for all of its request."""
        self._host, self._port = parse_address(address)
        self._pages = pages
        self._request_s = request_s
        self._broken: set[str] = set()
        """Paths whose page raised when it was asked last. Any thread that answers may change it; a line more does no harm."""
        self._server: BoundedServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port it listens on; before `start`, the one that was asked for."""
        return self._port if self._server is None else int(self._server.server_address[1])

    @property
    def address(self) -> str:
        """Host and port, as `parse_address` reads them."""
        return f"[{self._host}]:{self.port}" if ":" in self._host else f"{self._host}:{self.port}"

    def start(self) -> None:
        """Listen, and answer from now on; does nothing if it listens. Raises `ConfigurationError` for an address in use."""
        if self._server is not None:
            return
        try:
            server = BoundedServer((self._host, self._port), self._answer, request_s=self._request_s)
        except OSError as error:
            msg = (
                f"cannot listen on {self.address}: {clean(error.strerror or str(error))}; "
                "choose another address, or end the process that has this one"
            )
            raise ConfigurationError(msg) from error
        self._thread = threading.Thread(target=server.serve_forever, name="outlast endpoint", daemon=True)
        self._thread.start()
        self._server = server

    def close(self) -> None:
        """Stop listening: the port is free then. Requests being answered are not waited for. May be called twice."""
        server, self._server = self._server, None
        if server is not None and self._thread is not None:
            server.shutdown()
            # It leaves at once; the limit is for an interpreter in which it has no turn.
            self._thread.join(timeout=1.0)

    def _answer(self, path: str) -> Answer | None:
        """Return what a path answers, or None if there is no such path."""
        page = self._pages.get(path)
        if page is None:
            return None
        try:
            answer = page()
        except Exception:
            if not self._broken:
                logger.exception("endpoint: the status cannot be told; %s answers 503 unknown until it can", path)
            self._broken.add(path)
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, TEXT, "unknown\n")
        self._broken.discard(path)
        return answer
