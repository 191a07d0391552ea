"""The answer that is a stream of events: it ends with the stop, with its client, and when its client does not read."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any, Final

from outlast import OutlastError
from outlast.http._app.events import Event
from outlast.http._app.extensions import ABORT, extensions
from outlast.http._app.parking import end, fired, park, until_gone
from outlast.http._app.problem import problem_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable

    from outlast import Stop
    from outlast.http._app.extensions import Receive, Scope, Send

KEEP_ALIVE_S: Final = 15.0
"""Below the 30 s and more of silence after which proxies cut."""
RETRY_S: Final = 3.0
STALLED_S: Final = 10.0
FAREWELL_S: Final = 0.25
"""The seconds that the last words may take when the service stops: a client that does not read holds nobody up."""
HEADERS: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    # nginx would keep the events until its buffer is full.
    (b"x-accel-buffering", b"no"),
)


class EventStream:
    """An answer of server-sent events from `source`; an ASGI application, and so a response of starlette's handlers.

        async def watch(request):
            return EventStream(feed.watch(request.headers.get("last-event-id")))

    `source` yields `Event`s, or bytes that are frames already; the next is asked for when the one before was taken by the
    server, so a source is held up by a client that reads slowly. A client that takes nothing for `stalled_s` seconds is cut.
    After `keep_alive_s` seconds of silence a comment is sent. `headers` are those of the answer beside its own three, of which
    each gives way to one of the same name. `retry:` tells the client to come back after `retry_s` seconds,
    more or less half of it at random, so that those who lose their server do not come back together.

    It ends when the source does; at once when the service stops (`stop`, or that of the server), with a last comment; and when
    the client leaves. However it ends, the iterator of the source is closed (`aclose`) by the stream itself, also if it never
    began. The slot of admission belongs to others from the start; where as many are parked as may be, the answer is a refusal.
    """

    def __init__(
        self,
        source: AsyncIterable[Event | bytes],
        *,
        stop: Stop | None = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
        keep_alive_s: float = KEEP_ALIVE_S,
        retry_s: float = RETRY_S,
        stalled_s: float = STALLED_S,
        rng: random.Random | None = None,
    ) -> None:
        for name, seconds in (("keep_alive_s", keep_alive_s), ("retry_s", retry_s), ("stalled_s", stalled_s)):
            if not 0 < seconds <= 3600:
                raise ValueError(f"{name} must be above 0 and at most 3600, not {seconds}")
        self._events = aiter(source)
        self._stop = stop
        self._headers = tuple({**dict(HEADERS), **dict(headers)}.items())
        self._keep_alive_s = keep_alive_s
        self._stalled_s = stalled_s
        self._retry = b"retry: %d\n\n" % round(1000 * retry_s * (rng or random.Random()).uniform(0.5, 1.5))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until the stream ends."""
        try:
            if scope["method"] == "HEAD":
                await send({"type": "http.response.start", "status": 200, "headers": self._headers})
                await send({"type": "http.response.body", "body": b""})
                return
            try:
                park(scope)
            except OutlastError as refusal:
                await problem_of(refusal)(scope, receive, send)
                return
            await self._serve(scope, receive, send)
        finally:
            # Here and not in a generator: one that is cancelled before its first step runs nothing of its own.
            await _close(self._events)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        writer = _Writer(send, self._headers, self._stalled_s)
        pump = asyncio.ensure_future(self._pump(writer))
        keeper = asyncio.ensure_future(writer.keep_alive(self._keep_alive_s))
        leaving = asyncio.ensure_future(until_gone(receive))
        try:
            with fired(scope, self._stop) as stopped:
                await asyncio.wait({pump, keeper, leaving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone = leaving.done()
            ended = [task for task in (pump, keeper) if task.done() and not task.cancelled()]
            await end(pump, keeper, leaving)
        if gone:
            return
        try:
            for task in ended:
                task.result()
            await writer.end(None if ended else self._retry)
        except _StalledError:
            _cut(scope)

    async def _pump(self, writer: _Writer) -> None:
        await writer.write(self._retry)
        async for event in self._events:
            await writer.write(event.frame() if isinstance(event, Event) else event)


class _StalledError(Exception):
    """The client has taken nothing for too long."""


class _Writer:
    """The way of the stream to the server: each part is sent within a bound.

    The task that keeps the stream alive watches that bound, too: a timer for each part would cost more than the part.
    """

    def __init__(self, send: Send, headers: tuple[tuple[bytes, bytes], ...], stalled_s: float) -> None:
        self._send = send
        self._headers = headers
        self._stalled_s = stalled_s
        self._time = asyncio.get_running_loop().time
        self._begun = False
        self._sending_since: float | None = None
        self._sent_at = self._time()

    async def write(self, body: bytes) -> None:
        """Send a part of the stream. If that takes too long `keep_alive` raises, and whoever waits here is to be cancelled."""
        self._sending_since = self._time()
        try:
            await self._part(body, more=True)
        finally:
            self._sending_since = None
            self._sent_at = self._time()

    async def end(self, retry: bytes | None) -> None:
        """End the stream; `retry`: because the service stops, which leaves little time. Raises `_StalledError`."""
        if retry is None:
            await self._within(self._stalled_s, b"", more=False)
        else:
            await self._within(FAREWELL_S, b": stopping\n" + retry, more=False)

    async def keep_alive(self, silence_s: float) -> None:
        """Send a comment after each silence. Raises `_StalledError` when a part takes too long."""
        while True:
            now = self._time()
            # A part that is begun during this sleep is not due before its end.
            due = min(self._sent_at + silence_s, now + self._stalled_s)
            if self._sending_since is not None:
                due = self._sending_since + self._stalled_s
            await asyncio.sleep(due - now)
            now = self._time()
            if self._sending_since is not None:
                if now >= self._sending_since + self._stalled_s:
                    raise _StalledError
            elif now >= self._sent_at + silence_s:
                await self._within(self._stalled_s, b":\n\n", more=True)
                self._sent_at = self._time()

    async def _within(self, seconds: float, body: bytes, *, more: bool) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._part(body, more=more)
        except TimeoutError as error:
            raise _StalledError from error

    async def _part(self, body: bytes, *, more: bool) -> None:
        if not self._begun:
            await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
            self._begun = True
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def _cut(scope: Scope) -> None:
    """Close the connection, where the server can: the answer is not complete, and the client sees that."""
    abort = extensions(scope).get(ABORT)
    if abort is not None:
        abort()


async def _close(events: AsyncIterator[Any]) -> None:
    aclose = getattr(events, "aclose", None)
    if aclose is not None:
        with contextlib.suppress(StopAsyncIteration):
            await aclose()
