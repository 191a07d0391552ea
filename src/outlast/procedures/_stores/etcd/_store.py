"""The store of procedures in etcd. `outlast.procedures._stores.port` says what it promises.

Each process keeps a mirror of the heads of all records, by a watch. What it decides by the mirror it does by a compare-and-swap:
who was slower is told so, looks again and decides again. Records are bounded in number, and small.

Out of its quota (NOSPACE) etcd takes no new values: what would write is refused from memory, with the hint that says what to do;
looks, leases and deletions go on, and all goes on by itself once room was made and the alarm was disarmed.
"""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Final

from outlast import ConfigurationError
from outlast.etcd import Compare, Delete, LeaseLostError, Put
from outlast.procedures._model import (
    LIVE,
    Counts,
    KeyOf,
    Mine,
    News,
    Pause,
    ProcedureRecord,
    ProcedureState,
    Recorded,
    RecordWrite,
    StoreEventKind,
    Swept,
)
from outlast.procedures._stores import rules
from outlast.procedures._stores.bounds import PAUSES_MAX, SIGNALS_MAX, pauses_full, signals_full
from outlast.procedures._stores.clock import StoreClock
from outlast.procedures._stores.etcd import _layout as layout
from outlast.procedures._stores.etcd._sweep import Sweeper
from outlast.procedures._stores.etcd._table import Swap, Table
from outlast.procedures._stores.etcd._work import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from outlast.etcd import Etcd, KeyValue, Op
    from outlast.procedures._model import NewRecord, Submitted, Sweep
    from outlast.procedures._stores.etcd._layout import Head

RECORDS_MAX: Final = 10_000
RECORDS_LIMIT: Final = 15_000
"""More heads, with events and locks, would not be read at once (`range_keys_max` of `Etcd`)."""
LOOK_S: Final = 1.0
"""The time from one look for what has become due to the next, while somebody waits for news."""


