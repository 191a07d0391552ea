"""The store of procedures in PostgreSQL. `outlast.procedures._stores.port` says what it promises."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, TypeVar

from outlast.procedures._model import (
    Counts,
    KeyOf,
    Mine,
    News,
    Pause,
    ProcedureRecord,
    ProcedureState,
    Recorded,
    RecordWrite,
    StoreEvent,
    StoreEventKind,
    Swept,
)
from outlast.procedures._stores.bounds import PAUSES_MAX, SIGNALS_MAX, pauses_full, signals_full
from outlast.procedures._stores.postgres import _claiming as claiming
from outlast.procedures._stores.postgres import _statements as statements
from outlast.procedures._stores.postgres._careful import AGAIN, TRIES, Careful
from outlast.procedures._stores.postgres._claims import claim, claim_these, sweep_up
from outlast.procedures._stores.postgres._listener import Listener
from outlast.procedures._stores.postgres._recording import record
from outlast.procedures._stores.postgres._rows import record_of
from outlast.procedures._stores.postgres._statements import Statements
from outlast.procedures._stores.postgres._submitting import submit
from outlast.procedures._stores.postgres._tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from typing import LiteralString

    from outlast.postgres import Connection, Postgres
    from outlast.procedures._model import NewRecord, Submitted, Sweep

T = TypeVar("T")
Rows = list[tuple[Any, ...]]
COUNT_S_MAX: Final = 2.0
CLEAR_BATCH: Final = 1_000
LOOK_S: Final = 1.0
"""The time from one look for what has become due to the next, and between two readings of the news while nobody listens."""
AFTER_S: Final = 0.001
"""A look comes so long after the time that it is for: then it has come on the server as well."""
LISTEN_S_MAX: Final = 2.0
"""The wait for the first session that listens, by whoever asks for the newest number."""
WORK_BITS: Final = 32
"""A number of news is that of the newest event, and below it the count of work that this process has heard of."""


class PostgresStore:
    """Records of procedures in tables of `schema`, beside those of other systems."""

    records_max: int | None = None

    def __init__(self, db: Postgres, *, schema: str = "outlast") -> None:
        """Nothing is dialled before `open`."""
        self.dependency = db
        self._db = db
        self._said = Statements(schema)
        self._careful = Careful(db)
        self._listener = Listener(db, self._said)
        self._looked_at: float | None = None
        """The server's time of the last look for what has become due."""
        self._look_at = float("-inf")
        """The time of the next look, on the event loop's clock."""

    async def open(self) -> None:
        async with self._db.connection() as conn:
            await TABLES.migrate(conn, self._said.schema)

    async def close(self) -> None:
        await self._listener.close()

    # Work.

    async def submit(self, new: Sequence[NewRecord], runner: str) -> list[Submitted]:
        if not new:
            return []
        answers = await self._transaction(lambda conn: submit(conn, self._said, new, runner))
        self._due_in(each.delay_s for each in new)
        return answers

    async def claim(
        self, runner: str, kinds: Sequence[str], count: int, *, oldest_first: bool = False, without: Sequence[str] = ()
    ) -> list[ProcedureRecord]:
        if count < 1 or not kinds:
            return []
        values = {"runner": runner, "kinds": list(kinds), "count": count, "oldest": oldest_first}
        values["without"] = [*without, *self._careful.left_out]
        try:
            return await self._transaction(lambda conn: claim(conn, self._said, values))
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is classified
            self._careful.fault_of_row(exc)
        return await self._claim_each(values)

    async def _claim_each(self, values: dict[str, Any]) -> list[ProcedureRecord]:
        picked = await self._rows(claiming.CLAIM.pick, {**values, "window": values["count"] + claiming.SPARE})
        claimed: list[ProcedureRecord] = []

        async def one(the_id: str) -> None:
            claimed.extend(await self._transaction(lambda conn: claim_these(conn, self._said, values["runner"], [the_id])))

        await self._careful.each([row[0] for row in picked], "claimed", one)
        return claimed

    async def record(self, writes: Sequence[RecordWrite]) -> list[Recorded]:
        if not writes:
            return []
        outcomes = await self._transaction(lambda conn: record(conn, self._said, writes))
        self._due_in(write.due_s for write in writes if write.state in {"queued", "waiting"})
        return outcomes

    async def beat(self, runner: str, name: str, lease_s: float) -> Mapping[str, Mine]:
        rows = await self._rows(statements.BEAT, {"runner": runner, "name": name, "lease_s": float(lease_s)})
        return {row[0]: Mine(*row[1:]) for row in rows}

    async def leave(self, runner: str) -> None:
        async with self._db.connection() as conn:
            await conn.execute(self._said(statements.LEAVE), {"runner": runner})
            await conn.execute(self._said(statements.WORK))

    # Looking.

    async def find(self, ids: Sequence[str]) -> list[ProcedureRecord | None]:
        if not ids:
            return []
        found = {row[0]: row for row in await self._rows(statements.FIND, {"id": list(ids)})}
        return [record_of(found[the_id]) if the_id in found else None for the_id in ids]

    async def find_keys(self, keys: Sequence[KeyOf]) -> list[ProcedureRecord | None]:
        if not keys:
            return []
        values = {"kind": [of.kind for of in keys], "key": [of.key for of in keys]}
        records = [record_of(row) for row in await self._rows(statements.FIND_KEYS, values)]
        found = {each.of: each for each in records}
        return [found.get(KeyOf(*of)) for of in keys]

    async def records(
        self,
        *,
        states: Sequence[ProcedureState] = (),
        kind: str | None = None,
        key: str | None = None,
        before: str | None = None,
        count: int = 100,
    ) -> list[ProcedureRecord]:
        values = {"states": [state.value for state in states] or None, "kind": kind, "key": key, "before": before, "count": count}
        return [record_of(row) for row in await self._rows(statements.LIST, values)]

    async def counts(self) -> Counts:
        async with self._db.connection() as conn:
            with conn.deadline(COUNT_S_MAX):
                rows = await (await conn.execute(self._said(statements.COUNTS))).fetchall()
        oldest_s = max((row[3] for row in rows if row[3] is not None), default=0.0)
        return Counts({(kind, state): count for kind, state, count, _ in rows}, oldest_s)

    # What people and other processes ask for.

    async def cancel(self, id: str) -> ProcedureState | None:  # noqa: A002 - the name it has everywhere
        async def work(conn: Connection) -> ProcedureState | None:
            rows = await self._on(conn, statements.CANCEL, {"id": id})
            if not rows:
                return None
            [(state, changed, due)] = rows
            if due:
                await conn.execute(self._said(statements.WORK))
            if changed:
                await self._tell(conn, StoreEventKind.CANCEL, text=id)
            return ProcedureState(state)

        return await self._transaction(work)

    async def signal(self, id: str, name: str, payload_json: str) -> ProcedureState | None:  # noqa: A002
        values = {"id": id, "name": name, "payload": payload_json, "most": SIGNALS_MAX}

        async def work(conn: Connection) -> tuple[ProcedureState | None, bool]:
            rows = await self._on(conn, statements.SIGNAL, values)
            if not rows:
                return None, True
            [(state, kept, due)] = rows
            if due:
                await conn.execute(self._said(statements.WORK))
            if kept:
                await self._tell(conn, StoreEventKind.SIGNAL, text=id)
            return ProcedureState(state), kept

        state, kept = await self._transaction(work)
        if not kept:
            raise signals_full(id, name)
        return state

    async def extend(self, deadlines: Mapping[str, float | None]) -> None:
        if deadlines:
            await self._transaction(lambda conn: self._extend(conn, deadlines))

    async def _extend(self, conn: Connection, deadlines: Mapping[str, float | None]) -> None:
        await conn.execute(self._said(statements.EXTEND), {"id": list(deadlines), "seconds": list(deadlines.values())})

    async def clear(self, kind: str = "", key: str = "") -> int:
        return await self._clear(kind, key, None, StoreEventKind.CLEARED, "")

    async def fixed(self, source: str, fault_kind: str, code: str) -> int:
        cause = f"{source}/{fault_kind}/{code}"
        return await self._clear("", "", cause, StoreEventKind.FIXED, cause)

    async def _clear(self, kind: str, key: str, cause: str | None, what: StoreEventKind, text: str) -> int:
        """Clear in batches, so that none holds rows for long; the event comes with the last of them."""
        values = {"kind": kind, "key": key, "cause": cause, "count": CLEAR_BATCH}

        async def work(conn: Connection) -> int:
            count = len(await self._on(conn, statements.CLEAR, values))
            if count < CLEAR_BATCH:
                await self._tell(conn, what, kind, key, text)
            return count

        total = 0
        while True:
            count = await self._transaction(work)
            total += count
            if count < CLEAR_BATCH:
                return total

    async def pause(self, pause: Pause) -> None:
        values = {"kind": pause.kind, "key": pause.key, "most": PAUSES_MAX}

        async def work(conn: Connection) -> bool:
            if await self._on(conn, statements.PAUSE, values):
                await self._tell(conn, StoreEventKind.PAUSED, pause.kind, pause.key)
                return True
            return bool(await self._on(conn, statements.IS_PAUSED, values))

        if not await self._transaction(work):
            raise pauses_full(pause)

    async def resume(self, pause: Pause) -> bool:
        async def work(conn: Connection) -> bool:
            if not await self._on(conn, statements.RESUME, {"kind": pause.kind, "key": pause.key}):
                return False
            await conn.execute(self._said(statements.WORK))
            await self._tell(conn, StoreEventKind.RESUMED, pause.kind, pause.key)
            return True

        return await self._transaction(work)

    async def pauses(self) -> list[Pause]:
        return [Pause(*row) for row in await self._rows(statements.PAUSES, {})]

    # News, and cleaning up.

    async def news(self, after: int | None, wait_s: float) -> News:
        listener = self._listener
        listener.begin()
        if after is None:
            if listener.newest is None:
                await listener.wait(LISTEN_S_MAX)
            await self._look()
            works = listener.works
            [(number,)] = await self._rows(statements.NEWEST, {})
            return News(_number(number, works))
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_s
        while True:
            await self._look()
            news = await self._read(after)
            now = loop.time()
            if news.events or news.lost or news.work or now >= end:
                return news
            await listener.wait(max(0.0, min(end, self._look_at) - now))

    async def _look(self) -> None:
        """Note that there is work, if something has become due by its time since the last look."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._look_at:
            return
        [(now, due, next_s)] = await self._rows(statements.DUE, {"since": self._looked_at})
        if due:
            self._listener.works += 1
        self._looked_at = now
        self._look_at = loop.time() + min(LOOK_S, LOOK_S if next_s is None else next_s + AFTER_S)

    def _due_in(self, seconds: Iterable[float | None]) -> None:
        """Look again when the first of these has passed: what others make due is found by the next look."""
        soonest_s = min((each for each in seconds if each), default=LOOK_S)
        self._look_at = min(self._look_at, asyncio.get_running_loop().time() + soonest_s + AFTER_S)

    async def _read(self, after: int) -> News:
        """Return what there is now: without a statement, if it was heard that there is nothing."""
        listener = self._listener
        event, seen = after >> WORK_BITS, after & ((1 << WORK_BITS) - 1)
        works, newest = listener.works, listener.newest
        work = works & ((1 << WORK_BITS) - 1) != seen
        if newest == event:
            return News(_number(event, works) if work else after, work=work)
        rows = await self._rows(statements.NEWS, {"after": event})
        newest, oldest = rows[0][:2]
        events = tuple(StoreEvent(_number(row[2], works), StoreEventKind(row[3]), *row[4:]) for row in rows if row[2] is not None)
        lost = event > newest or (newest > event and (oldest is None or oldest > event + 1))
        if lost or not events:
            return News(_number(newest, works) if lost or work else after, work=work or lost, lost=lost)
        return News(events[-1].number, events, work=work)

    async def sweep(self, what: Sweep) -> Swept:
        return await sweep_up(self._rows, self._careful, what)

    # Ways in.

    async def _transaction(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do it on one connection, all or nothing; again if the server broke a deadlock by ending this one."""
        for _ in range(TRIES - 1):
            with contextlib.suppress(*AGAIN):
                async with self._db.connection() as conn:
                    return await work(conn)
        async with self._db.connection() as conn:
            return await work(conn)

    async def _rows(self, statement: LiteralString, values: Mapping[str, Any]) -> Rows:
        async with self._db.connection() as conn:
            return await self._on(conn, statement, values)

    async def _on(self, conn: Connection, statement: LiteralString, values: Mapping[str, Any]) -> Rows:
        return await (await conn.execute(self._said(statement), values)).fetchall()

    async def _tell(self, conn: Connection, what: StoreEventKind, kind: str = "", key: str = "", text: str = "") -> None:
        values = {"what": what.value, "kind": kind, "key": key, "text": text, "kept": statements.EVENTS_KEPT}
        await conn.execute(self._said(statements.EVENT), values)


def _number(event: int, works: int) -> int:
    return event << WORK_BITS | works & ((1 << WORK_BITS) - 1)
