"""From a session to a sink: what was received is written, made durable, and confirmed, in this order."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from outlast import Fault, Stop, Stopping
from outlast.changes._decoding.messages import Delete, Insert, Message, Truncate, Update
from outlast.changes._decoding.transactions import TransactionPart
from outlast.changes._positions import Positions
from outlast.extend import attach

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from outlast.changes._decoding.messages import Change, Relation
    from outlast.changes._decoding.transactions import Assembler
    from outlast.changes._sinks.poison import Poison
    from outlast.changes._sinks.port import Delivery, Sink

_ROWS: Final = (Insert, Update, Delete)
DRAIN_S: Final = 2.0
"""The time for which the sink may finish what it is doing after a stop. Then it is cancelled, and comes again."""


TURN_S: Final = 0.01
"""The time that this works before others on the event loop have their turn, the heartbeat to the server among them: a sink may
take what it is given without ever waiting, and a large transaction out of the spool comes without waiting, too."""


FLUSH_S: Final = 0.2
"""The longest wait for a flush of what the sink has whole, while a batch goes on. A batch may be thousands of transactions,
of a backlog for one. What is not flushed comes again after a crash: where each session ended before its first batch did, none
got any further, and the backlog grew."""


SLICE: Final = 1_000
"""Messages that are decoded in one go: some 3 ms. A batch may be much more, and no part of a transaction end in it."""


class Source(Protocol):
    """The session that is read from: `outlast.postgres.replication.Replication`, once it streams."""

    @property
    def keepalive_lsn(self) -> int:
        """The position that the server had read to when it sent the last keepalive before the end of the last batch."""
        ...

    async def next_batch(self) -> Sequence[bytes]:
        """Wait for messages, and return all that have come."""
        ...

    def confirm(self, flushed_lsn: int, applied_lsn: int | None = None) -> None:
        """Report to the server what is durable here."""
        ...


class LockLostError(ConnectionError):
    """The lock of the stream was lost: somebody else may own it by now."""


class Pump:
    """Feeds a sink from one session, beginning at the position that the sink gave when it was opened."""

    def __init__(
        self,
        sink: Sink,
        poison: Poison,
        position: int = 0,
        *,
        copied: Mapping[tuple[str, str], int] | None = None,
    ) -> None:
        """Begin; nothing was received yet.

        `copied`: tables, as (schema, name), whose rows the sink has as they were at a position: what was committed before it
        is left out.
        """
        self.positions = Positions.begin(position)
        self.received = 0
        """The number of changes that the sink was given."""
        self.delivered = 0
        """How many transactions the sink made durable."""
        self.flushed = 0
        """The number of times that the sink made durable what it was given."""
        self._sink = sink
        self._poison = poison
        self._copied = dict(copied or {})
        self._copied_until = max(self._copied.values(), default=0)
        self._within = False
        """Whether the sink has a part of a transaction whose rest is to come: nothing is flushed then."""
        self._unflushed = 0
        """Whole transactions that the sink has and that are not flushed; the last one is the newest."""
        self._newest = (0, 0)

    async def run(self, source: Source, assembler: Assembler, stop: Stop) -> None:
        """Go on until the stop is fired, or something fails. What the sink had whole by then is flushed and confirmed.

        It stops between two transactions, and between two parts of one.
        """
        while True:
            try:
                async with stop.timeout(None):
                    batch = await source.next_batch()
            except Stopping:
                if stop.requested:
                    # Everything whole is flushed already.
                    return
                raise
            if not await self._take(batch, source, assembler, stop):
                # The rest of the batch was not looked at, so the keepalive that came with it does not count.
                source.confirm(self.positions.confirmable)
                return
            self.positions = self.positions.keepalive(source.keepalive_lsn)
            source.confirm(self.positions.confirmable)

    async def _take(self, batch: Sequence[bytes], source: Source, assembler: Assembler, stop: Stop) -> bool:
        """Pass a batch to the sink, and flush now and then and at its end; return False when the stop came before its end."""
        whole = True
        loop = asyncio.get_running_loop()
        yield_at = loop.time() + TURN_S
        flush_at = loop.time() + FLUSH_S
        try:
            for start in range(0, len(batch), SLICE):
                for unit in assembler.feed_all(batch[start : start + SLICE]):
                    if stop.requested:
                        whole = False
                        break
                    if not isinstance(unit, Message):
                        await self._give(unit)
                    if loop.time() >= flush_at and not self._within:
                        await self._flush()
                        source.confirm(self.positions.confirmable)
                        flush_at = loop.time() + FLUSH_S
                    if loop.time() >= yield_at:
                        yield_at = await _others(loop)
                if not whole:
                    break
                if loop.time() >= yield_at:
                    yield_at = await _others(loop)
        except Stopping:
            if not stop.requested:
                raise
            whole = False
        if not self._within:
            await self._flush()
        return whole

    async def _give(self, delivery: Delivery) -> None:
        if not self._within:
            if delivery.commit_lsn < self.positions.confirmable:
                # Durable already; after a restart the server may send it again.
                return
            if isinstance(delivery, TransactionPart) or self._poison.is_careful(delivery):
                await self._flush()
        if delivery.commit_lsn < self._copied_until:
            kept = (self._without_copied(change, delivery.commit_lsn) for change in delivery.changes)
            delivery = replace(delivery, changes=tuple(change for change in kept if change is not None))
        delivery = await self._poison.checked(delivery)
        try:
            await self._sink.write(delivery)
        except Stopping:
            raise
        except Exception as exc:
            error = self._poison.refused(delivery.commit_lsn, delivery.xid, exc)
            if error is exc:
                raise
            raise error from None
        self._within = delivery.end_lsn is None
        self._newest = delivery.commit_lsn, delivery.xid
        self.received += len(delivery.changes)
        if delivery.end_lsn is not None:
            self._unflushed += 1
            self.positions = self.positions.transaction(delivery.end_lsn)

    def _without_copied(self, change: Change, commit_lsn: int) -> Change | None:
        """Return the part of a change that the sink does not have yet; None if it has all of it."""
        if isinstance(change, Truncate):
            relations = tuple(each for each in change.relations if commit_lsn >= self._copied.get(_name_of(each), 0))
            return replace(change, relations=relations) if relations else None
        if isinstance(change, _ROWS) and commit_lsn < self._copied.get(_name_of(change.relation), 0):
            return None
        return change

    async def _flush(self) -> None:
        if not self.positions.pending:
            return
        try:
            durable = await self._sink.flush()
        except Exception as exc:
            commit_lsn, xid = self._newest
            alone = self._unflushed == 1
            error = self._poison.refused(commit_lsn, xid, exc) if alone else self._poison.refused_several(commit_lsn, exc)
            if error is exc:
                raise
            raise error from None
        self.delivered += self._unflushed
        self._unflushed = 0
        self.flushed += 1
        self.positions = self.positions.stored(durable)


async def _others(loop: asyncio.AbstractEventLoop) -> float:
    """Let others on the event loop have their turn; return when they have the next."""
    await asyncio.sleep(0)
    return loop.time() + TURN_S


def _name_of(relation: Relation) -> tuple[str, str]:
    return relation.schema, relation.name


@asynccontextmanager
async def while_owner(lost: asyncio.Future[Fault], stop: Stop, *, drain_s: float = DRAIN_S) -> AsyncGenerator[None]:
    """Guard a block that only the owner may run: cancelled at once when `lost` is done, and `drain_s` seconds after the stop.

    Raises `LockLostError` with the fault, or `Stopping`; whatever else the block raised because of it is dropped.
    """
    loop = asyncio.get_running_loop()
    limit = asyncio.timeout(None)

    def end_at(when: float) -> None:
        # Refused when the block has ended, or is being ended already: it was cut off together with the lock.
        with suppress(RuntimeError):
            limit.reschedule(when)

    def end_now(_: asyncio.Future[Fault]) -> None:
        end_at(loop.time())

    def end_soon(_: Stop) -> None:
        if not lost.done():
            end_at(loop.time() + drain_s)

    try:
        async with limit:
            lost.add_done_callback(end_now)
            forget = stop.on_fire(end_soon)
            try:
                yield
            finally:
                forget()
                lost.remove_done_callback(end_now)
    except Exception as exc:
        if lost.done() and not lost.cancelled():
            error = LockLostError(lost.result().reason)
            attach(error, lost.result())
            raise error from None
        if limit.expired():
            raise Stopping(stop.reason or "") from exc
        raise
