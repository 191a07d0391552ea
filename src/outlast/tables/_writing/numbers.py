"""The numbers of series: known ones stand in the series, unknown ones are asked for in one call for each table."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from outlast.tables._errors import StaleTableError
from outlast.tables._schema.catalogue import FullTag
from outlast.tables._schema.limits import tag_refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.tables._limits import TableLimits
    from outlast.tables._model import Series, Tags
    from outlast.tables._schema.catalogue import Known
    from outlast.tables._schema.verdict import PointsRefusal
    from outlast.tables._stores.port import TableStore
    from outlast.tables._writing.line import Group, Item

FULL_S: Final = 60.0
"""For so long a tag that has all its values is not asked about."""
FULL_TAGS_MAX: Final = 16
"""Of one table. A hundred thousand values of each are some 8 MB."""


class Numbers:
    """Puts the numbers of series into rows, in place of the series."""

    def __init__(self, store: TableStore, limits: TableLimits) -> None:
        self._store = store
        self._limits = limits
        self._to_learn: set[tuple[Known, str]] = set()

    async def put(self, items: Sequence[Item]) -> None:
        """Number the rows of all items; take out what cannot be: stale groups, and points of series that are refused."""
        unknown: dict[Known, dict[Tags, list[Series]]] = {}
        waiting: list[tuple[Item, Group]] = []
        for item in items:
            for group in item.groups:
                known = group.known
                heads = [row[0] for row in group.rows]
                missing = [series for series in heads if series.of is not known]
                if missing:
                    _collect(missing, unknown.setdefault(known, {}))
                    waiting.append((item, group))
                    continue
                group.heads = heads
                for row, series in zip(group.rows, heads, strict=True):
                    row[0] = series.id
        if unknown:
            await self._ask_for(unknown, waiting)

    async def _ask_for(self, unknown: dict[Known, dict[Tags, list[Series]]], waiting: Sequence[tuple[Item, Group]]) -> None:
        stale: set[Known] = set()
        refused: dict[tuple[Known, Tags], PointsRefusal] = {}
        for known, wanted in unknown.items():
            try:
                refused.update(await self._ask(known, wanted))
            except StaleTableError:
                stale.add(known)
        for item, group in waiting:
            if group.known in stale:
                item.groups.remove(group)
                item.stale.append(group)
                continue
            if refused:
                _take_out(item, group, refused)
            group.heads = [row[0] for row in group.rows]
            for row in group.rows:
                row[0] = row[0].id
            if not group.rows:
                item.groups.remove(group)

    async def _ask(self, known: Known, wanted: dict[Tags, list[Series]]) -> dict[tuple[Known, Tags], PointsRefusal]:
        """Ask the store for series of one table; return the refusals of those that would be too many."""
        now = asyncio.get_running_loop().time()
        refused: dict[tuple[Known, Tags], PointsRefusal] = {}
        asked: list[Tags] = []
        for tags in wanted:
            over = _known_full(known, tags, now)
            if over is None:
                asked.append(tags)
            else:
                refused[known, tags] = tag_refusal(known.record.name, *over, self._limits)
        if not asked:
            return refused
        found = await self._store.series(known.record, asked, tag_values_max=self._limits.tag_values_max)
        for place, (tags, number) in enumerate(zip(asked, found.ids, strict=True)):
            if number:
                for series in wanted[tags]:
                    series.id, series.of = number, known
            else:
                tag = found.full[place]
                refused[known, tags] = tag_refusal(known.record.name, tag, dict(tags).get(tag, ""), self._limits)
        self._to_learn.update((known, tag) for tag in found.full.values())
        return refused

    async def learn(self) -> None:
        """Read the values of tags that were found full: another new one is refused without a question then."""
        while self._to_learn:
            known, tag = self._to_learn.pop()
            with suppress(Exception):
                await self._learn(known, tag)

    async def _learn(self, known: Known, tag: str) -> None:
        most = self._limits.tag_values_max
        values = frozenset(await self._store.tag_values(tag, table=known.record.name, count=most))
        if len(known.full_tags) >= FULL_TAGS_MAX:
            del known.full_tags[next(iter(known.full_tags))]
        known.full_tags[tag] = FullTag(values, asyncio.get_running_loop().time() + FULL_S)


def _known_full(known: Known, tags: Tags, now: float) -> tuple[str, str] | None:
    """Return the tag and its value for which a series is one too many, as far as that is remembered."""
    if not known.full_tags:
        return None
    for tag, value in tags:
        full = known.full_tags.get(tag)
        if full is None:
            continue
        if now >= full.until:
            del known.full_tags[tag]
        elif value not in full.values:
            return tag, value
    return None


def _collect(missing: Sequence[Series], wanted: dict[Tags, list[Series]]) -> None:
    """Put series to those that are wanted. There may be several objects of one series, if it was forgotten in between."""
    for series in missing:
        same = wanted.setdefault(series.tags, [])
        if not any(series is each for each in same):
            same.append(series)


def _take_out(item: Item, group: Group, refused: dict[tuple[Known, Tags], PointsRefusal]) -> None:
    known = group.known
    kept = [place for place, row in enumerate(group.rows) if row[0].of is known]
    if len(kept) == len(group.rows):
        return
    for row, place in zip(group.rows, group.places, strict=True):
        if row[0].of is not known:
            item.refused.append(([place], refused[known, row[0].tags]))
    group.places = [group.places[place] for place in kept]
    group.rows = [group.rows[place] for place in kept]
