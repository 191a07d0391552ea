"""Cancel requests for statements that were given up, and the knowledge that their sessions have ended.

A server that waits for a lock does not look at the socket: a statement whose client has gone holds its session, one of
`max_connections`, for as long as the lock is held. So the socket is kept, half closed, until the server closes its side; the
server is asked to cancel the statement; and where neither helps, `pg_stat_activity` shows whether the session is still there.
While the server is down nothing is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import capabilities, generators, waiting

from outlast import OutlastError
from outlast.postgres._connection import CANCEL_S_MAX

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from psycopg.pq.abc import PGcancel, PGcancelConn

    from outlast.extend import Pacer
    from outlast.postgres._connection import Connection

WAITS_S: Final = (1.5, 3.0, 6.0, 12.0)
"""Between two cancel requests for one statement; the last one again and again. The first is longer than the server's own look."""
ASK_S_MIN: Final = 1.0
"""At most one question to pg_stat_activity in this time, however many statements there are."""
AGE_SLACK_S: Final = 1.0
"""A session that is younger than our connection by more than this is another one with the same process id."""
DRAIN_BYTES_MAX: Final = 16_777_216
"""The most that a session that was given up may still send: more than the buffers of both sides hold (Linux: 6 MiB and 4 MiB).
Then the socket is closed, so that the server's next write fails."""
READ_BYTES: Final = 65_536
THREADS_MAX: Final = 4
"""With a libpq older than 17 a cancel request blocks a thread."""


@dataclass(eq=False, slots=True)
class GivenUp:
    """A session of ours on the server that is to end."""

    pid: int
    opened_at: float
    on_end: Callable[[GivenUp], None]
    cancel: PGcancelConn | PGcancel | None
    stream: socket.socket | None
    read_bytes: int = 0
    asked: bool = False
    """Whether a cancel request was sent for it."""
    ended: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def ends_within(self, seconds: float) -> bool:
        """Wait for its end, or to be woken; return whether it has ended."""
        if self.ended:
            return True
        self.wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.wake.wait()
        return self.ended


