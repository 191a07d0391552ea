"""Transactions, sent together: what waits while two are under way goes in the next one.

A transaction costs etcd a write to its disk and us a millisecond, whatever is in it. One by itself waits for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from outlast import Stopping, Unavailable
from outlast.etcd import Get, KeyValue, Put, Range, TxnResult
from outlast.extend import Reaction
from outlast.procedures._stores.etcd import _layout as layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.etcd import Compare, Etcd, Op

FLIGHTS: Final = 2
TOGETHER: Final = 16
OPS_MAX: Final = 100
"""Of one transaction; etcd takes 128."""
BYTES_MAX: Final = 512 * 1024
"""Of the values of several; etcd takes 1.5 MiB of base64."""
BACK_S_MAX: Final = 1.0
"""The wait for etcd to be back, after an answer was lost: then it is found out what became of the question."""
TRIES: Final = 6
"""The times that a transaction is sent whose answer is lost, within one deadline of a call: it compares revisions, so it is done
once at most. Each may meet another pooled connection that broke with the first."""


@dataclass(slots=True)
class Done:
    """A change that was made."""

    revision: int
    texts: Sequence[KeyValue] | None
    """None: they were not read, or the answer that had them is lost."""


@dataclass(slots=True)
class Call:
    """A change that is to be made, and whoever waits for it."""

    compare: Sequence[Compare]
    then: Sequence[Op]
    key: bytes
    """The head that it writes; empty if it writes none."""
    mark: str
    reads: Get | None
    future: asyncio.Future[Done | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def keys(self) -> set[bytes]:
        """The keys that it changes: none may be in one transaction twice."""
        return {op.key for op in self.then if not isinstance(op, Get)}

    @property
    def size(self) -> int:
        """The bytes of its values."""
        return sum(len(op.value) for op in self.then if isinstance(op, Put))


class Flights:
    """Sends calls, on the event loop's thread."""

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd
        self._waiting: deque[Call] = deque()
        self._flights: set[asyncio.Task[None]] = set()

    async def send(self, call: Call) -> Done | None:
        """Make a change; None: what it compares is otherwise. Cancelled, it is made or not."""
        self._waiting.append(call)
        if len(self._flights) < FLIGHTS:
            self._flights.add(asyncio.create_task(self._fly()))
        return await call.future

    async def close(self) -> None:
        """Wait for those under way: each ends by the deadline of its call."""
        if self._flights:
            await asyncio.wait(self._flights)

    async def _fly(self) -> None:
        try:
            while self._waiting:
                await self._carry(self._pack())
        finally:
            # In the same step in which it found nothing more: whoever sends next then sees that it is over.
            self._flights.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _carry(self, calls: list[Call]) -> None:
        try:
            await self._sent(calls)
        except BaseException as exc:
            for call in calls:
                if not call.future.done():
                    call.future.set_exception(exc if isinstance(exc, Exception) else Stopping("the flight was ended"))
            if not isinstance(exc, Exception):
                raise

    def _pack(self) -> list[Call]:
        calls: list[Call] = []
        keys: set[bytes] = set()
        size = ops = 0
        while self._waiting and len(calls) < TOGETHER:
            call = self._waiting[0]
            if call.future.done():
                # Whoever wanted it was cancelled before it was sent.
                self._waiting.popleft()
                continue
            size, ops = size + call.size, ops + max(len(call.then), len(call.compare)) + 1
            if calls and (size > BYTES_MAX or ops > OPS_MAX or not keys.isdisjoint(call.keys)):
                break
            keys |= call.keys
            calls.append(self._waiting.popleft())
        return calls

    async def _sent(self, calls: list[Call]) -> None:
        if not calls:
            return
        try:
            done = await self._one(calls)
        except Exception as exc:
            # What etcd refuses of one may be right of the others.
            fault = self._etcd.classifiers.classify(exc, source=self._etcd.name)
            if len(calls) == 1 or isinstance(exc, Unavailable | Stopping) or fault.reaction is not Reaction.ANSWER:
                raise
            done = None
        if done is None and len(calls) > 1:
            # One of them holds up the others: each by itself, then.
            for call in calls:
                if not call.future.done():
                    await self._sent([call])
            return
        for call, answer in zip(calls, done or [None], strict=True):
            if not call.future.done():
                call.future.set_result(answer)

    async def _one(self, calls: list[Call]) -> list[Done | None] | None:
        """Send one transaction; send it again if the answer is lost. It is known again by its marks, however often it arrived."""
        compare = [each for call in calls for each in call.compare]
        then: list[Op] = []
        places: list[int | None] = []
        for call in calls:
            then += call.then
            places.append(len(then) if call.reads is not None else None)
            then += [call.reads] if call.reads is not None else []
        if any(isinstance(op, Put) for op in then):
            then.append(Put(layout.FENCE, b""))
        marked = [call for call in calls if call.key]
        done = await self._tried(compare, then, [Get(call.key) for call in marked])
        if done.succeeded:
            return [Done(done.revision, _texts(done, place)) for place in places]
        for call, found in zip(marked, done.responses, strict=True):
            if isinstance(found, Range) and found.kvs and layout.mark_of(found.kvs[0].value) == call.mark:
                # It was done by an attempt whose answer was lost; what it read was lost with it.
                return [Done(found.kvs[0].mod_revision, None) for _ in calls]
        return None

    async def _tried(self, compare: list[Compare], then: list[Op], otherwise: list[Get]) -> TxnResult:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._etcd.timeout_s
        for _ in range(TRIES - 1):
            try:
                return await self._etcd.txn(compare, then, otherwise)
            except (Unavailable, Stopping):
                raise
            except Exception as exc:
                fault = self._etcd.classifiers.classify(exc, source=self._etcd.name)
                if not otherwise or loop.time() > end or fault.reaction is not Reaction.WAIT or not await self._is_back():
                    raise
        return await self._etcd.txn(compare, then, otherwise)

    async def _is_back(self) -> bool:
        """Return whether etcd may be asked again, at once or soon."""
        if not self._etcd.passable and not self._etcd.is_full:
            with contextlib.suppress(Unavailable):
                await self._etcd.ready(timeout_s=BACK_S_MAX)
        return self._etcd.passable


def _texts(done: TxnResult, place: int | None) -> Sequence[KeyValue] | None:
    found = None if place is None else done.responses[place]
    return found.kvs if isinstance(found, Range) else None
