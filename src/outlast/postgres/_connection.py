"""A psycopg connection that cannot hang: every wait has a deadline on our side, and a cancel is instant.

psycopg answers a cancel by opening *another* connection to ask the server to stop the query, waits up to 5 s for that and 5 s
more for the query: eleven seconds on a server that is frozen or cut off. Here the connection is closed and the caller goes on.
Closing alone does not end the query, since the server does not look at the socket while it waits for a lock: the owner of the
connection is told (`on_given_up`), and ends the query as well (`_pool/endings.py`). All of it belongs to one event loop's thread.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import psycopg
from psycopg import pq, waiting
from psycopg.errors import _WaitTimeout  # pyright: ignore[reportPrivateUsage] # what wait() must raise for a caller's own timeout

from outlast import Fault, Kind
from outlast.extend import attach

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from psycopg.abc import PQGen

RV = TypeVar("RV")
INTERVAL_S: Final = 3600.0
"""psycopg wakes ten times a second to look for Ctrl-C. An event loop delivers signals by itself."""
ENDS: Final = frozenset({"FATAL", "PANIC"})
"""The severities after which the server closes the session."""
CANCEL_S_MAX: Final = 2.0
"""The longest time for one cancel request: a server that is there answers within milliseconds."""


class DeadlineExceededError(psycopg.OperationalError):
    """The server did not answer within the client's deadline. The connection is closed."""


class Connection(psycopg.AsyncConnection[Any]):
    """An `AsyncConnection` whose waits end at `operation_timeout_s` seconds, and at once when cancelled.

    The deadline is for one wait (usually one query), not for a whole block; None is for a session that waits on
    purpose. After it, and after a cancel in the middle of a query, the connection is closed.
    """

    operation_timeout_s: float | None = 10.0
    epoch: int = 0
    """The dependency's epoch in which it was opened."""
    aborted_for: Fault | None = None
    """The reason that `abort` was called with, if it was."""
    opened_at: float = 0.0
    """The time at which it was opened, on the event loop's clock."""
    expires_at: float = float("inf")
    """The time from which it is too old to be lent again, on the same clock."""
    told_to_end: bool = False
    """Whether the server has said, unasked, that it ends the session."""
    on_given_up: Callable[[Connection], None] | None = None
    """Called once, on the event loop, before it is closed or shut down in the middle of a statement."""
    before_cancel: Callable[[], Awaitable[None]] | None = None
    """Awaited before a cancel request is sent through it: paced and counted with the others."""

    async def wait(
        self,
        gen: PQGen[RV],
        interval: float = INTERVAL_S,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> RV:
        """Run a generator of psycopg on the socket, within the deadline."""
        del interval
        limit_s = self.operation_timeout_s if timeout is None else timeout
        try:
            return await waiting.wait_async(gen, self.pgconn.socket, interval=INTERVAL_S, timeout=limit_s)
        except _WaitTimeout:
            if timeout is not None:
                raise
            self.end()
            raise _deadline_exceeded(limit_s or 0.0) from None
        except psycopg.Error as exc:
            if self.aborted_for is not None:
                attach(exc, self.aborted_for)
            raise
        except (asyncio.CancelledError, KeyboardInterrupt):
            if self.is_busy:
                self.end()
            raise

    def hear(self, said: psycopg.errors.Diagnostic) -> None:
        """Note that the server said, unasked, that it ends the session; add it as a notice handler."""
        if said.severity_nonlocalized in ENDS:
            self.told_to_end = True

    def belongs_to(self, pool: object) -> None:
        """Make it a pool's: the end of its `async with` then ends the transaction, and does not close it."""
        self._pool = cast("Any", pool)

    @property
    def is_busy(self) -> bool:
        """Whether the server is in the middle of a statement of this connection."""
        return self.pgconn.transaction_status == pq.TransactionStatus.ACTIVE

    def end(self) -> None:
        """Close it at once, without waiting; a statement that runs is ended on the server as well."""
        self._tell()
        self._closed = True
        self.pgconn.finish()

    async def close(self) -> None:
        """Close it, as `end` does."""
        self.end()

    async def cancel_safe(self, *, timeout: float = CANCEL_S_MAX) -> None:  # noqa: ASYNC109 - psycopg's own
        """Ask the server to end the statement. psycopg also calls it when a COPY or a stream is left before its end."""
        if self.before_cancel is not None and self.is_busy:
            await self.before_cancel()
        await super().cancel_safe(timeout=min(timeout, CANCEL_S_MAX))

    def _tell(self) -> None:
        told, self.on_given_up = self.on_given_up, None
        if told is not None and self.is_busy:
            told(self)

    def abort(self, fault: Fault) -> None:
        """Shut the socket down: whoever waits on the connection fails at once with `fault`, and closes it.

        The fault says why *we* did it: what the driver then reports, a reset, is no news of the server. Safe to call twice.
        The descriptor itself is not closed here: an event loop that still watches its number would take the next file of that
        number for it.
        """
        self.aborted_for = self.aborted_for or fault
        self._tell()
        try:
            descriptor = os.dup(self.pgconn.socket)
        except (psycopg.OperationalError, OSError):
            return
        with socket.socket(fileno=descriptor) as shared, suppress(OSError):
            shared.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def deadline(self, seconds: float | None) -> Generator[None]:
        """Use another deadline within a `with` block: for a query that takes long on purpose. None: no deadline."""
        before, self.operation_timeout_s = self.operation_timeout_s, seconds
        try:
            yield
        finally:
            self.operation_timeout_s = before


def _deadline_exceeded(limit_s: float) -> DeadlineExceededError:
    reason = f"the server did not answer within {limit_s:g} s (operation_timeout_s)"
    error = DeadlineExceededError(reason)
    attach(error, Fault(Kind.TRANSIENT, "timeout", reason))
    return error
