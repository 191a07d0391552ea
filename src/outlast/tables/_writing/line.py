"""The line of what waits to be written: bounded in points and bytes, first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from outlast import Stopping, Unavailable
from outlast.tables._schema.verdict import later

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from outlast import Fault
    from outlast.tables._model import FieldType, Series
    from outlast.tables._schema.catalogue import Known
    from outlast.tables._schema.plan import Plan
    from outlast.tables._schema.verdict import PointsRefusal

HELD_SHARE: Final = 0.25
"""Of `points_max`: points that wait for their tables, so that one which is slow to be made takes nothing from the others."""
LINE_BYTES_MAX: Final = 64 << 20
"""The bytes of what waits, about; a body beyond them is refused as one beyond `points_max` is."""


class Group:
    """Rows of one body for one table, with the same fields, on their way to the store."""

    __slots__ = ("body", "fields", "heads", "known", "places", "plan", "rows", "size_bytes", "types")

    def __init__(
        self,
        known: Known,
        plan: Plan,
        fields: tuple[str, ...],
        types: tuple[FieldType, ...],
        rows: list[list[Any]],
        places: list[int],
    ) -> None:
        self.known = known
        self.plan = plan
        self.fields = fields
        self.types = types
        self.rows = rows
        self.places = places
        self.heads: list[Series] | None = None
        """The series of the rows, once their numbers stand in the rows instead."""
        self.body = 0
        """The number of its body among those that are committed together."""
        self.size_bytes = len(rows) * plan.row_bytes
        if plan.texts:
            self.size_bytes += sum([len(row[place]) for place in plan.texts for row in rows])

    def part(self, start: int, end: int) -> Group:
        """Return its rows from one place in it up to another."""
        return Group(self.known, self.plan, self.fields, self.types, self.rows[start:end], self.places[start:end])

    def restore_heads(self) -> None:
        """Put the series back into the rows, in place of their numbers."""
        if self.heads is not None:
            for row, series in zip(self.rows, self.heads, strict=True):
                row[0] = series
            self.heads = None

    def restore(self) -> None:
        """Put its rows back as they came, to be planned again."""
        self.restore_heads()
        for place in self.plan.to_float:
            for row in self.rows:
                row[place] = int(row[place])


class Item:
    """Groups of one body that are written together, and what becomes of them."""

    __slots__ = ("done", "ended", "error", "given_up", "groups", "points", "refused", "size_bytes", "stale", "whole")

    def __init__(self, groups: list[Group], *, whole: bool = False) -> None:
        self.groups = groups
        self.whole = whole
        self.points = sum([len(group.rows) for group in groups])
        self.size_bytes = sum([group.size_bytes for group in groups])
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = False
        self.given_up = False
        """Nobody waits for it any more."""
        self.error: Stopping | Unavailable | None = None
        """The reason for which nothing of it counts as written."""
        self.refused: list[tuple[Sequence[int], PointsRefusal]] = []
        self.stale: list[Group] = []
        """Groups of which nothing was written: the table is not as it was known."""

    def end(self, error: Stopping | Unavailable | None = None) -> None:
        """Let whoever waits for it go on."""
        self.ended, self.error = True, error
        if not self.done.done():
            self.done.set_result(None)


class Line:
    """The points that wait to be written. On the event loop's thread only."""

    def __init__(self, points_max: int) -> None:
        self.points_max = points_max
        self.points = 0
        self.size_bytes = 0
        self.held = 0
        """Points that are not in line yet: they wait for their tables to be made or changed."""
        self.trouble: Fault | None = None
        """What the writer has met since it last wrote anything."""
        self.closed: str | None = None
        """The reason for which it takes no more; None while it does."""
        self._items: deque[Item] = deque()
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    def check(self, points: int = 0) -> None:
        """Raise `Stopping`, or `Unavailable` if there is no room for so many points more. One body has always room."""
        if self.closed is not None:
            raise Stopping(self.closed)
        if not self._items:
            return
        if self.points + max(1, points) > self.points_max:
            seen = f"{self.points} points wait to be written, and {points} more are beyond {self.points_max} (limit points_max)"
        elif self.size_bytes > LINE_BYTES_MAX:
            seen = f"{self.size_bytes} bytes wait to be written (limit {LINE_BYTES_MAX})"
        else:
            return
        fault = later("line full", seen, hint="send less at a time, or give the store a faster disk").fault
        raise Unavailable("tables", fault, 0.0, fault.retry_after_s or 1.0)

    @contextmanager
    def hold(self, points: int) -> Generator[None]:
        """Count points that wait for their table, for a block."""
        self.held += points
        try:
            yield
        finally:
            self.held -= points

    def held_refusal(self, points: int) -> PointsRefusal | None:
        """Return why so many points more cannot wait for their table; None if they can. They have a share of `points_max`."""
        most = max(1, round(self.points_max * HELD_SHARE))
        if not self.held or self.held + points <= most:
            return None
        reason = (
            f"{self.held} points wait for their tables to be made, and {points} more are beyond {most} (a share of points_max)"
        )
        return later("line full", reason)

    def put(self, items: Sequence[Item]) -> None:
        """Put items at the end, whatever their number: `check` comes first. Raises `Stopping`."""
        if self.closed is not None:
            raise Stopping(self.closed)
        for item in items:
            self._items.append(item)
            self.points += item.points
            self.size_bytes += item.size_bytes
        self._filled.set()

    def take(self, rows_max: int, bytes_max: int) -> list[Item]:
        """Take what is to be written together: the first, and those after it that fit. What nobody waits for is left out.

        A whole one is taken alone: it is all or nothing, and the others are not.
        """
        taken: list[Item] = []
        rows = size = 0
        while self._items:
            item = self._items[0]
            if taken and not item.given_up:
                is_apart = item.whole or taken[0].whole
                if is_apart or rows + item.points > rows_max or size + item.size_bytes > bytes_max:
                    break
            self._items.popleft()
            self.points -= item.points
            self.size_bytes -= item.size_bytes
            if not item.given_up:
                taken.append(item)
                rows += item.points
                size += item.size_bytes
        if not self._items:
            self._filled.clear()
        return taken

    async def filled(self) -> None:
        """Return when there is something in it."""
        await self._filled.wait()

    def close(self, reason: str) -> None:
        """Take no more."""
        self.closed = self.closed or reason
