"""A connection in a thread of its own: it is opened, used and closed there, and no other thread ever touches it."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

import apsw

from outlast import Fault, Kind, Scope
from outlast.extend import OwnThread, attach
from outlast.sqlite._connection import connect, execute
from outlast.sqlite._faults import CROWDED, TIMEOUT, fault_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

WAITING_MAX: Final = 1_000
"""Calls that may wait for one thread. Each holds a task of the caller's."""
BUSY_S_MAX: Final = 0.02
"""The longest wait between two attempts to get the write lock."""
BROKEN: Final = (apsw.IOError, apsw.CorruptError, apsw.NotADBError, apsw.CantOpenError, apsw.ReadOnlyError)
"""Errors after which the connection is opened again: what it has in its cache may be wrong."""

STUCK_S: Final = 0.2
"""Past its deadline a call of SQLite ends by itself within some milliseconds."""

Begin = Literal["BEGIN IMMEDIATE", "BEGIN DEFERRED"]


@dataclass(slots=True, eq=False)
class Call(Generic[T]):
    """One transaction on its way to the thread, and through it."""

    function: Callable[[apsw.Connection], T]
    until: float
    """On `time.monotonic`: past it nobody waits any more."""
    given_up: bool = False
    """Set by the event loop's thread, read by the other."""
    begun: bool = False
    """Set by the thread."""

    @property
    def is_over(self) -> bool:
        return self.given_up or time.monotonic() >= self.until


@dataclass(slots=True)
class Done:
    """Counts of transactions. Two threads write them: one in a million may be missed, and nothing depends on it."""

    commits: int = 0
    rollbacks: int = 0
    restarts: int = 0
    is_made: bool = False
    """Whether the file was there once: then it is not made again, for that would be another one."""


@dataclass(slots=True)
class Place:
    """The file, and what is done around each transaction in the thread."""

    path: Path
    begin: Begin
    done: Done
    check: Callable[[], None] | None = None
    """Called before a transaction, which it may refuse."""
    after: Callable[[apsw.Connection], None] | None = None
    """Called once a transaction is committed."""


class Seat:
    """One thread's connection: only that thread calls this, but for reading `call`."""

    def __init__(self, place: Place) -> None:
        self.call: Call[Any] | None = None
        """The call that is being made."""
        self._place = place
        self._connection: apsw.Connection | None = None

    def ask(self, call: Call[T]) -> T:
        """Make a call that is no transaction."""
        self.call, call.begun = call, True
        try:
            return call.function(self._connected())
        except apsw.Error as error:
            self._failed(error)
            raise
        finally:
            self.call = None

    def run(self, call: Call[T], check: Callable[[], None] | None) -> T:
        """Make a transaction."""
        if call.is_over:
            raise crowded(f"{self._place.path}: the transaction waited in line to its deadline, and was not begun")
        self.call, call.begun = call, True
        try:
            connection = self._connected()
            if check is not None:
                check()
            result = self._transaction(connection, call)
        except apsw.InterruptError as error:
            raise _too_late("it was stopped, and is rolled back") from error
        except apsw.Error as error:
            self._failed(error)
            raise
        finally:
            self.call = None
            self._leave_nothing_open()
        if self._place.after is not None and self._connection is not None:
            self._place.after(self._connection)
        return result

    def _transaction(self, connection: apsw.Connection, call: Call[T]) -> T:
        while True:
            execute(connection, self._place.begin)
            try:
                # Nobody may have waited for the lock to its end.
                _go_on(call)
                result = call.function(connection)
                _go_on(call)
                execute(connection, "COMMIT")
                self._place.done.commits += 1
            except BaseException as error:
                if not connection.in_transaction:
                    raise
                execute(connection, "ROLLBACK")
                self._place.done.rollbacks += 1
                # What it read is old by now: no statement of it may be repeated alone.
                if isinstance(error, apsw.BusyError) and _is_snapshot(error) and not call.is_over:
                    self._place.done.restarts += 1
                    continue
                raise
            return result

    def _connected(self) -> apsw.Connection:
        if self._connection is None:
            self._connection = connect(
                self._place.path, create=not self._place.done.is_made, is_over=self._is_over, wait=self._wait
            )
            self._place.done.is_made = True
        return self._connection

    def _failed(self, error: apsw.Error) -> None:
        """Keep on the error what is known of it in this moment, and let go of a connection that may be broken."""
        number = 0 if self._connection is None else self._connection.system_errno
        fault = fault_of(error, number)
        if fault is not None:
            attach(error, fault)
        if isinstance(error, BROKEN):
            self.drop()

    def _leave_nothing_open(self) -> None:
        """Close a connection that still reads: a cursor that was not read to its end would keep the log growing without end."""
        connection = self._connection
        if connection is not None and connection.txn_state() != apsw.SQLITE_TXN_NONE:
            self.drop()

    def drop(self) -> None:
        """Close the connection; the next call opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(apsw.Error):
                connection.close(True)

    def _is_over(self) -> bool:
        return self.call is not None and self.call.is_over

    def _wait(self, attempts: int) -> bool:
        """Wait for the write lock; return whether to try again."""
        if self.call is None or self.call.is_over:
            return False
        time.sleep(min(BUSY_S_MAX, 0.0005 * 2 ** min(attempts, 6)))
        return not self.call.is_over


class ConnectionThread:
    """Transactions on one connection, one after another, each whole or not at all. For the event loop's thread."""

    def __init__(self, name: str, place: Place) -> None:
        self._place = place
        self._thread = OwnThread(name, waiting_max=WAITING_MAX)
        self._seat = Seat(place)

    @property
    def is_stuck(self) -> bool:
        """Whether a call has not ended, though it is past its deadline: it is stuck in a call of the system."""
        call = self._seat.call
        return call is not None and time.monotonic() > call.until + STUCK_S

    def start(self, call: Call[T], *, check: bool = True) -> asyncio.Future[T]:
        """Queue a transaction. Raises `RuntimeError` when too many wait."""
        return self._thread.start(partial(self._seat.run, call, self._place.check if check else None))

    def ask(self, call: Call[T]) -> asyncio.Future[T]:
        """Queue a call that is no transaction."""
        return self._thread.start(partial(self._seat.ask, call))

    async def close(self) -> None:
        """Close the connection once what is queued is done; the thread ends after that.

        Whoever uses this again does so with another thread and another connection: the one before may be stuck in a call.
        """
        seat, self._seat = self._seat, Seat(self._place)
        try:
            closing = self._thread.start(seat.drop)
        except RuntimeError:
            # Too many wait before it: the connection is closed when the thread has ended and let go of it.
            return
        finally:
            self._thread.close()
        await closing


def _is_snapshot(error: apsw.Error) -> bool:
    return getattr(error, "extendedresult", 0) == apsw.SQLITE_BUSY_SNAPSHOT


def _go_on(call: Call[Any]) -> None:
    if call.is_over:
        raise _too_late("it is rolled back")


def crowded(text: str) -> TimeoutError:
    """Return the error of a call for which there was no time in the thread: others took it."""
    error = TimeoutError(text)
    attach(error, Fault(Kind.OVERLOADED, CROWDED, text, scope=Scope.CALL, hint="ask for less at a time, in larger transactions"))
    return error


def _too_late(what: str) -> TimeoutError:
    error = TimeoutError(f"the transaction is past its deadline, or was given up: {what}")
    attach(error, Fault(Kind.TRANSIENT, TIMEOUT, str(error), scope=Scope.CALL))
    return error
