"""Submissions, claims and what runners record, each a swap of one head."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from outlast import Fault, Kind, OutlastError, Scope
from outlast.etcd import Compare, Delete, Put
from outlast.procedures._model import FINAL, LIVE, KeyOf, ProcedureState, Recorded, Submission, Submitted
from outlast.procedures._stores import rules
from outlast.procedures._stores.etcd import _layout as layout
from outlast.procedures._stores.etcd._table import Swap, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.etcd import Op
    from outlast.procedures._model import NewRecord, ProcedureRecord, RecordWrite
    from outlast.procedures._stores.etcd._layout import Head

FULL_HINT: Final = "let finished ones be deleted sooner, clear the dead, raise records_max, or take PostgreSQL"
ROUNDS_MAX: Final = 20
AT_ONCE: Final = 50
"""Records that are deleted at once to make room for a new one."""


class Work:
    """The acts of submitters and runners."""

    def __init__(self, table: Table, records_max: int) -> None:
        self._table = table
        self._records_max = records_max
        self._room = asyncio.Lock()
        """Held by the one who makes room, for all who submit meanwhile."""

    # Submissions.

    async def submit(self, new: Sequence[NewRecord], runner: str) -> list[Submitted]:
        """Answer each in order; those of one key, and those that need locks, one after another."""
        groups: dict[KeyOf | None, list[int]] = {}
        in_order = any(each.claim and each.locks for each in new)
        for place, each in enumerate(new):
            groups.setdefault(None if in_order else KeyOf(each.kind, each.key), []).append(place)
        answers: dict[int, Submitted] = {}

        async def group(places: list[int]) -> None:
            for place in places:
                answers[place] = await self._table.again(partial(self._submit, new[place], runner))

        await self._table.each(group, groups.values())
        return [answers[place] for place in range(len(new))]

    async def _submit(self, new: NewRecord, runner: str) -> Submitted | None:
        mirror, now = self._table.mirror, self._table.clock.now()
        there = mirror.heads.get(new.id)
        if there is not None:
            return await self._seen(there, there.record, Submission.CREATED, now)
        held = mirror.head_of(KeyOf(new.kind, new.key))
        if held is not None and held.record.state in LIVE:
            return await self._seen(held, rules.living_longer(held.record, new.deadline_s, now), Submission.JOINED, now)
        if held is not None and held.record.until_at is not None and held.record.until_at > now:
            return await self._seen(held, held.record, Submission.FAILING, now)
        if held is None:
            await self._make_room()
        return await self._make(held, new, runner, now)

    async def _make(self, held: Head | None, new: NewRecord, runner: str, now: float) -> Submitted | None:
        record = rules.made(new, now) if held is None else rules.revived(held.record, new, now)
        compare: list[Compare] = []
        texts = layout.texts_of(record.id)
        then: list[Op] = []
        if held is not None:
            # A transaction may not put what it deletes: each text by itself, and the signals together.
            then += [Delete(texts + b"b"), Delete(texts + b"r"), Delete(texts + b"s/", is_prefix=True)]
            then.append(Delete(layout.signals_of(record.id), is_prefix=True))
        then.append(Put(texts + b"p", new.payload_json.encode()))
        if new.claim and new.delay_s <= 0 and not self._table.mirror.is_paused(record.of) and self._are_free(record):
            record = rules.claimed(record, runner, now)
            self._lock(record, compare, then)
        done = await self._table.swap(Swap(held, record, "", compare, then))
        if done is None:
            return None
        answer = Submission.CREATED if held is None else Submission.REVIVED
        return Submitted(answer, replace(record, read_at=now, payload_json=new.payload_json))

    async def _seen(self, held: Head, after: ProcedureRecord, answer: Submission, now: float) -> Submitted | None:
        """Answer with a record that is there, if it is still as it was."""
        change = Swap(held, None if after == held.record else after, held.body, reads=True)
        kvs = await self._table.swap(change)
        return None if kvs is None else Submitted(answer, layout.with_texts(after, kvs, now))

    async def _make_room(self) -> None:
        """Delete the oldest that have ended if there are too many records, however long they were to be kept."""
        heads = self._table.mirror.heads
        async with self._room:
            if len(heads) < self._records_max:
                return
            ended = [head for head in heads.values() if head.key.startswith(layout.ENDED)]
            ended.sort(key=lambda head: (head.record.ended_at or 0.0, head.record.id))
            for head in ended[:AT_ONCE]:
                await self._table.delete(head)
            count = len(heads)
        if count >= self._records_max:
            name = self._table.etcd.name
            text = f"{name}: {count} procedures are recorded, the limit is {self._records_max}: none was added; {FULL_HINT}"
            raise OutlastError(text, Fault(Kind.EXHAUSTED, "records full", text, name, Scope.CALL, hint=FULL_HINT))

    # Claims.

    async def claim(
        self, runner: str, kinds: Sequence[str], count: int, *, oldest_first: bool, without: Sequence[str]
    ) -> list[ProcedureRecord]:
        """Claim up to `count`, in their order."""
        await self._table.mirror.current()
        order: dict[str, int] = {}
        claimed: list[ProcedureRecord] = []
        for _ in range(ROUNDS_MAX):
            # Without a lease of its own a runner would find again what it has just claimed.
            passed = {*without, *(record.id for record in claimed)}
            heads = self._due(set(kinds), passed, count - len(claimed), oldest_first=oldest_first)
            if not heads:
                break
            for head in heads:
                order.setdefault(head.record.id, len(order))
            found = await self._table.each(lambda head: self._claim(head, runner), heads)
            claimed += [record for record in found if record is not None]
            if len(claimed) >= count:
                break
            if None in found:
                await self._table.mirror.current()
        return sorted(claimed, key=lambda record: order[record.id])

    def _due(self, kinds: set[str], without: set[str], count: int, *, oldest_first: bool) -> list[Head]:
        """Return the first that may be claimed, no two of which need one lock."""
        mirror, now = self._table.mirror, self._table.clock.now()
        due = [
            head
            for the_id in mirror.live
            if (head := mirror.heads[the_id]).record.kind in kinds
            and rules.may_begin(head.record, now, mirror.runners.keys())
            and the_id not in without
            and not mirror.is_paused(head.record.of)
        ]
        due.sort(key=lambda head: (0 if oldest_first else -head.record.priority, head.record.due_at or 0.0, head.record.id))
        chosen: list[Head] = []
        wanted: set[str] = set()
        for head in due:
            locks = head.record.locks
            if len(chosen) == count:
                break
            if not locks or (self._are_free(head.record) and wanted.isdisjoint(locks)):
                wanted.update(locks)
                chosen.append(head)
        return chosen

    async def _claim(self, head: Head, runner: str) -> ProcedureRecord | None:
        now = self._table.clock.now()
        record = rules.claimed(head.record, runner, now)
        compare: list[Compare] = []
        then: list[Op] = []
        if head.record.began_at is None:
            self._lock(record, compare, then)
        if head.record.state is ProcedureState.RUNNING:
            # Its runner may have come back since, by a lease of its own.
            compare.append(Compare.absent(layout.RUNNERS + (head.record.owner or "").encode()))
        kvs = await self._table.swap(Swap(head, record, head.body, compare, then, reads=True))
        return None if kvs is None else layout.with_texts(record, kvs, now)

    def _are_free(self, record: ProcedureRecord) -> bool:
        locks = self._table.mirror.locks
        return all(locks.get(name, record.id) == record.id for name in record.locks)

    def _lock(self, record: ProcedureRecord, compare: list[Compare], then: list[Op]) -> None:
        for name in record.locks:
            compare.append(Compare.absent(layout.LOCKS + name.encode()))
            then.append(Put(layout.LOCKS + name.encode(), record.id.encode()))

    # What runners record.

    async def record(self, writes: Sequence[RecordWrite]) -> list[Recorded]:
        """Record each; those of one record one after another."""
        groups: dict[str, list[int]] = {}
        for place, write in enumerate(writes):
            groups.setdefault(write.id, []).append(place)
        outcomes: dict[int, Recorded] = {}

        async def group(places: list[int]) -> None:
            for place in places:
                outcomes[place] = await self._record(writes[place])

        await self._table.each(group, groups.values())
        return [outcomes[place] for place in range(len(writes))]

    async def _record(self, write: RecordWrite) -> Recorded:
        if not self._holds(write):
            # The mirror may be behind the claim.
            await self._table.mirror.current()
        return await self._table.again(lambda: self._try_to_record(write))

    def _holds(self, write: RecordWrite) -> bool:
        head = self._table.mirror.heads.get(write.id)
        return head is not None and head.record.state is ProcedureState.RUNNING and head.record.token == write.token

    async def _try_to_record(self, write: RecordWrite) -> Recorded | None:
        table = self._table
        head = table.mirror.heads.get(write.id)
        if head is None or not self._holds(write):
            return Recorded.LATE
        body = layout.digest(write.body_json)
        texts = layout.texts_of(write.id)
        then: list[Op] = []
        left = dict(table.mirror.signals.get(write.id, {}))
        if body != head.body:
            then.append(Put(texts + b"b", write.body_json.encode()))
            for key in _oldest(left, write.took_signals):
                del left[key]
                then += [Delete(key), Delete(texts + b"s/" + key.rpartition(b"/")[2])]
        record = rules.written(head.record, write, table.clock.now(), {name for _, name in left.values()})
        if record.state in FINAL:
            then += [Delete(layout.LOCKS + name.encode()) for name in record.locks]
            if write.result_json is not None:
                then.append(Put(texts + b"r", write.result_json.encode()))
        done = await table.swap(Swap(head, record, body, then=then))
        return None if done is None else Recorded.WRITTEN


def _oldest(signals: dict[bytes, tuple[int, str]], names: Sequence[str]) -> list[bytes]:
    """Return the keys of the oldest signals of these names."""
    taken: list[bytes] = []
    for name in names:
        of_name = (key for key, (_, each) in signals.items() if each == name and key not in taken)
        oldest = min(of_name, key=lambda key: (signals[key][0], key), default=None)
        if oldest is not None:
            taken.append(oldest)
    return taken
