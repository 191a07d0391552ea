"""A SQLite file as a dependency: whole transactions, made in threads of its own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self, TypeVar

import apsw

from outlast import Classifiers, ConfigurationError, Dependency, Fault, HealthPolicy, Kind, Scope
from outlast.extend import Levels, attach, attached
from outlast.sqlite._connection import pragma, temporary_folder
from outlast.sqlite._faults import LOCKED, TIMEOUT, sqlite_rule
from outlast.sqlite._log_growth import LogGrowth
from outlast.sqlite._room import LowRoom, takes_anything
from outlast.sqlite._shown import ShownSqlite
from outlast.sqlite._thread import Call, ConnectionThread, Done, Place, crowded

if TYPE_CHECKING:
    import os
    import random
    from collections.abc import Callable

    from outlast import Service

T = TypeVar("T")

POLL_S: Final = 0.05
"""The time between two looks whether the file has changed: a look is a few microseconds, and 20 a second cost next to nothing."""
GRACE_S: Final = 0.5
"""The thread ends a transaction that is past its deadline by itself, within milliseconds. Past this it is stuck in a call of the
system, and nobody waits for it."""
CLOSE_S: Final = 1.0
TIMEOUT_S_MAX: Final = 3600.0
LOG_BYTES_MAX: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class SqliteSize:
    """The size of a file as its writer saw it last."""

    file_bytes: int
    log_bytes: int
    """Of the write-ahead log."""
    log_is_held: bool
    """Whether a reader that does not end keeps the log from being used again."""


class Sqlite(Dependency):
    """A SQLite file, used by any number of processes of one machine.

        db = Sqlite("/var/lib/shop/work.db")
        await db.write(lambda connection: connection.execute("INSERT INTO t VALUES (?)", (7,)))
        rows = await db.read(lambda connection: connection.execute("SELECT * FROM t").fetchall())

    It is in WAL mode, and a commit is synced to the disk before `write` returns. Each transaction is a function that is called in
    a thread of this object, one writes at a time; it may be called a second time, so all that it does must be in the transaction.
    The connection is that thread's own, and must not be kept.

    `timeout_s` bounds a transaction with its wait in line and for other processes' locks. Below `low` (1 % of the disk unless
    told; None: never) writing is refused before the disk is full. Temporary files lie beside the first file that a process
    opens. A log of more than `log_bytes_max`, which a reader keeps from being used again, is told once.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str = "",
        timeout_s: float = 10.0,
        low: Levels | Literal["by size"] | None = "by size",
        log_bytes_max: int = LOG_BYTES_MAX,
        probe_timeout_s: float = 5.0,
        policy: HealthPolicy | None = None,
        classifiers: Classifiers | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Raise `ConfigurationError` for values that cannot work. Nothing is opened."""
        if str(path) in {"", ":memory:"} or str(path).startswith("file:"):
            raise ConfigurationError(f"sqlite {path!r}: give the path of a file; what is in memory is lost with the process")
        for what, value in (("timeout_s", timeout_s), ("probe_timeout_s", probe_timeout_s)):
            if not 0 < value <= TIMEOUT_S_MAX:
                raise ConfigurationError(f"sqlite {path}: {what} must be above 0 and at most {TIMEOUT_S_MAX:g}, not {value}")
        if log_bytes_max < 1:
            raise ConfigurationError(f"sqlite {path}: log_bytes_max must be at least 1, not {log_bytes_max}")
        self.path: Final = Path(path).absolute()
        super().__init__(
            name or f"sqlite {self.path.name}",
            classifiers=(classifiers or Classifiers()).also(Classifiers([sqlite_rule])),
            policy=policy,
            rng=rng,
            probe_timeout_s=probe_timeout_s,
        )
        self.timeout_s: Final = timeout_s
        self._look_s: Final = probe_timeout_s
        self._growth: Final = LogGrowth(self.path, self.name, log_bytes_max)
        self._room: Final = None if low is None else LowRoom(self.path.parent, low if isinstance(low, Levels) else None)
        self.done: Final = Done()
        """Transactions that were made."""
        self.shown: Final = ShownSqlite(self)
        """Its figures, health and act, for `service.show`."""
        writing = Place(self.path, "BEGIN IMMEDIATE", self.done, self._check_room, self._growth.look)
        self._writer: Final = ConnectionThread(f"{self.name}: writes", writing)
        self._reader: Final = ConnectionThread(f"{self.name}: reads", Place(self.path, "BEGIN DEFERRED", self.done))

    async def __aenter__(self) -> Self:
        """Open it for a block, as a service does for its own."""
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def attach(self, service: Service) -> None:
        """Open and close it with `service`, and show it there."""
        service.needs(self)
        service.show(self.shown)

    # Transactions.

    async def write(
        self, function: Callable[[apsw.Connection], T], *, deadline_s: float | None = None, cleaning: bool = False
    ) -> T:
        """Call `function` in a transaction that may write, commit, and return its result once that is on the disk.

        What `function` raises rolls everything back, and comes through. A transaction that lost a race begins again, whole.
        Raises `Unavailable` while the file cannot be used; `TimeoutError` after `deadline_s` seconds (or `timeout_s`): then it
        is rolled back, or the disk does not answer and nobody knows. If this is cancelled, it is done or not, and nothing stays
        open. With `cleaning` it is let through while room is low, for it makes room.
        """
        async with contextlib.nullcontext() if cleaning and self._is_full() else self.use("write"):
            return await self._outcome(self._writer, Call(function, self._until(deadline_s)), check=not cleaning)

    async def read(self, function: Callable[[apsw.Connection], T], *, deadline_s: float | None = None) -> T:
        """Call `function` in a transaction that reads, and return its result: all that it sees is of one moment.

        It waits for no writer, but for other reads of this object. While room is low or the disk is full, reads go on. The rest
        is as with `write`.
        """
        async with contextlib.nullcontext() if self._is_full() else self.use("read"):
            return await self._outcome(self._reader, Call(function, self._until(deadline_s)))

    async def changed(self, seen: int | None, wait_s: float) -> int:
        """Return the version of the file as soon as it is not `seen`, or after `wait_s` seconds; with None at once.

        Each commit, by whosever connection, makes another version. Versions are to be compared for being the same, and mean
        nothing after `close`. Whoever waits costs 20 short looks a second.
        """
        until = time.monotonic() + wait_s
        while True:
            async with self.use("read"):
                version = await self._outcome(self._reader, Call(_version, self._until(None)), transaction=False)
            left = until - time.monotonic()
            if version != seen or left <= 0:
                return version
            await asyncio.sleep(min(POLL_S, left))

    def size(self) -> SqliteSize:
        """Return how large the file is. It costs one call of the system."""
        try:
            file_bytes = self.path.stat().st_size
        except OSError:
            file_bytes = 0
        return SqliteSize(file_bytes, self._growth.log_bytes, self._growth.is_held)

    # What a service calls.

    async def probe(self) -> None:
        """Prove that the file can be written: a transaction that changes nothing is committed and synced."""
        call = Call(_rewrite, self._until(self._look_s * 0.8))
        try:
            await self._started(self._writer, call)
        except apsw.BusyError as error:
            attach(error, self._locked(str(error)))
            raise

    async def close(self) -> None:
        """Close the connections. A thread that hangs is not waited for."""
        await super().close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(self._writer.close(), self._reader.close(), return_exceptions=True)

    def counts(self, exc: BaseException) -> bool:
        """Return whether an exception says something about the file: what `function` raises of its own does not."""
        return isinstance(exc, apsw.Error) or attached(exc) is not None

    # Inside.

    def _is_full(self) -> bool:
        """Return whether it is down for want of room, which keeps nobody from reading or from making room."""
        fault = self.fault
        return fault is not None and fault.kind is Kind.EXHAUSTED

    def _until(self, deadline_s: float | None) -> float:
        return time.monotonic() + (self.timeout_s if deadline_s is None else deadline_s)

    def _check_room(self) -> None:
        """Refuse if room is low. Called in the writer's thread."""
        if self._room is not None:
            self._room.check(self.name)

    async def _outcome(self, thread: ConnectionThread, call: Call[T], *, check: bool = True, transaction: bool = True) -> T:
        try:
            return await self._started(thread, call, check=check, transaction=transaction)
        except (apsw.BusyError, TimeoutError) as error:
            # Is it the file, or this call alone? Another process may have held the lock; the disk may hang.
            fault = attached(error)
            if (isinstance(error, apsw.BusyError) or (fault is not None and fault.code == TIMEOUT)) and not await self.answers(
                self._look_s
            ):
                attach(error, self._locked(str(error)) if isinstance(error, apsw.BusyError) else self._hangs(str(error)))
            raise
        except apsw.FullError as error:
            await self._find_out_what_is_full(error)
            raise

    async def _started(self, thread: ConnectionThread, call: Call[T], *, check: bool = True, transaction: bool = True) -> T:
        try:
            future = thread.start(call, check=check) if transaction else thread.ask(call)
        except RuntimeError as error:
            raise crowded(str(error)) from error
        limit = asyncio.timeout_at(asyncio.get_running_loop().time() + call.until - time.monotonic() + GRACE_S)
        try:
            async with limit:
                return await future
        except TimeoutError as error:
            if attached(error) is not None or not limit.expired():
                raise
            if not call.begun and not thread.is_stuck:
                raise crowded(f"{self.path}: the transaction waited in line to its deadline, and was not begun") from error
            text = f"{self.path} has not answered within the deadline"
            attach(error, Fault(Kind.TRANSIENT, TIMEOUT, text, scope=Scope.CALL))
            raise
        finally:
            call.given_up = True

    async def _find_out_what_is_full(self, error: apsw.FullError) -> None:
        """Say whom a full disk concerns: one call that wanted more than there is, or everybody."""
        fault = attached(error)
        call: Call[bool] = Call(lambda connection: takes_anything(self.path.parent), self._until(self._look_s))
        with contextlib.suppress(Exception):
            if fault is not None and await self._started(self._writer, call, transaction=False):
                folder = temporary_folder()
                text = f"{fault.reason}: this transaction needs more room than there is; its temporary files lie in {folder}"
                attach(error, Fault(Kind.EXHAUSTED, fault.code, text, self.name, Scope.CALL, hint=f"make room in {folder}"))

    def _locked(self, text: str) -> Fault:
        hint = "another process does not end its transaction: find it with `fuser` on the file"
        return Fault(Kind.TRANSIENT, LOCKED, f"{text}: nobody gets the write lock of {self.path}", self.name, hint=hint)

    def _hangs(self, text: str) -> Fault:
        return Fault(Kind.TRANSIENT, TIMEOUT, text, self.name, hint="look at the mount and at the kernel's log")


def _version(connection: apsw.Connection) -> int:
    return int(pragma(connection, "data_version"))


def _rewrite(connection: apsw.Connection) -> None:
    """Write the first page again as it is: the number is the user's, and stays."""
    pragma(connection, "user_version", pragma(connection, "user_version"))
