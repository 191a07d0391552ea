"""The node: an ASGI application that serves a store of streams."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Final

from outlast import ConfigurationError
from outlast.streams._clock import Clock
from outlast.streams._errors import StreamNotFoundError
from outlast.streams._model import APPEND_BYTES_MAX, StreamOptions
from outlast.streams._node import append, create, metadata, read
from outlast.streams._node.answers import BrokenOffError, RefusalError, problem_for, refusal
from outlast.streams._node.beside import Beside, NodeCounts, ShownNode
from outlast.streams._node.expiry import EVERY_S, Expiry
from outlast.streams._node.forks import GoneError
from outlast.streams._node.live.pieces import Pieces
from outlast.streams._node.requests import PREFIX, ClientGoneError, Request, raw_path, stream_name
from outlast.streams._node.served import Served, ServedStreams

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast import Service
    from outlast.streams._node.requests import Receive, Scope, Send
    from outlast.streams._streams import Streams

LONG_POLL_S: Final = 25.0
SSE_S: Final = 60.0
CHUNK_BYTES: Final = 1 << 20
BODY_BYTES_MAX: Final = 16 << 20
RESERVED: Final = "__ds"
"""The first segment of names that the protocol keeps for subscriptions."""
_HANDLERS: Final[dict[str, Callable[[Node, Request], Awaitable[None]]]] = {
    "GET": read.get,
    "HEAD": metadata.head,
    "POST": append.post,
    "PUT": create.put,
    "DELETE": metadata.delete,
    "OPTIONS": metadata.options,
}
_ALLOWED: Final = (b"allow", ", ".join(_HANDLERS).encode())


class Node:
    """Serves a store of streams over HTTP, as an ASGI application.

        node = Node(streams).attach(service)
        Server(node, "127.0.0.1:4437", tokens=tokens).attach(service)

    Below `/v1/stream/` it speaks the Durable Streams protocol; below `/v1/streams` is what that lacks: a list, records one by
    one, trim, consumers, usage, verify. A refusal is a problem (RFC 9457) that says the first cause, and its code is the same
    the first time and the millionth. On the event loop of the store only.
    """

    def __init__(
        self,
        streams: Streams,
        *,
        options: StreamOptions | None = None,
        long_poll_s: float = LONG_POLL_S,
        sse_s: float = SSE_S,
        chunk_bytes: int = CHUNK_BYTES,
        body_bytes_max: int = BODY_BYTES_MAX,
        wall: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        """Do nothing yet. Raises `ValueError`.

        `options` are those of the streams that it makes. A long poll waits for `long_poll_s` seconds, an event stream ends after
        `sse_s`. An answer has about `chunk_bytes` bytes of records. `body_bytes_max` bounds what one request may append; JSON
        has at most 4 MiB. `wall` returns seconds since 1970: it is read once, at the first request.
        """
        for what, value, least, most in (
            ("long_poll_s", long_poll_s, 0.0, 3600.0),
            ("sse_s", sse_s, 0.0, 86_400.0),
            ("chunk_bytes", chunk_bytes, 1, APPEND_BYTES_MAX),
            ("body_bytes_max", body_bytes_max, 1, APPEND_BYTES_MAX),
        ):
            if not least <= value <= most:
                raise ValueError(f"node of {streams.name}: {what} is {least:.10g} to {most:.10g}, not {value}")
        self.streams: Final = streams
        self.options: Final = options or StreamOptions()
        self.long_poll_s: Final = long_poll_s
        self.sse_s: Final = sse_s
        self.chunk_bytes: Final = chunk_bytes
        self.body_bytes_max: Final = body_bytes_max
        self.rng: Final = rng or random.Random()
        self.served: Final = ServedStreams(streams)
        self.counts: Final = NodeCounts()
        """What it has answered, and who waits in it."""
        self.shown: Final = ShownNode(streams.name, self.counts)
        """Its figures and health, for `service.show`."""
        self._beside = Beside(self)
        self._service: Service | None = None
        self.pieces: Final = Pieces()
        self.expiry: Final = Expiry(self)
        self._wall = wall
        self._clock: Clock | None = None

    def __repr__(self) -> str:
        return f"<Node of {self.streams!r}>"

    def attach(self, service: Service) -> Node:
        """Belong to a service, which the store is attached to as well, and return it. Once a node."""
        if self._service is not None:
            msg = f"the node of {self.streams.name} is part of {self._service.name} already; make one node for each service"
            raise ConfigurationError(msg)
        self._service = service
        service.show(self.shown)
        service.loop(every_s=EVERY_S, name=f"expiry of {self.streams.name}")(self.expiry.turn)
        return self

    @property
    def is_ready(self) -> bool:
        """Whether its service takes in work; without a service it always is."""
        return self._service is None or self._service.ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            msg = f"a node serves HTTP, and no {scope['type']}"
            raise ValueError(msg)
        send = self.counts.counting(send)
        try:
            await self._serve(scope, receive, send)
        except ClientGoneError:
            return
        except BrokenOffError as broken:
            # Too late for a problem: the shell around it closes the connection, and says so where that is news.
            raise broken.error from broken.error.__cause__
        except Exception as error:
            problem = problem_for(error, self.free_bytes)
            if problem is None:
                # Whoever is around this answers it.
                self.counts.by_status[500] += 1
                raise
            await problem(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._clock is None:
            self.wall()
        path = raw_path(scope)
        if path.startswith(PREFIX):
            request = Request(scope, receive, send, stream_name(path[len(PREFIX) :]))
            if request.name.partition("/")[0] == RESERVED:
                raise RefusalError(refusal(501, "not offered", "subscriptions are not offered; names below __ds are reserved"))
            handler = _HANDLERS.get(request.method)
            if handler is None:
                raise RefusalError(refusal(405, "method", f"a stream has no {request.method}", headers=[_ALLOWED]))
            await handler(self, request)
        else:
            await self._beside(scope, receive, send)

    # What the handlers share.

    def now(self) -> float:
        """Return the time on the clock of the event loop, in seconds."""
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        """Return the seconds since 1970: those of the first request, and what the event loop has counted since."""
        if self._clock is None:
            self._clock = Clock(self._wall)
            self._clock.begin(asyncio.get_running_loop().time)
        return self._clock.now_us() / 1e6

    async def find(self, name: str) -> Served:
        """Return a stream as it is served. One that has expired is deleted, and not there. Raises as `Streams.open`."""
        served = await self.served.get(name, self.now())
        if served.is_deleted:
            await self.served.forks.settle(served)
        if (served.ttl_s is not None or served.expires_at is not None) and served.is_expired(self.now(), self.wall()):
            await self.delete(served)
            raise GoneError(name) if served.is_deleted else StreamNotFoundError(name, "it has expired")
        return served

    async def delete(self, served: Served) -> None:
        """Delete a stream, durably: this incarnation of it, whatever has its name by now. One that has forks is hidden.

        Raises as `Stream.delete`.
        """
        await self.served.forks.delete(served)

    def check_room(self) -> None:
        """Raise the refusal of a disk of the store, unless one of them takes new streams."""
        disks = self.streams.disks
        if not any(disk.passable for disk in disks):
            raise disks[0].unavailable()

    def free_bytes(self, disk: str) -> int | None:
        """Return the bytes available on a disk of the store."""
        return next((each.room.available_bytes for each in self.streams.disks if each.name == disk), None)
