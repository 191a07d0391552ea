"""Cleaning up: deadlines, what is old, and the history that etcd keeps of every change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlast.procedures._model import FINAL, LIVE, ProcedureState, Swept
from outlast.procedures._stores import rules
from outlast.procedures._stores.etcd._table import Swap, Table

if TYPE_CHECKING:
    from outlast.procedures._model import Sweep
    from outlast.procedures._stores.etcd._layout import Head

HISTORY_S: Final = 300.0
"""The history that is kept, as Kubernetes keeps of its cluster."""
FULL: Final = 0.9
"""Above this part of `records_max` the oldest that have ended go, whatever time they are kept for."""


class Sweeper:
    """One batch of each kind of cleaning at a time."""

    def __init__(self, table: Table, records_max: int, *, compact: bool) -> None:
        self._table = table
        self._records_max = records_max
        self._compacts = compact
        self._mark: tuple[float, int] | None = None
        """A revision, and the store's time at which it was the newest."""

    async def sweep(self, what: Sweep) -> Swept:
        """Delete what is old, then expire what is late; out of its quota etcd takes deletions alone."""
        heads, now = self._table.mirror.heads.values(), self._table.clock.now()
        over = sorted((head for head in heads if head.record.state in FINAL), key=_ended_at)
        dead = [head for head in over if head.record.state is ProcedureState.DEAD]
        ended = [head for head in over if head.record.state is not ProcedureState.DEAD]
        beyond = len(dead) - what.dead_max
        too_many = len(heads) - int(self._records_max * FULL)
        old_dead = [head for at, head in enumerate(dead) if at < beyond or _is_old(head, now, what.dead_keep_s)]
        old = [head for at, head in enumerate(ended) if at < too_many or _is_old(head, now, what.done_keep_s)]
        late = [head for head in heads if _is_late(head, now)]
        deleted = sum(await self._table.each(self._table.delete, old[: what.batch]))
        dead_deleted = sum(await self._table.each(self._table.delete, old_dead[: what.batch]))
        expired = 0
        if not self._table.etcd.is_full:
            expired = sum(await self._table.each(self._expire, late[: what.batch]))
        if self._compacts:
            await self._compact(now)
        more = any(len(some) > what.batch for some in (old, old_dead, late))
        return Swept(expired, deleted, dead_deleted, more)

    async def _expire(self, head: Head) -> bool:
        # Who was faster has begun it, or let it live longer.
        record = rules.expired(head.record, self._table.clock.now())
        return await self._table.swap(Swap(head, record, head.body)) is not None

    async def _compact(self, now: float) -> None:
        """Let etcd use the room of old values again. Whoever watches from before that reads everything again."""
        revision = self._table.mirror.revision
        if self._mark is None:
            self._mark = now, revision
        since, old = self._mark
        if now - since >= HISTORY_S:
            self._mark = now, revision
            if old > 0:
                await self._table.compact(old)


def _ended_at(head: Head) -> tuple[float, str]:
    return head.record.ended_at or 0.0, head.record.id


def _is_old(head: Head, now: float, keep_s: float | None) -> bool:
    return keep_s is not None and head.record.ended_at is not None and head.record.ended_at + keep_s <= now


def _is_late(head: Head, now: float) -> bool:
    record = head.record
    return record.state in LIVE and record.began_at is None and record.deadline_at is not None and record.deadline_at <= now
