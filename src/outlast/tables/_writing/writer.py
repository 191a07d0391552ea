"""The one writer of a store: it takes what waits, of all requests, and commits it together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from outlast import Incident, Stopping, Unavailable, progress
from outlast.extend import Reaction
from outlast.tables._schema.verdict import of_row
from outlast.tables._stores.port import TableRows
from outlast.tables._writing.fold import Folded, fold, key_of
from outlast.tables._writing.numbers import Numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.tables._limits import TableLimits
    from outlast.tables._schema.catalogue import Known
    from outlast.tables._stores.port import RowRefusal, TableStore
    from outlast.tables._writing.line import Group, Item, Line
    from outlast.tables._writing.tally import Tally

ROWS_MAX: Final = 5_000
BYTES_MAX: Final = 4 << 20
"""Of one commit. One item has always room; a body is put in line in items of at most so many rows."""
WELL_S: Final = 60.0
"""An incident of the writer ends with a commit after so long without a bug."""
LINGER_SHARE: Final = 0.25
"""Of the length of the last commit: so long the next one waits for those who were in that one, and come again."""
LINGER_S_MAX: Final = 0.005
STOPPED: Final = "the tables are closed; what waited was not written"


class Writer:
    """Commits the line of one store. On the event loop's thread only."""

    def __init__(self, store: TableStore, line: Line, limits: TableLimits, tally: Tally) -> None:
        self._store = store
        self._line = line
        self._numbers = Numbers(store, limits)
        self._tally = tally
        self.busy = False
        self._took_s = 0.0
        """The length of the last commit."""
        self._had_others = False
        """Whether others came while it was under way."""
        self._turned = asyncio.Event()
        self._failed_at = 0.0
        self.incident = Incident("tables writer", verb="is failing")

    async def run(self) -> None:
        """Write until cancelled. Nothing that the store raises ends it."""
        loop = asyncio.get_running_loop()
        while True:
            await self._line.filled()
            if (wait_s := linger_s(self._took_s, others=self._had_others)) > 0:
                await asyncio.sleep(wait_s)
            began_at = loop.time()
            await self.turn()
            self._took_s, self._had_others = loop.time() - began_at, len(self._line) > 0
            progress()

    async def turn(self) -> None:
        """Commit once, or refuse all that waits while the store is away."""
        dependency = self._store.dependency
        if not dependency.passable:
            refusal = dependency.unavailable()
            while items := self._line.take(ROWS_MAX, BYTES_MAX):
                for item in items:
                    item.end(refusal)
            self._turned.set()
            return
        items = self._line.take(ROWS_MAX, BYTES_MAX)
        self.busy = True
        try:
            await self._commit(items)
        finally:
            self.busy = False
            self._turned.set()
            # Only a writer that is cancelled leaves any.
            for item in items:
                if not item.ended:
                    item.end(Stopping(STOPPED))

    async def drained(self) -> None:
        """Return when nothing waits and nothing is under way."""
        while self.busy or self._line:
            self._turned.clear()
            await self._turned.wait()

    def refuse_all(self) -> int:
        """Refuse what is still in line, since it can be written no more; return how many points that were."""
        points = 0
        while items := self._line.take(ROWS_MAX, BYTES_MAX):
            for item in items:
                points += item.points
                item.end(Stopping(STOPPED))
        return points

    async def _commit(self, items: list[Item]) -> None:
        """Write items together; find out by halving which of them meets an error that is not the store's own."""
        try:
            await self._numbers.put(items)
            ready = [item for item in items if not (item.whole and (item.refused or item.stale))]
            await self._write(ready)
        except Stopping as exc:
            for item in items:
                item.end(exc)
        except Exception as exc:  # noqa: BLE001 - whatever it is, those who wait are told
            await self._failed(items, exc)
        else:
            for item in items:
                item.end()
            await self._numbers.learn()

    async def _failed(self, items: list[Item], exc: Exception) -> None:
        refusal = self._store.dependency.refusal(exc)
        fault = self._line.trouble = refusal.fault
        for item in items:
            # They are numbered again, or go back as they came.
            for group in item.groups:
                group.restore_heads()
        # "Not now" is nobody's doing; "not this" is found out.
        if len(items) > 1 and not isinstance(exc, Unavailable) and not fault.is_evidence and fault.reaction is not Reaction.WAIT:
            half = len(items) // 2
            await self._commit(items[:half])
            await self._commit(items[half:])
            return
        if fault.reaction is Reaction.RESTART:
            self._failed_at = asyncio.get_running_loop().time()
            self.incident.fault(fault, exc)
        for item in items:
            item.end(refusal)

    def _worked(self) -> None:
        """Note that something was written; close the incident of the writer once all has been well for a while."""
        self._line.trouble = None
        if self.incident.is_open and asyncio.get_running_loop().time() - self._failed_at >= WELL_S:
            self.incident.resolve()

    async def _write(self, items: Sequence[Item]) -> None:
        of_tables: dict[Known, list[Group]] = {}
        items_of: dict[Known, list[Item]] = {}
        for number, item in enumerate(items):
            for group in item.groups:
                group.body = number
                groups = of_tables.get(group.known)
                if groups is None:
                    of_tables[group.known] = [group]
                    items_of[group.known] = [item]
                else:
                    groups.append(group)
                    items_of[group.known].append(item)
        written: list[TableRows] = []
        sources: list[tuple[Known, Folded]] = []
        for known, groups in of_tables.items():
            for folded in fold(groups):
                written.append(TableRows(known.record, folded.fields, folded.rows))
                sources.append((known, folded))
        if not written:
            return
        # A whole one is alone: see `Line.take`.
        wrote = await self._store.write(written, whole=items[0].whole)
        self._worked()
        if not (items[0].whole and (wrote.refused or wrote.stale)):
            self._tally.commits += 1
            self._tally.rows += sum(len(rows.rows) for rows in written)
        for number in wrote.stale:
            known, folded = sources[number]
            for source in folded.sources:
                item, group = items_of[known][source], of_tables[known][source]
                # A group whose fields were folded into several is met for each of them.
                if group in item.groups:
                    item.groups.remove(group)
                    item.stale.append(group)
        for refusal in wrote.refused:
            known, folded = sources[refusal.group]
            _refuse(refusal, folded, [(items_of[known][source], of_tables[known][source]) for source in folded.sources])


def linger_s(took_s: float, *, others: bool) -> float:
    """Return for how long to wait for more before a commit, after one that took so long.

    Without it the writers of a busy store fall into two halves, of which each waits for the commit of the other: twice as many
    commits, of half the size. Who is alone waits for nobody.
    """
    return min(LINGER_S_MAX, took_s * LINGER_SHARE) if others else 0.0


def _refuse(refusal: RowRefusal, folded: Folded, sources: list[tuple[Item, Group]]) -> None:
    """Refuse the points that are in a row which the store refuses."""
    key = key_of(folded.rows[refusal.row])
    for item, group in sources:
        places = [place for row, place in zip(group.rows, group.places, strict=True) if key_of(row) == key]
        if places:
            item.refused.append((places, of_row(refusal.fault)))
