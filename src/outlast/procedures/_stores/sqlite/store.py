"""The store: each call is one transaction, in a thread of the file's."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from outlast.procedures._model import StoreEventKind as Event
from outlast.procedures._model import Sweep, Swept
from outlast.procedures._stores.clock import StoreClock
from outlast.procedures._stores.sqlite import acting, looking, recording, submitting, sweeping
from outlast.procedures._stores.sqlite.tables import bring_up
from outlast.procedures._stores.sqlite.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import apsw

    from outlast.procedures._model import (
        Counts,
        KeyOf,
        Mine,
        NewRecord,
        News,
        Pause,
        ProcedureRecord,
        ProcedureState,
        Recorded,
        RecordWrite,
        Submitted,
    )
    from outlast.sqlite import Sqlite

T = TypeVar("T")
COUNT_S_MAX: Final = 2.0


class SqliteStore:
    """`ProcedureStore` in a SQLite file, for runners of one machine. Its tables begin with `outlast_procedures`."""

    records_max: int | None = None

    def __init__(self, db: Sqlite, clock: StoreClock | None = None) -> None:
        self.dependency: Sqlite = db
        self._db = db
        self._clock = clock or StoreClock()
        self._looked_at = self._clock.now()

    async def open(self) -> None:
        """See the port."""
        await self._write(partial(bring_up, clock=self._clock, path=self._db.path))
        self._looked_at = self._clock.now()

    async def close(self) -> None:
        """See the port."""

    async def submit(self, new: Sequence[NewRecord], runner: str) -> list[Submitted]:
        """See the port."""
        return await self._write(partial(submitting.submit, new=new, runner=runner)) if new else []

    async def claim(
        self, runner: str, kinds: Sequence[str], count: int, *, oldest_first: bool = False, without: Sequence[str] = ()
    ) -> list[ProcedureRecord]:
        """See the port."""
        if count < 1 or not kinds:
            return []
        return await self._write(
            lambda tx: submitting.claim(tx, runner, kinds, count, oldest_first=oldest_first, without=without)
        )

    async def record(self, writes: Sequence[RecordWrite]) -> list[Recorded]:
        """See the port."""
        return await self._write(partial(recording.record, writes=writes)) if writes else []

    async def beat(self, runner: str, name: str, lease_s: float) -> Mapping[str, Mine]:
        """See the port."""
        return await self._write(lambda tx: submitting.beat(tx, runner, name, lease_s))

    async def leave(self, runner: str) -> None:
        """See the port."""
        await self._write(lambda tx: submitting.leave(tx, runner))

    async def find(self, ids: Sequence[str]) -> list[ProcedureRecord | None]:
        """See the port."""
        return await self._read(lambda tx: looking.find(tx, ids))

    async def find_keys(self, keys: Sequence[KeyOf]) -> list[ProcedureRecord | None]:
        """See the port."""
        return await self._read(lambda tx: looking.find_keys(tx, keys))

    async def records(
        self,
        *,
        states: Sequence[ProcedureState] = (),
        kind: str | None = None,
        key: str | None = None,
        before: str | None = None,
        count: int = 100,
    ) -> list[ProcedureRecord]:
        """See the port."""
        return await self._read(lambda tx: looking.records(tx, states, kind, key, before, count))

    async def counts(self) -> Counts:
        """See the port."""
        return await self._read(looking.counts, deadline_s=COUNT_S_MAX)

    async def cancel(self, id: str) -> ProcedureState | None:  # noqa: A002 - the port's name
        """See the port."""
        return await self._write(lambda tx: acting.cancel(tx, id))

    async def signal(self, id: str, name: str, payload_json: str) -> ProcedureState | None:  # noqa: A002 - the port's name
        """See the port."""
        return await self._write(lambda tx: acting.signal(tx, id, name, payload_json))

    async def extend(self, deadlines: Mapping[str, float | None]) -> None:
        """See the port."""
        if deadlines:
            await self._write(lambda tx: submitting.extend(tx, deadlines.items()))

    async def clear(self, kind: str = "", key: str = "") -> int:
        """See the port."""
        cleared = await self._clear(lambda of_kind, of_key, _: kind in {"", of_kind} and key in {"", of_key})
        await self._write(lambda tx: tx.event(Event.CLEARED, kind, key))
        return cleared

    async def fixed(self, source: str, fault_kind: str, code: str) -> int:
        """See the port."""
        cause = {"source": source, "kind": fault_kind, "code": code}
        cleared = await self._clear(lambda _, __, fault: fault is not None and cause.items() <= fault.items())
        await self._write(lambda tx: tx.event(Event.FIXED, text=f"{source}/{fault_kind}/{code}"))
        return cleared

    async def _clear(self, is_chosen: Callable[[str, str, dict[str, Any] | None], bool]) -> int:
        cleared, after = 0, ""
        while True:
            some, last = await self._write(partial(acting.clear_some, after=after, is_chosen=is_chosen))
            cleared += some
            if last is None:
                return cleared
            after = last

    async def pause(self, pause: Pause) -> None:
        """See the port."""
        await self._write(lambda tx: acting.pause(tx, pause))

    async def resume(self, pause: Pause) -> bool:
        """See the port."""
        return await self._write(lambda tx: acting.resume(tx, pause))

    async def pauses(self) -> list[Pause]:
        """See the port."""
        return await self._read(acting.pauses)

    async def news(self, after: int | None, wait_s: float) -> News:
        """See the port. The file is looked at 20 times a second, and read when it has changed or something becomes due."""
        until = time.monotonic() + wait_s
        while True:
            # Before it is read: what is committed in between is seen as a change.
            seen = await self._db.changed(None, 0.0)
            news, next_due_at = await self._read(partial(looking.news, after=after, looked_at=self._looked_at))
            now = self._clock.now()
            left = until - time.monotonic()
            if after is None or news.number > after or news.work or left <= 0:
                self._looked_at = now
                return news
            await self._db.changed(seen, left if next_due_at is None else max(0.0, min(left, next_due_at - now)))

    async def sweep(self, what: Sweep) -> Swept:
        """See the port."""
        return await self._write(lambda tx: sweeping.sweep(tx, what), cleaning=True)

    async def _write(self, function: Callable[[Transaction], T], *, cleaning: bool = False) -> T:
        def whole(connection: apsw.Connection) -> T:
            transaction = Transaction(connection, self._clock.now())
            result = function(transaction)
            transaction.tell()
            return result

        return await self._db.write(whole, cleaning=cleaning)

    async def _read(self, function: Callable[[Transaction], T], *, deadline_s: float | None = None) -> T:
        def whole(connection: apsw.Connection) -> T:
            return function(Transaction(connection, self._clock.now()))

        return await self._db.read(whole, deadline_s=deadline_s)