class Endings:
    """Ends on the server what was given up here. Belongs to one event loop at a time, and to its thread.

    `ask` returns the age in seconds of those of our sessions, by process id, that the server still has.
    """

    def __init__(
        self, pacer: Pacer, reachable: Callable[[], bool], ask: Callable[[Sequence[int]], Awaitable[dict[int, float]]]
    ) -> None:
        self.cancels = 0
        """The number of cancel requests that were sent."""
        self._pacer = pacer
        self._reachable = reachable
        self._ask = ask
        self._open: dict[GivenUp, asyncio.Task[None]] = {}
        self._asking = asyncio.Lock()
        """Held by the one who asks pg_stat_activity; the others then find the answer that it has brought."""
        self._asked_at = float("-inf")
        self._threads = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        """Return how many have not ended."""
        return len(self._open)

    def take(self, conn: Connection, on_end: Callable[[GivenUp], None], *, watch: bool = True) -> GivenUp:
        """Take over what is left of a connection that is about to be closed in the middle of a statement.

        `on_end` is called once, when its session has ended. Without `watch` only pg_stat_activity tells that.
        """
        loop = self._here()
        one = GivenUp(conn.pgconn.backend_pid, conn.opened_at, on_end, _cancel_of(conn), _stream_of(conn) if watch else None)
        if one.stream is not None:
            loop.add_reader(one.stream.fileno(), self._drain, one)
        self._open[one] = loop.create_task(self._see_to(one), name=f"outlast ending of session {one.pid}")
        return one

    def back(self) -> None:
        """Ask the server now, not when the next wait is over: it is back."""
        for one in self._open:
            one.wake.set()

    async def sent(self) -> None:
        """Wait for the turn of a cancel request, and count it."""
        await self._pacer.turn()
        self.cancels += 1

    async def close(self, limit_s: float) -> None:
        """Wait for everything to end, at most `limit_s` seconds after the last cancel request; then forget it."""
        self._here()
        unsent = sum(not one.asked for one in self._open) if self._reachable() else 0
        if self._open:
            await asyncio.wait(self._open.values(), timeout=limit_s + unsent * self._pacer.spacing_s)
        for one, task in tuple(self._open.items()):
            task.cancel()
            self._end(one)

    # Inside.

    def _here(self) -> asyncio.AbstractEventLoop:
        """Return the running event loop; forget what belonged to another one, which has ended."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._open.clear()
            self._asking = asyncio.Lock()
        return loop

    async def _see_to(self, one: GivenUp) -> None:
        if one.stream is not None:
            # Not before libpq has sent its Terminate message: the server would log the end of a client that vanished.
            with contextlib.suppress(OSError):
                one.stream.shutdown(socket.SHUT_WR)
        try:
            for wait_s in _waits():
                if self._reachable():
                    await self._send(one)
                if await one.ends_within(wait_s):
                    return
                if self._reachable():
                    await self._look()
                if one.ended:
                    return
        finally:
            # Also when the event loop ends without `close`.
            _shut(one)

    async def _send(self, one: GivenUp) -> None:
        """Send one cancel request. Its arrival does not end the statement: whether that ends is seen later."""
        if one.cancel is None:
            return
        await self._pacer.turn()
        if one.ended or not self._reachable():
            return
        self.cancels += 1
        again, one.asked = one.asked, True
        with contextlib.suppress(psycopg.Error, OSError, TimeoutError):
            async with asyncio.timeout(CANCEL_S_MAX):
                await self._request(one.cancel, again=again)

    async def _request(self, cancel: Any, *, again: bool) -> None:  # noqa: ANN401 - one of two classes of psycopg
        if not capabilities.has_cancel_safe():
            await self._request_in_thread(cancel)
            return
        if again:
            cancel.reset()
        cancel.start()
        await waiting.wait_conn_async(generators.cancel(cancel), interval=CANCEL_S_MAX)

    async def _request_in_thread(self, cancel: PGcancel) -> None:
        """Use the blocking call of an old libpq in a daemon thread of its own, which the end of the process does not wait for."""
        if self._threads >= THREADS_MAX:
            return
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def finish() -> None:
            self._threads -= 1
            done.set()

        def request() -> None:
            with contextlib.suppress(psycopg.Error, OSError):
                cancel.cancel()
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(finish)

        self._threads += 1
        threading.Thread(target=request, name="outlast cancel request", daemon=True).start()
        await done.wait()

    async def _look(self) -> None:
        """Ask the server which of our sessions it still has; once for all who want to know."""
        loop = asyncio.get_running_loop()
        async with self._asking:
            if loop.time() - self._asked_at < ASK_S_MIN:
                return
            asked = tuple(self._open)
            with contextlib.suppress(psycopg.Error, OSError, TimeoutError, OutlastError):
                ages = await self._ask([one.pid for one in asked])
                self._asked_at = loop.time()
                for one in asked:
                    age_s = ages.get(one.pid)
                    if age_s is None or age_s + AGE_SLACK_S < loop.time() - one.opened_at:
                        self._end(one)

    def _drain(self, one: GivenUp) -> None:
        """Read what the server still sends, up to its end."""
        if one.stream is None:
            return
        try:
            data = one.stream.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        one.read_bytes += len(data)
        if not data:
            self._end(one)
        elif one.read_bytes > DRAIN_BYTES_MAX:
            _shut(one)

    def _end(self, one: GivenUp) -> None:
        if one.ended:
            return
        one.ended = True
        _shut(one)
        self._open.pop(one, None)
        one.wake.set()
        one.on_end(one)


def _waits() -> Iterator[float]:
    yield from WAITS_S
    while True:
        yield WAITS_S[-1]


def _cancel_of(conn: Connection) -> PGcancelConn | PGcancel | None:
    """Return what a cancel request needs, which libpq knows only while the connection is open."""
    try:
        return conn.pgconn.cancel_conn() if capabilities.has_cancel_safe() else conn.pgconn.get_cancel()
    except psycopg.Error:
        return None


def _stream_of(conn: Connection) -> socket.socket | None:
    """Duplicate the connection's socket: the copy stays open when libpq closes its own."""
    try:
        stream = socket.socket(fileno=os.dup(conn.pgconn.socket))
    except (psycopg.Error, OSError):
        return None
    stream.setblocking(False)
    return stream


def _shut(one: GivenUp) -> None:
    if one.stream is not None:
        asyncio.get_running_loop().remove_reader(one.stream.fileno())
        one.stream.close()
        one.stream = None
