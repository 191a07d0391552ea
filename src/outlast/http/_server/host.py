"""The shared part of a server's connections: limits, counts, the application, and the state of the stop."""

from __future__ import annotations

import asyncio
import logging
import random
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final, cast

from uvicorn import Config
from uvicorn.server import ServerState

from outlast import Stop
from outlast.extend import Once, clean
from outlast.http._server import refusals
from outlast.http._server.connection import Connection

if TYPE_CHECKING:
    import socket
    import ssl

    from outlast import Gate
    from outlast.http._app.extensions import App, Receive, Scope, Send
    from outlast.http._app.problem import Problem
    from outlast.http._server.limits import Limits
    from outlast.http._server.screen import Screen
    from outlast.http._server.tally import Seat, Tally

NAME_MAX: Final = 100
"""The characters of the name under which a request is in the gate."""
LOOK_S: Final = 0.02
PATIENCE: Final = 0.5
"""The share of the stop's deadline for which a client that does not send or read is waited for, once the service stops."""
logger = logging.getLogger("outlast.http")


class Gated:
    """An application inside the gate of its service: a stop waits for each request, and names it."""

    def __init__(self, app: App, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises `Stopping` once the service stops, `Unavailable` while the gate is full."""
        async with self._gate.enter(f"{scope['method']} {scope['raw_path'].decode('ascii')}"[:NAME_MAX]):
            await self._app(scope, receive, send)


class Host:
    """The shared part of all connections. On the event loop's thread."""

    def __init__(
        self,
        name: str,
        app: App,
        limits: Limits,
        tally: Tally,
        *,
        screen: Screen | None,
        state: dict[str, Any],
        deadline_s: float,
    ) -> None:
        self.name = name
        self.app = app
        self.limits = limits
        self.screen = screen
        self.tally = tally
        self.app_state = state
        self.loop = asyncio.get_running_loop()
        self.config = _config(app)
        self.state = ServerState()
        self.rng = random.Random()
        self.stop = Stop()
        self.patience_s = PATIENCE * deadline_s
        self._once = Once()
        self._sweep_s = limits.sweep_s
        self._swept_at = self.loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._arriving: set[asyncio.Task[None]] = set()
        """Connections that are being made: with TLS, until their handshake is over."""
        self._context: ssl.SSLContext | None = None
        self._dated_at = 0.0
        self.date_line = b""
        """The header line that says when it is."""

    @property
    def stopping(self) -> bool:
        """Whether no request is taken in any more: from the step that fires the stop."""
        return self.stop.reason is not None

    # Connections.

    def begin(self, stop: Stop, context: ssl.SSLContext | None) -> None:
        """Begin to serve: `stop` is that of the service."""
        self.stop = stop
        self._context = context
        self._sweep()

    def take(self, sock: socket.socket, client: str) -> None:
        """Make a connection of a socket that was accepted."""
        seat = self.tally.enter(client)
        if seat is None or (seat.refused and self._context is not None):
            # A handshake would cost more than the answer is worth.
            self.tally.count(refusals.DROPPED)
            if seat is not None:
                seat.leave()
            sock.close()
            return
        task = self.loop.create_task(self._connect(sock, seat))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)
        task.add_done_callback(_read_result)

    async def _connect(self, sock: socket.socket, seat: Seat) -> None:
        connection = Connection(self, seat)
        limits = self.limits
        try:
            if self._context is None:
                await self.loop.connect_accepted_socket(lambda: connection, sock)
            else:
                await self.loop.connect_accepted_socket(
                    lambda: connection,
                    sock,
                    ssl=self._context,
                    ssl_handshake_timeout=limits.headers_s,
                    ssl_shutdown_timeout=limits.drain_s,
                )
        except (OSError, TimeoutError):
            # No certificate, no TLS at all, a version that is too old, a client that went away: what clients do.
            self.tally.count(refusals.TLS_FAILED)
        finally:
            if not connection.made:
                seat.leave()
                sock.close()

    @property
    def connections(self) -> list[Connection]:
        """The connections that are open now."""
        return cast("list[Connection]", list(self.state.connections))

    def _sweep(self) -> None:
        """End what has lasted too long, and do so again after a while."""
        # First of all: whatever happens below, the bounds of time hold.
        self._timer = self.loop.call_later(self._sweep_s, self._sweep)
        now = self.loop.time()
        since_s, self._swept_at = now - self._swept_at, now
        if now - self._dated_at >= 1.0 or not self.state.default_headers:
            self._dated_at = now
            date = formatdate(usegmt=True).encode()
            self.state.default_headers = [(b"date", date)]
            self.date_line = b"date: %b\r\n" % date
        for connection in self.connections:
            connection.overdue(now, since_s)

    # Answers.

    def wire(self, problem: Problem, request_id: str, *, head: bool) -> bytes:
        """Return an answer of the server's own, as bytes."""
        return problem.wire(request_id=request_id, head=head, more=self.date_line)

    def broke(self, exc: BaseException, method: str, url: bytes, request_id: str) -> None:
        """Log what an application, or a function of its own that it has passed, should not have done; the same is said once."""
        key = f"{type(exc).__name__}: {exc}"[:NAME_MAX]
        level = logging.ERROR if self._once.news(key, subject=key) else logging.DEBUG
        what = clean(f"{method} {url.decode('latin-1')}", NAME_MAX)
        logger.log(level, "%s: %s failed (request %s; said once)", self.name, what, request_id, exc_info=exc)

    # The stop.

    async def refuse(self) -> None:
        """End idle connections, and let the others end with the answer they wait for."""
        # Those that were accepted in this step, and requests that have arrived, are heard first: they are told that we stop.
        for _ in range(3):
            await asyncio.sleep(0)
        for connection in self.connections:
            connection.shutdown()

    async def end(self, wait_s: float) -> None:
        """End every connection; what is written already has `wait_s` to leave."""
        give_up_at = self.loop.time() + wait_s
        for task in tuple(self._arriving):
            task.cancel()
        try:
            # Nothing tells when a client has read what was written: it is looked at.
            while any(connection.pending for connection in self.connections) and self.loop.time() < give_up_at:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            for connection in self.connections:
                if connection.unsent:
                    self.tally.count(refusals.READER_TOO_SLOW)
                    connection.abort()
                else:
                    connection.transport.close()
        # The transports report their end in the next turns of the loop. With TLS they would wait for the client to agree.
        for _ in range(2):
            await asyncio.sleep(0)
        for connection in self.connections:
            connection.abort()
        await asyncio.sleep(0)


def _read_result(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


def _config(app: App) -> Config:
    """Return uvicorn's settings: with these it loads nothing, leaves logging alone, and has no bounds of its own."""
    config = Config(
        cast("Any", app),
        loop="none",
        http=Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        proxy_headers=False,
        workers=1,
    )
    config.load()
    return config
