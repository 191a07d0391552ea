"""One way in for all changes: compare-and-swap of one head, with what belongs to it, in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from outlast import Fault, Kind, OutlastError, Scope
from outlast.etcd import CompactedError, Compare, Delete, Get, Put, RangeTooLargeError
from outlast.procedures._stores.etcd import _layout as layout
from outlast.procedures._stores.etcd._flights import Call, Flights
from outlast.procedures._stores.etcd._mirror import Mirror

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from outlast.etcd import Etcd, KeyValue, Op
    from outlast.procedures._model import ProcedureRecord, StoreEventKind
    from outlast.procedures._stores.clock import StoreClock
    from outlast.procedures._stores.etcd._layout import Head

A = TypeVar("A")
T = TypeVar("T")
ROUNDS_MAX: Final = 100
"""A change that others were faster than as often as that is given up."""
AT_ONCE: Final = 64
BULK: Final = 8
"""Above so many records their texts are read together with those of all others."""
TEXTS_MAX: Final = 210
EVENTS_KEPT: Final = 1_200


@dataclass(slots=True)
class Swap:
    """A change of one head, to be done if it is as it was read."""

    before: Head | None
    """None: no record has the key."""
    after: ProcedureRecord | None
    """None: nothing is changed, and the texts are read if it is still as it was."""
    body: str = ""
    """The digest of the body after it."""
    compare: list[Compare] = field(default_factory=list)
    then: list[Op] = field(default_factory=list)
    reads: bool = False
    """Whether its texts are read as well."""


class Table:
    """The mirror, the clock, and swaps."""

    def __init__(self, etcd: Etcd, clock: StoreClock) -> None:
        """Nothing is dialled yet."""
        self.etcd = etcd
        self.clock = clock
        self.mirror = Mirror(etcd, clock.now, self._heard)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._flights = Flights(etcd)

    async def close(self) -> None:
        """Let go of the mirror, when what is under way has come to an end."""
        await self._flights.close()
        await self.mirror.close()

    def _heard(self, kv: KeyValue) -> None:
        """Follow the clock of another machine's runner."""
        if kv.key.startswith(layout.RUNNERS):
            self.clock.follow(_at(kv))

    async def again(self, attempt: Callable[[], Awaitable[T | None]]) -> T:
        """Try until nobody else was faster; between two tries the mirror comes to what they did."""
        for _ in range(ROUNDS_MAX):
            done = await attempt()
            if done is not None:
                return done
            await self.mirror.current()
        text = f"{self.etcd.name}: {ROUNDS_MAX} times others changed the same procedure first; try again"
        raise OutlastError(text, Fault(Kind.CONTENDED, "swap", text, self.etcd.name, Scope.CALL))

    async def each(self, do: Callable[[A], Awaitable[T]], items: Iterable[A]) -> list[T]:
        """Do it with all, a few at a time, and wait for all; then raise what the first that failed has raised."""

        async def one(item: A) -> T:
            async with self._turns:
                return await do(item)

        results = await asyncio.gather(*map(one, items), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if not isinstance(result, BaseException)]

    async def swap(self, change: Swap) -> Sequence[KeyValue] | None:
        """Do it; return the texts that were read. None: others were faster, and nothing was changed."""
        mark = uuid.uuid4().hex
        before, after = change.before, change.after
        compare, then = list(change.compare), list(change.then)
        if before is not None:
            compare.append(Compare.mod_revision(before.key, before.revision))
        key = b""
        if after is not None:
            key = layout.key_of(after)
            then.append(Put(key, layout.encode(after, change.body, mark)))
            if before is None:
                compare += [Compare.absent(key), Compare.absent(layout.ENDED + after.id.encode())]
            elif before.key != key:
                then.append(Delete(before.key))
        reads = _read_of(change)
        done = await self._flights.send(Call(compare, then, key, mark, reads))
        if done is None:
            return None
        self._note(then, done.revision)
        if reads is None:
            return ()
        return done.texts if done.texts is not None else (await self.etcd.range(reads.key)).kvs

    def _note(self, ops: Iterable[Op], revision: int) -> None:
        for op in ops:
            if isinstance(op, Put):
                self.mirror.note(op.key, op.value, revision, lease=op.lease)
            elif isinstance(op, Delete):
                self._forget(op, revision)

    def _forget(self, op: Delete, revision: int) -> None:
        if not op.key.startswith(layout.MIRRORED):
            return
        gone = [op.key]
        if op.is_prefix:
            gone = list(self.mirror.signals.get(op.key[len(layout.SIGNALS) : -1].decode(), ()))
        for key in gone:
            self.mirror.note(key, None, revision, lease=0)

    async def texts(self, the_id: str) -> Sequence[KeyValue]:
        """Return the texts of a record as they are now."""
        return (await self.etcd.range(layout.texts_of(the_id))).kvs

    async def whole(self, heads: Sequence[Head]) -> list[ProcedureRecord]:
        """Return records with their texts, as they are in the mirror."""
        if len(heads) > BULK:
            try:
                found = await self.etcd.range(layout.TEXTS)
            except RangeTooLargeError:
                pass
            else:
                by_id: dict[bytes, list[KeyValue]] = {}
                for kv in found.kvs:
                    by_id.setdefault(kv.key.split(b"/", 2)[1], []).append(kv)
                return [
                    layout.with_texts(head.record, by_id.get(head.record.id.encode(), ()), self.clock.now()) for head in heads
                ]
        every = await self.each(self.texts, [head.record.id for head in heads])
        return [layout.with_texts(head.record, kvs, self.clock.now()) for head, kvs in zip(heads, every, strict=True)]

    def event(self, what: StoreEventKind, kind: str = "", key: str = "", text: str = "") -> list[Op]:
        """Return what makes an event, and forgets the oldest."""
        ops: list[Op] = [Put(layout.EVENTS + uuid.uuid4().hex.encode(), layout.event_value(what.value, kind, key, text))]
        over = len(self.mirror.events) - EVENTS_KEPT
        if over > 0:
            oldest = sorted(self.mirror.events.items(), key=lambda item: item[1].number)[: min(over, 20)]
            ops += [Delete(name) for name, _ in oldest]
            ops.append(Put(layout.FORGOTTEN, str(oldest[-1][1].number).encode()))
        return ops

    async def delete(self, head: Head) -> bool:
        """Delete a record that has ended; return False if it is no longer as it was."""
        the_id = head.record.id
        prefixes = [Delete(prefix, is_prefix=True) for prefix in (layout.texts_of(the_id), layout.signals_of(the_id))]
        return await self.tell([Compare.mod_revision(head.key, head.revision)], [Delete(head.key), *prefixes])

    async def compact(self, revision: int) -> None:
        """Forget history up to a revision. Another process may have done so."""
        with contextlib.suppress(CompactedError):
            await self.etcd.compact(revision)

    async def tell(self, compare: list[Compare], then: list[Op]) -> bool:
        """Do what has no head: an event, a pause. False: what was compared is otherwise."""
        if any(isinstance(op, Put) for op in then):
            then = [*then, Put(layout.FENCE, b"")]
        done = await self.etcd.txn(compare, then)
        if done.succeeded:
            self._note(then, done.revision)
        return done.succeeded


def _read_of(change: Swap) -> Get | None:
    """Return the operation that reads the texts, if they are to be read."""
    record = change.after or (change.before.record if change.before is not None else None)
    if not change.reads or record is None:
        return None
    return Get(layout.texts_of(record.id), is_prefix=True, limit=TEXTS_MAX)


def _at(kv: KeyValue) -> float:
    return float(json.loads(kv.value).get("at", 0.0))
