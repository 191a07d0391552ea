"""A pool of connections whose places are those of the server: a place is free when the server's session has ended, not before.

Everything but the waiting itself is done in one step of the event loop, so that no cancellation can come in between: at every
moment a connection is being dialled, lent, idle, given up or closed. All methods belong to the event loop's thread.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import psycopg

from outlast import Fault, Kind, Scope
from outlast.extend import Line, attach
from outlast.postgres._pool.places import GRACE_S, IDLE_S_MAX, Places

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

C = TypeVar("C")

IN_USE: Final = "all connections are in use: raise connections_max, or hold them for a shorter time"
UNENDED: Final = "they were sent cancel requests; pg_blocking_pids() and wait_event in pg_stat_activity tell what holds them"


class NoConnectionError(psycopg.OperationalError):
    """No connection became free in time, or too many wait for one."""


@dataclass(frozen=True, slots=True)
class Connector(Generic[C]):
    """The server whose connections a pool lends, as far as the pool needs to know it."""

    name: str
    waiters_max: int
    limit: Callable[[], int]
    """Return how many places there are now."""
    dial: Callable[[Pool[C]], Coroutine[Any, Any, C | None]]
    """Open a connection; None when, after the wait for one's turn, the pool says that nobody needs it any more (`is_wanted`)."""
    dial_refusal: Callable[[], Callable[[], Exception] | None]
    """Return what to refuse waiters with while nothing may be dialled; None while it may."""
    dial_failed: Callable[[BaseException], bool]
    """Record that a dial failed; return whether the first in line is to be told."""
    fits: Callable[[C], bool]
    """Return whether a connection may be lent: open, quiet, not too old."""
    let_go: Callable[[C], None]
    """Close a connection, without waiting."""


