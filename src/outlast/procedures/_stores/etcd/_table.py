"""One way in for all changes: compare-and-swap of one head, with what belongs to it, in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from outlast import Fault, Kind, OutlastError, Scope, Stopping, Unavailable
from outlast.etcd import CompactedError, Compare, Delete, Get, Put, RangeTooLargeError
from outlast.extend import Reaction
from outlast.procedures._stores.etcd import _layout as layout
from outlast.procedures._stores.etcd._mirror import Mirror

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from outlast.etcd import Etcd, KeyValue, Op
    from outlast.procedures._model import ProcedureRecord, StoreEventKind
    from outlast.procedures._stores.etcd._clock import StoreClock
    from outlast.procedures._stores.etcd._layout import Head

T = TypeVar("T")
ROUNDS_MAX: Final = 100
"""A change that others were faster than as often as that is given up."""
TRIES: Final = 3
"""How often one transaction is sent whose answer is lost: it compares a revision, so it is done once at most."""
AT_ONCE: Final = 16
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

    async def each(self, calls: Iterable[Awaitable[T]]) -> list[T]:
        """Do all, a few at a time, and wait for all; then raise what the first that failed has raised."""

        async def one(call: Awaitable[T]) -> T:
            async with self._turns:
                return await call

        results = await asyncio.gather(*(one(call) for call in calls), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if not isinstance(result, BaseException)]

    async def swap(self, change: Swap) -> Sequence[KeyValue] | None:
        """Do it; return the texts that were read. None: others were faster, and nothing was changed."""
        mark = uuid.uuid4().hex
        before, after = change.before, change.after
        compare, then = list(change.compare), list(change.then)
        key = layout.key_of(after) if after is not None else b""
        value = layout.encode(after, change.body, mark) if after is not None else b""
        if before is not None:
            compare.append(Compare.mod_revision(before.key, before.revision))
        elif after is not None:
            compare += [Compare.absent(layout.HEADS + layout.pair(after.kind, after.key)), Compare.absent(_ended(after))]
        if after is not None:
            then.append(Put(key, value))
            if before is not None and before.key != key:
                then.append(Delete(before.key))
        if any(isinstance(op, Put) for op in then):
            then.append(Put(layout.FENCE, b""))
        found = (after or (before and before.record)) if change.reads else None
        if found is not None:
            then.append(Get(layout.texts_of(found.id), is_prefix=True, limit=TEXTS_MAX))
        done = await self._sent(compare, then, key, mark)
        if done is None:
            return None
        revision, responses = done
        for op in then:
            if isinstance(op, Put):
                self.mirror.note(op.key, op.value, revision)
            elif isinstance(op, Delete):
                self._forget(op, revision)
        if found is None:
            return ()
        if responses is None:
            return await self.texts(found.id)
        return responses[-1].kvs

    def _forget(self, op: Delete, revision: int) -> None:
        if not op.key.startswith(layout.MIRRORED):
            return
        gone = [op.key]
        if op.is_prefix:
            gone = list(self.mirror.signals.get(op.key[len(layout.SIGNALS) : -1].decode(), ()))
        for key in gone:
            self.mirror.note(key, None, revision)

    async def _sent(self, compare: list[Compare], then: list[Op], key: bytes, mark: str) -> tuple[int, Any] | None:
        """Send it; send it again if the answer is lost. It is known again by its mark, however often it arrived."""
        otherwise = [Get(key)] if key else []
        for left in range(TRIES - 1, -1, -1):
            try:
                done = await self.etcd.txn(compare, then, otherwise)
            except (Unavailable, Stopping):
                raise
            except Exception as exc:
                fault = self.etcd.classifiers.classify(exc, source=self.etcd.name)
                if not key or left == 0 or fault.reaction is not Reaction.WAIT or not self.etcd.passable:
                    raise
                continue
            if done.succeeded:
                return done.revision, done.responses
            kvs = done.responses[0].kvs if otherwise else ()
            if kvs and layout.mark_of(kvs[0].value) == mark:
                return kvs[0].mod_revision, None
            return None
        return None

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
                return [layout.with_texts(head.record, by_id.get(head.record.id.encode(), ()), self.clock.now()) for head in heads]
        every = await self.each([self.texts(head.record.id) for head in heads])
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
            for op in then:
                if isinstance(op, Put):
                    self.mirror.note(op.key, op.value, done.revision)
                elif isinstance(op, Delete):
                    self._forget(op, done.revision)
        return done.succeeded


def _ended(record: ProcedureRecord) -> bytes:
    return layout.ENDED + record.id.encode()


def _at(kv: KeyValue) -> float:
    return float(json.loads(kv.value).get("at", 0.0))
