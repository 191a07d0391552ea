"""Tables in memory, behind the methods that doors and queries use: what is written can be read, and a test says what fails."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from outlast.tables._model import FieldRecord, FieldType, PointOutcome, Range, ReadPoint, TableRecord, Written
from outlast.tables._series import KnownSeries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from outlast.tables._model import Parsed, PointRefusal, Tags, Value
    from outlast.tables._tables import Tables

Stored = dict[tuple["Tags", int], dict[str, "Value"]]


@dataclass
class MemoryTables:
    """Stores everything. `fails` is called before each write and may raise; `refused` are refused beside bad points."""

    known: KnownSeries = field(default_factory=KnownSeries)
    stored: dict[str, Stored] = field(default_factory=dict[str, Stored])
    down: Exception | None = None
    fails: Callable[[], None] = lambda: None
    breaks_after: int | None = None
    """Points after which a read fails with `down`."""
    refused: list[PointRefusal] = field(default_factory=list["PointRefusal"])
    retry_after_s: float | None = None
    writes: list[int] = field(default_factory=list[int])
    """Points of each write."""
    asked: list[Range] = field(default_factory=list[Range])

    @property
    def as_tables(self) -> Tables:
        return cast("Tables", self)

    def add(self, table: str, tags: Mapping[str, str], points: Mapping[float, Mapping[str, Value] | Value]) -> None:
        """Store points by their seconds; a value alone is that of the field `value`."""
        series = tuple(sorted(tags.items()))
        for seconds, fields in points.items():
            values = fields if isinstance(fields, dict) else {"value": fields}
            self.stored.setdefault(table, {}).setdefault((series, round(seconds * 1_000) * 10**6), {}).update(cast("Any", values))

    # What doors use.

    def check(self) -> None:
        if self.down is not None:
            raise self.down

    def unavailable(self) -> Exception | None:
        return self.down

    async def write_parsed(self, parsed: Parsed, *, client: str = "", deadline_s: float | None = None) -> Written:
        self.fails()
        self.writes.append(parsed.points)
        beside = {refusal.place for refusal in self.refused}
        stored = 0
        for rows in parsed.rows:
            for (series, at_ns, *values), place in zip(rows.rows, rows.places, strict=True):
                if place not in beside:
                    point = self.stored.setdefault(rows.table, {}).setdefault((series.tags, at_ns), {})
                    point.update(zip(rows.fields, values, strict=True))
                    stored += 1
        refused = tuple(sorted([*parsed.refused, *self.refused], key=lambda refusal: refusal.place))
        counts = {outcome: sum(each.outcome is outcome for each in refused) for outcome in PointOutcome}
        counts[PointOutcome.STORED] = stored
        return Written(parsed.points, stored, refused, counts, self.retry_after_s)

    async def read(self, ask: Range, *, points_max: int | None = None) -> AsyncIterator[ReadPoint]:
        self.asked.append(ask)
        read = 0
        for (tags, at_ns), fields in sorted(self.stored.get(ask.table, {}).items()):
            found = {name: value for name, value in fields.items() if not ask.fields or name in ask.fields}
            if found and ask.start_ns <= at_ns <= ask.end_ns and _fits(dict(tags), ask.tags):
                if read == self.breaks_after and self.down is not None:
                    raise self.down
                read += 1
                yield ReadPoint(tags, at_ns, found)

    async def series(self, ask: Range, *, after: int = 0, count: int = 1_000) -> list[tuple[int, Tags]]:
        self.asked.append(ask)
        every = enumerate(sorted({tags for tags, _ in self.stored.get(ask.table, {})}), 1)
        return [(number, tags) for number, tags in every if number > after and _fits(dict(tags), ask.tags)][:count]

    async def newest(self, table: str, tags: Mapping[str, tuple[str, ...]] | None = None, *, count: int = 100) -> list[ReadPoint]:
        newest = {
            series: ReadPoint(series, at_ns, fields) for (series, at_ns), fields in sorted(self.stored.get(table, {}).items())
        }
        return [point for point in newest.values() if _fits(dict(point.tags), tags or {})][:count]

    async def tables(self, *, after: str = "", count: int = 1_000) -> list[TableRecord]:
        found = [await self.table(name) for name in sorted(self.stored) if name > after]
        return [table for table in found if table is not None][:count]

    async def table(self, name: str) -> TableRecord | None:
        if name not in self.stored:
            return None
        types: dict[str, FieldType] = {}
        for fields in self.stored[name].values():
            for field_name, value in fields.items():
                types.setdefault(field_name, TYPES[type(value)])
        return TableRecord(1, name, name, tuple(FieldRecord(each, each, of) for each, of in sorted(types.items())))

    async def tag_names(self, table: str = "", *, prefix: str = "", count: int = 25) -> list[str]:
        return sorted({name for name, _ in self._tags(table) if name.startswith(prefix)})[:count]

    async def tag_values(self, tag: str = "", *, table: str = "", prefix: str = "", count: int = 25) -> list[str]:
        found = {value for name, value in self._tags(table) if tag in {"", name} and value.startswith(prefix)}
        return sorted(found)[:count]

    def _tags(self, table: str) -> set[tuple[str, str]]:
        chosen = [stored for name, stored in self.stored.items() if table in {"", name}]
        return {pair for stored in chosen for tags, _ in stored for pair in tags}


TYPES = {int: FieldType.INTEGER, float: FieldType.FLOAT, str: FieldType.STRING, bool: FieldType.BOOLEAN}


def _fits(tags: dict[str, str], asked: Mapping[str, tuple[str, ...]]) -> bool:
    return all(name in tags and (not values or tags[name] in values) for name, values in asked.items())