class Pool(Generic[C]):
    """Lends connections, at most `connector.limit()` of them at a time, those included that the server still holds."""

    def __init__(self, connector: Connector[C]) -> None:
        self.places: Places[C] = Places()
        self.loop = asyncio.get_running_loop()
        self._server = connector
        self._line: Line[C] = Line(self.give_back)
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """The number of those who wait for a connection."""
        return len(self._line)

    async def take(self, timeout_s: float) -> C:
        """Return a connection; whoever has it must `give_back` it.

        Raises `NoConnectionError` after `timeout_s` seconds, or at once when too many wait or waiting is useless.
        """
        if not self._line and (conn := self._from_idle()) is not None:
            return conn
        if self.places.is_stuck(self._server.limit(), self.loop.time()):
            raise self._not_ended()
        if len(self._line) >= self._server.waiters_max:
            raise self._error("pool full", f"{len(self._line)} wait for a connection already, which is the limit", IN_USE)
        future = self._line.join()
        self._serve()
        return await self._line.wait(future, timeout_s, lambda: self._too_late(timeout_s))

    def give_back(self, conn: C) -> None:
        """Take a connection back; one that was given up meanwhile keeps its place until its session has ended."""
        if conn not in self.places.borrowed:
            return
        self.places.borrowed.discard(conn)
        self._settle(conn)
        self._serve()

    def give_up(self, conn: C, token: object) -> None:
        """Record that a connection was given up in the middle of a statement: `ended(token)` makes its place free."""
        self.places.borrowed.discard(conn)
        self.places.given_up[token] = self.loop.time()
        if len(self.places.given_up) >= self._server.limit():
            self.loop.call_later(GRACE_S, self._refuse_if_stuck)

    def is_wanted(self) -> bool:
        """Return whether as many wait as are being dialled: else a connection that came back has served one of them."""
        return len(self._line) >= len(self.places.dialling)

    def ended(self, token: object) -> None:
        """Make a place free: the session of what was given up has ended on the server."""
        self.places.given_up.pop(token, None)
        self._serve()

    def clear(self, refusal: Callable[[], Exception]) -> None:
        """Refuse all who wait, then close what is idle and stop dialling. What is borrowed stays."""
        self._line.refuse(refusal)
        for task in tuple(self.places.dialling):
            if isinstance(task, asyncio.Task):
                task.cancel()
        idle, self.places.idle = self.places.idle, []
        for conn, _ in idle:
            self._server.let_go(conn)

    def close(self, refusal: Callable[[], Exception]) -> None:
        """Lend nothing any more."""
        self._closed = True
        self.clear(refusal)
        if self._timer is not None:
            self._timer.cancel()

    # Inside.

    def _from_idle(self) -> C | None:
        while self.places.idle:
            conn, _ = self.places.idle.pop()
            if self._server.fits(conn):
                self.places.borrowed.add(conn)
                return conn
            self._server.let_go(conn)
        return None

    def _serve(self) -> None:
        """Hand what there is to those who wait, and dial for the others."""
        if self._closed:
            return
        while self._line and (conn := self._from_idle()) is not None:
            self._hand_over(conn)
        wanted = self.places.dials_wanted(len(self._line), self._server.limit())
        if not wanted:
            return
        refusal = self._server.dial_refusal()
        if refusal is None:
            for _ in range(wanted):
                self._dial()
        elif not self.places.borrowed and not self.places.dialling:
            # There is none to wait for, and none will come.
            self._line.refuse(refusal)

    def _settle(self, conn: C) -> None:
        """Lend, keep or close a connection that has no place at this moment."""
        if not self._closed and self.places.taken < self._server.limit() and self._server.fits(conn):
            self._hand_over(conn)
        else:
            self._server.let_go(conn)

    def _hand_over(self, conn: C) -> None:
        if self._line.give(conn):
            self.places.borrowed.add(conn)
            return
        self.places.borrowed.discard(conn)
        self.places.idle.append((conn, self.loop.time()))
        if self._timer is None:
            self._timer = self.loop.call_later(IDLE_S_MAX, self._expire)

    def _dial(self) -> None:
        task = self.loop.create_task(self._server.dial(self), name=f"outlast dial {self._server.name}")
        self.places.dialling.add(task)
        task.add_done_callback(self._dialled)

    def _dialled(self, task: asyncio.Task[C | None]) -> None:
        self.places.dialling.discard(task)
        if task.cancelled():
            pass
        elif (exc := task.exception()) is not None:
            if self._server.dial_failed(exc):
                self._line.refuse(lambda: exc, 1)
        elif (conn := task.result()) is not None:
            self._settle(conn)
        self._serve()

    def _expire(self) -> None:
        self._timer = None
        for conn in self.places.expired(self.loop.time()):
            self._server.let_go(conn)
        if self.places.idle:
            self._timer = self.loop.call_at(self.places.idle[0][1] + IDLE_S_MAX, self._expire)

    def _refuse_if_stuck(self) -> None:
        if self.places.is_stuck(self._server.limit(), self.loop.time()):
            self._line.refuse(self._not_ended)

    # What to say.

    def _not_ended(self) -> NoConnectionError:
        return self._error("not ended", self.places.unended(self.loop.time()), UNENDED)

    def _too_late(self, timeout_s: float) -> NoConnectionError:
        unended = self.places.unended(self.loop.time())
        reason = (
            f"no connection became free within {timeout_s:g} s: {len(self.places.borrowed)} of {self._server.limit()} are in use"
        )
        return self._error("pool timeout", f"{reason}; {unended}" if unended else reason, UNENDED if unended else IN_USE)

    def _error(self, code: str, reason: str, hint: str) -> NoConnectionError:
        return no_connection(self._server.name, code, reason, hint)


def no_connection(source: str, code: str, reason: str, hint: str) -> NoConnectionError:
    """Build the error of a caller for whom there is no connection: it concerns that caller alone."""
    error = NoConnectionError(reason)
    attach(error, Fault(Kind.OVERLOADED, code, reason, source, Scope.CALL, hint=hint))
    return error