class EtcdStore:
    """Records of procedures below the prefix of `etcd`, at most `records_max` of all states.

    History that is older than five minutes is compacted by `sweep`, as what is deleted would take room without end;
    `compact=False` leaves that to etcd (`--auto-compaction-retention`), for a cluster whose other users read history.
    """

    def __init__(
        self, etcd: Etcd, *, records_max: int = RECORDS_MAX, compact: bool = True, clock: StoreClock | None = None
    ) -> None:
        """Nothing is dialled before `open`. Raises `ConfigurationError` for a `records_max` that cannot work."""
        if not 1 <= records_max <= RECORDS_LIMIT:
            msg = f"records_max is from 1 to {RECORDS_LIMIT}, not {records_max}"
            raise ConfigurationError(msg)
        self.dependency = etcd
        self.records_max: int | None = records_max
        self._etcd = etcd
        self._clock = clock or StoreClock()
        self._table = Table(etcd, self._clock)
        self._mirror = self._table.mirror
        self._work = Work(self._table, records_max)
        self._sweeper = Sweeper(self._table, records_max, compact=compact)
        self._looked_at: float | None = None
        """The store's time up to which what became due by its time was told."""

    async def open(self) -> None:
        self._mirror.begin()
        await self._mirror.current()
        live = [await self._time_of(kv) for kv in list(self._mirror.runners.values())]
        kept = self._mirror.clock
        self._clock.adopt(layout.clock_of(kept), [at for at in live if at is not None])
        if not self._etcd.is_full:
            await self._table.tell([], [layout.clock_put(self._clock.kept())])

    async def _time_of(self, runner: KeyValue) -> float | None:
        """Return the present time of a runner: that of its last heartbeat, and what has gone from its lease since."""
        fields = json.loads(runner.value)
        if self._clock.boot and fields["boot"] == self._clock.boot:
            return None
        try:
            left_s = await self._etcd.lease_ttl(runner.lease)
        except LeaseLostError:
            return None
        # In whole seconds: rather a second behind, which the next heartbeat puts right, than ahead, which all would follow.
        return float(fields["at"]) + max(0.0, float(fields["ttl"]) - left_s - 1.0)

    async def close(self) -> None:
        await self._table.close()

    # Work.

    async def submit(self, new: Sequence[NewRecord], runner: str) -> list[Submitted]:
        if not self._mirror.is_loaded:
            await self._mirror.current()
        return await self._work.submit(new, runner)

    async def claim(
        self, runner: str, kinds: Sequence[str], count: int, *, oldest_first: bool = False, without: Sequence[str] = ()
    ) -> list[ProcedureRecord]:
        if count < 1 or not kinds:
            return []
        return await self._work.claim(runner, kinds, count, oldest_first=oldest_first, without=without)

    async def record(self, writes: Sequence[RecordWrite]) -> list[Recorded]:
        return await self._work.record(writes)

    async def beat(self, runner: str, name: str, lease_s: float) -> Mapping[str, Mine]:
        await self._mirror.current()
        key, ttl_s = layout.RUNNERS + runner.encode(), max(1, math.ceil(lease_s))
        held = self._mirror.runners.get(runner)
        lease = held.lease if held is not None else 0
        if lease:
            try:
                await self._etcd.lease_keepalive(lease)
            except LeaseLostError:
                lease = 0
        if not self._etcd.is_full:
            lease = lease or await self._etcd.lease_grant(ttl_s)
            value = {"name": name, "at": round(self._clock.now(), 3), "boot": self._clock.boot, "ttl": ttl_s}
            puts: list[Op] = [Put(key, json.dumps(value).encode(), lease), layout.clock_put(self._clock.kept())]
            await self._table.tell([], puts)
        elif not lease:
            raise self._etcd.unavailable()
        mine = (self._mirror.heads[the_id].record for the_id in self._mirror.live)
        return {
            record.id: Mine(record.token, record.cancel_requested, len(self._mirror.signals.get(record.id, ())))
            for record in mine
            if record.state is ProcedureState.RUNNING and record.owner == runner
        }

    async def leave(self, runner: str) -> None:
        await self._mirror.current()
        held = self._mirror.runners.get(runner)
        if held is None:
            return
        if held.lease:
            await self._etcd.lease_revoke(held.lease)
        # With the fence, so that whoever reads next has seen it.
        await self._table.tell([], [Delete(layout.RUNNERS + runner.encode()), *self._fence()])

    def _fence(self) -> list[Op]:
        return [] if self._etcd.is_full else [layout.clock_put(self._clock.kept())]

    # Looking.

    async def find(self, ids: Sequence[str]) -> list[ProcedureRecord | None]:
        return await self._found([self._mirror.heads.get(the_id) for the_id in ids] if await self._looks(ids) else [])

    async def find_keys(self, keys: Sequence[KeyOf]) -> list[ProcedureRecord | None]:
        if not await self._looks(keys):
            return []
        last: dict[KeyOf, Head] = {}
        wanted = {KeyOf(*of) for of in keys} - self._mirror.keys.keys()
        for head in self._mirror.heads.values() if wanted else ():
            of = head.record.of
            if of in wanted and (of not in last or _end(head) > _end(last[of])):
                last[of] = head
        return await self._found([self._mirror.head_of(of) or last.get(of) for of in map(KeyOf._make, keys)])

    async def records(
        self,
        *,
        states: Sequence[ProcedureState] = (),
        kind: str | None = None,
        key: str | None = None,
        before: str | None = None,
        count: int = 100,
    ) -> list[ProcedureRecord]:
        await self._mirror.current()
        chosen = [
            head
            for the_id, head in self._mirror.heads.items()
            if (before is None or the_id < before)
            and (not states or head.record.state in states)
            and (kind is None or head.record.kind == kind)
            and (key is None or head.record.key == key)
        ]
        chosen.sort(key=lambda head: head.record.id, reverse=True)
        return await self._table.whole(chosen[:count])

    async def counts(self) -> Counts:
        await self._mirror.current()
        now = self._clock.now()
        records = [head.record for head in self._mirror.heads.values()]
        due = [
            record.due_at
            for record in records
            if record.state in LIVE and record.state is not ProcedureState.RUNNING and record.due_at is not None
        ]
        return Counts(dict(Counter((each.kind, each.state.value) for each in records)), max(0.0, now - min(due, default=now)))

    async def _looks(self, asked: Sequence[object]) -> bool:
        if asked:
            await self._mirror.current()
        return bool(asked)

    async def _found(self, heads: list[Head | None]) -> list[ProcedureRecord | None]:
        whole = await self._table.whole([head for head in heads if head is not None])
        by_id = {record.id: record for record in whole}
        return [None if head is None else by_id[head.record.id] for head in heads]

    # What people and other processes ask for.

    async def cancel(self, id: str) -> ProcedureState | None:  # noqa: A002 - the name it has everywhere
        async def attempt() -> tuple[ProcedureState | None] | None:
            head = self._mirror.heads.get(id)
            if head is None or head.record.state not in LIVE or head.record.cancel_requested:
                return (None if head is None else head.record.state,)
            record = rules.cancelled(head.record, self._clock.now())
            then = self._table.event(StoreEventKind.CANCEL, text=id)
            return None if await self._table.swap(Swap(head, record, head.body, then=then)) is None else (record.state,)

        await self._mirror.current()
        return (await self._table.again(attempt))[0]

    async def signal(self, id: str, name: str, payload_json: str) -> ProcedureState | None:  # noqa: A002
        async def attempt() -> tuple[ProcedureState | None] | None:
            head = self._mirror.heads.get(id)
            if head is None or head.record.state not in LIVE:
                return (None,)
            if len(self._mirror.signals.get(id, ())) >= SIGNALS_MAX:
                raise signals_full(id, name)
            mark = uuid.uuid4().hex.encode()
            then: list[Op] = [
                Put(layout.signals_of(id) + mark, name.encode()),
                Put(layout.texts_of(id) + b"s/" + mark, layout.signal_value(name, payload_json)),
                *self._table.event(StoreEventKind.SIGNAL, text=id),
            ]
            # The head is written also when it stays the same: who records beside this signal then sees it.
            record = rules.signalled(head.record, name, self._clock.now())
            return None if await self._table.swap(Swap(head, record, head.body, then=then)) is None else (record.state,)

        await self._mirror.current()
        return (await self._table.again(attempt))[0]

    async def extend(self, deadlines: Mapping[str, float | None]) -> None:
        async def one(item: tuple[str, float | None]) -> bool:
            the_id, seconds = item

            async def attempt() -> bool | None:
                head = self._mirror.heads.get(the_id)
                if head is None or head.record.state not in LIVE:
                    return True
                record = rules.living_longer(head.record, seconds, self._clock.now())
                return record == head.record or await self._table.swap(Swap(head, record, head.body)) is not None or None

            return await self._table.again(attempt)

        if deadlines:
            await self._mirror.current()
            await self._table.each(one, deadlines.items())

    async def clear(self, kind: str = "", key: str = "") -> int:
        cleared = await self._clear(lambda dead: kind in {"", dead.kind} and key in {"", dead.key})
        await self._table.tell([], self._table.event(StoreEventKind.CLEARED, kind, key))
        return cleared

    async def fixed(self, source: str, fault_kind: str, code: str) -> int:
        cause = {"source": source, "kind": fault_kind, "code": code}
        cleared = await self._clear(lambda dead: rules.is_of_cause(dead.last_fault, cause))
        await self._table.tell([], self._table.event(StoreEventKind.FIXED, text=f"{source}/{fault_kind}/{code}"))
        return cleared

    async def _clear(self, chosen: Callable[[ProcedureRecord], bool]) -> int:
        await self._mirror.current()

        async def one(the_id: str) -> bool:
            async def attempt() -> bool | None:
                head = self._mirror.heads.get(the_id)
                if head is None or not _has_failed(head.record) or not chosen(head.record):
                    return False
                record = rules.cleared(head.record, self._clock.now())
                return True if await self._table.swap(Swap(head, record, head.body)) is not None else None

            return await self._table.again(attempt)

        dead = [the_id for the_id, head in self._mirror.heads.items() if _has_failed(head.record) and chosen(head.record)]
        return sum(await self._table.each(one, dead))

    async def pause(self, pause: Pause) -> None:
        await self._mirror.current()
        if pause in self._mirror.pauses:
            return
        if len(self._mirror.pauses) >= PAUSES_MAX:
            raise pauses_full(pause)
        key = _pause_key(pause)
        await self._table.tell(
            [Compare.absent(key)], [Put(key, b""), *self._table.event(StoreEventKind.PAUSED, pause.kind, pause.key)]
        )

    async def resume(self, pause: Pause) -> bool:
        await self._mirror.current()
        key = _pause_key(pause)
        then = [Delete(key), *self._table.event(StoreEventKind.RESUMED, pause.kind, pause.key)]
        return pause in self._mirror.pauses and await self._table.tell([Compare.exists(key)], then)

    async def pauses(self) -> list[Pause]:
        await self._mirror.current()
        return list(self._mirror.pauses)

    # News, and cleaning up.

    async def news(self, after: int | None, wait_s: float) -> News:
        mirror, loop = self._mirror, asyncio.get_running_loop()
        await mirror.current()
        if after is None:
            self._look()
            return News(mirror.revision)
        end = loop.time() + wait_s
        while True:
            due = self._look()
            newer = sorted((one for one in mirror.events.values() if one.number > after), key=lambda one: one.number)
            lost = after < mirror.forgotten_to
            work = due or lost or mirror.work_at > after
            if newer or work:
                # A change of one's own may be ahead of the watch.
                seen = max(mirror.revision, mirror.work_at, after, *(event.number for event in newer))
                return News(
                    seen if not newer or mirror.revision >= newer[-1].number else newer[-1].number, tuple(newer), lost, work
                )
            left_s = end - loop.time()
            if left_s <= 0:
                return News(after)
            await mirror.wait(min(left_s, self._next_s()))
            if not self._etcd.passable and not self._etcd.is_full:
                raise self._etcd.unavailable()

    def _look(self) -> bool:
        """Return whether something has become due by its time since the last look."""
        now, since = self._clock.now(), self._looked_at
        self._looked_at = now
        return since is not None and any(since < due_at <= now for due_at in self._due_times())

    def _next_s(self) -> float:
        now = self._clock.now()
        return min([LOOK_S, *(due_at - now for due_at in self._due_times() if due_at > now)])

    def _due_times(self) -> list[float]:
        records = (self._mirror.heads[the_id].record for the_id in self._mirror.live)
        return [one.due_at for one in records if one.due_at is not None and one.state is not ProcedureState.RUNNING]

    async def sweep(self, what: Sweep) -> Swept:
        await self._mirror.current()
        return await self._sweeper.sweep(what)


def _pause_key(pause: Pause) -> bytes:
    return layout.PAUSES + layout.pair(pause.kind, pause.key)


def _end(head: Head) -> tuple[float, str]:
    return head.record.ended_at or 0.0, head.record.id


def _has_failed(record: ProcedureRecord) -> bool:
    return record.state is ProcedureState.DEAD and record.failures > 0
