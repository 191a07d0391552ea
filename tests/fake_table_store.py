"""A store of tables in memory and in the loop's own time, whose dependency fails as a test says.

store = FakeTableStore()
store.trouble(Trouble.REFUSE)              # from now on, until
store.heal()
other = store.beside()                     # that of another process: the same tables, troubles of its own
store.calls["write"]                       # the calls that reached the store, by name
store.held.by_hand("CREATE VIEW cpu ...")  # somebody else has the name
store.held.refuses = fault_of_row          # a row that only the store refuses: its fault, or None

It keeps the promises in tests/contract/table_store_*.py, but for those of processes.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from outlast import Dependency, Fault, Kind, Scope
from outlast.tables import FieldType, NameTakenError, TableCounts, TableRecord
from outlast.tables._errors import StaleTableError
from outlast.tables._stores.names import ascii_folded, plan_fields, stored_table
from outlast.tables._stores.port import RowRefusal, SeriesFound, Wrote
from outlast.testing import Episode, Script, ScriptedPeer, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from outlast.tables import Range
    from outlast.tables._model import Tags
    from outlast.tables._stores.port import ReadRow, TableRows

T = TypeVar("T")
FIELDS_LIMIT = 990


def nothing_refused(_table: str, _fields: Mapping[str, Any]) -> Fault | None:
    return None


@dataclass(slots=True)
class HeldTable:
    record: TableRecord
    series: dict[Tags, int] = field(default_factory=dict)
    points: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    """By series and time."""
    damaged: bool = False
    """Somebody dropped it, or a column of it, by hand."""

    def values(self, tag: str) -> set[str]:
        return {value for of in self.series for name, value in of if name == tag}


class FakeTables:
    """The tables that stores of several processes share."""

    def __init__(self) -> None:
        self.tables: dict[str, HeldTable] = {}
        self.theirs: dict[str, str] = {}
        """What somebody else has, by its name: a view, a table, an index."""
        self.refuses: Callable[[str, Mapping[str, Any]], Fault | None] = nothing_refused
        self.fails: Callable[[str], Exception | None] = lambda _table: None
        """The error that the making of a table meets, or None."""
        self.numbers = 0
        self.shapes: list[str] = []
        """Tables that were made or changed, in order, each time that it was done."""

    def by_hand(self, statement: str) -> None:
        """Do what a statement of the contract's does."""
        kind, name = re.findall(r"(VIEW|TABLE|INDEX) (\w+)", statement, re.IGNORECASE)[0]
        if statement.startswith("CREATE"):
            self.theirs[name] = kind.lower()
        elif name in self.theirs:
            del self.theirs[name]
        else:
            self.damage(name, *re.findall(r"COLUMN (\w+)", statement))

    def damage(self, name: str, *columns: str) -> None:
        held = self.tables[name]
        held.damaged = True
        if not columns:
            held.points.clear()
        for point in held.points.values():
            for column in columns:
                point.pop(column, None)
        held.points = {key: point for key, point in held.points.items() if point}

    def shape(self, name: str, fields: Mapping[str, FieldType], fields_max: int, retention_s: float | None) -> TableRecord:
        error = self.fails(name)
        if error is not None:
            raise error
        held = self.tables.get(name)
        if held is None:
            if name in self.theirs:
                text = f"table {name!r} cannot be made: a {self.theirs[name]} has this name"
                raise NameTakenError(text, hint="rename it, or drop it")
            taken = {ascii_folded(each.record.stored) for each in self.tables.values()}
            self.numbers += 1
            stored = stored_table(name, lambda each: ascii_folded(each) not in taken)
            held = self.tables[name] = HeldTable(TableRecord(self.numbers, name, stored, (), retention_s, 1.0))
        made = plan_fields(held.record.fields, fields, min(fields_max, FIELDS_LIMIT), ascii_folded)
        held.record = replace(held.record, fields=made.fields)
        held.damaged = False
        self.shapes.append(name)
        return held.record

    def drop(self, name: str) -> bool:
        return self.tables.pop(name, None) is not None

    def series(self, table: TableRecord, tags: Sequence[Tags], most: int) -> SeriesFound:
        held = self.tables.get(table.name)
        if held is None or held.record.id != table.id:
            raise StaleTableError(f"table {table.name!r} is gone")
        ids: list[int] = []
        full: dict[int, str] = {}
        for place, of in enumerate(tags):
            if of not in held.series:
                over = [tag for tag, value in of if value not in (has := held.values(tag)) and len(has) >= most]
                if over:
                    full[place] = over[0]
                    ids.append(0)
                    continue
                self.numbers += 1
                held.series[of] = self.numbers
            ids.append(held.series[of])
        return SeriesFound(ids, full)

    def write(self, groups: Sequence[TableRows], *, whole: bool = False) -> Wrote:
        before = {name: {key: dict(point) for key, point in held.points.items()} for name, held in self.tables.items() if whole}
        wrote = self._written(groups)
        if wrote.refused or wrote.stale:
            for name, points in before.items():
                self.tables[name].points = points
        return wrote

    def _written(self, groups: Sequence[TableRows]) -> Wrote:
        refused: list[RowRefusal] = []
        stale: set[int] = set()
        for number, rows in enumerate(groups):
            keys = [tuple(row[:2]) for row in rows.rows]
            assert len(set(keys)) == len(keys), "a key comes twice"
            held = self.tables.get(rows.table.name)
            believed = {one.name: one for one in rows.table.fields}
            has = {} if held is None else {one.name: one for one in held.record.fields}
            if (
                held is None
                or held.record.id != rows.table.id
                or held.damaged
                or any(has.get(one) != believed[one] for one in rows.fields)
            ):
                stale.add(number)
                continue
            for place, row in enumerate(rows.rows):
                fields = dict(zip(rows.fields, row[2:], strict=True))
                fault = self.refuses(rows.table.name, fields) or _unfit(held.record, fields)
                if fault is not None:
                    refused.append(RowRefusal(number, place, fault))
                else:
                    kept = {one: float(value) if has[one].type is FieldType.FLOAT else value for one, value in fields.items()}
                    held.points.setdefault((row[0], row[1]), {}).update(kept)
        return Wrote(refused, frozenset(stale))

    def chosen(self, ask: Range) -> list[tuple[int, Tags]]:
        held = self.tables.get(ask.table)
        if held is None:
            return []
        return [
            (number, of)
            for of, number in held.series.items()
            if all(tag in dict(of) and (not values or dict(of)[tag] in values) for tag, values in ask.tags.items())
        ]

    def read(self, ask: Range, after: tuple[int, int] | None, count: int) -> list[ReadRow]:
        held = self.tables.get(ask.table)
        if held is None:
            return []
        fields = ask.fields or tuple(one.name for one in held.record.fields)
        tags = dict(self.chosen(ask))
        found: list[ReadRow] = []
        for key in sorted(held.points):
            values = tuple(held.points[key].get(one) for one in fields)
            is_asked = key[0] in tags and ask.start_ns <= key[1] <= ask.end_ns and (after is None or key > after)
            if is_asked and any(value is not None for value in values):
                found.append((key[0], tags[key[0]], key[1], values))
        return found[:count]


def _unfit(record: TableRecord, fields: Mapping[str, Any]) -> Fault | None:
    for name, value in fields.items():
        what = f"field {name!r} of table {record.name!r}"
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            reason = f"{what}: {value} is beyond 9223372036854775807"
            return Fault(Kind.REJECTED, "range", reason, "store", Scope.CALL)
        if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
            return Fault(Kind.REJECTED, "text", f"{what} is no text", "store", Scope.CALL)
    return None


class FakeTableStore:
    """`outlast.tables._stores.port.TableStore`, for one process."""

    fields_limit = FIELDS_LIMIT

    def __init__(self, held: FakeTables | None = None, *, name: str = "store", latency_s: float = 0.0) -> None:
        self.held = held or FakeTables()
        self.peer = ScriptedPeer(name, latency_s=latency_s)
        self.dependency = Dependency(name, probe=self.peer.probe)
        self.calls: Counter[str] = Counter()
        self.written: list[list[int]] = []
        """The number of rows of each group, write by write."""

    def beside(self) -> FakeTableStore:
        """Make the store of another process on the same tables."""
        return FakeTableStore(self.held, name=self.peer.name, latency_s=self.peer.latency_s)

    def trouble(self, trouble: Trouble) -> None:
        self.peer.script.heal()
        self.peer.script = Script(Episode(asyncio.get_running_loop().time(), math.inf, trouble))

    def heal(self) -> None:
        self.peer.script.heal()
        self.peer.script = Script()

    async def _call(self, name: str, work: Callable[[], T]) -> T:
        """Do one transaction: `work` happens at one moment, or not at all."""

        def counted() -> T:
            self.calls[name] += 1
            return work()

        async with self.dependency.use(name):
            return await self.peer.call(counted)

    async def open(self) -> None:
        await self._call("open", lambda: None)

    async def close(self) -> None:
        await asyncio.sleep(0)

    async def tables(self, *, after: str = "", count: int = 1_000) -> list[TableRecord]:
        def found() -> list[TableRecord]:
            names = sorted((name for name in self.held.tables if name.encode() > after.encode()), key=str.encode)
            return [self.held.tables[name].record for name in names[:count]]

        return await self._call("tables", found)

    async def table(self, name: str) -> TableRecord | None:
        held = self.held.tables
        return await self._call("table", lambda: held[name].record if name in held else None)

    async def shape(
        self, name: str, fields: Mapping[str, FieldType], *, fields_max: int, retention_s: float | None = None
    ) -> TableRecord:
        return await self._call("shape", lambda: self.held.shape(name, fields, fields_max, retention_s))

    async def drop(self, name: str) -> bool:
        return await self._call("drop", lambda: self.held.drop(name))

    async def set_retention(self, name: str, retention_s: float | None) -> bool:
        def change() -> bool:
            held = self.held.tables.get(name)
            if held is not None:
                held.record = replace(held.record, retention_s=retention_s)
            return held is not None

        return await self._call("set_retention", change)

    async def series(self, table: TableRecord, tags: Sequence[Tags], *, tag_values_max: int) -> SeriesFound:
        return await self._call("series", lambda: self.held.series(table, tags, tag_values_max))

    async def write(self, groups: Sequence[TableRows], *, whole: bool = False) -> Wrote:
        self.written.append([len(group.rows) for group in groups])
        return await self._call("write", lambda: self.held.write(groups, whole=whole))

    async def read(self, ask: Range, *, after: tuple[int, int] | None = None, count: int = 10_000) -> list[ReadRow]:
        return await self._call("read", lambda: self.held.read(ask, after, count))

    async def newest(self, table: str, tags: Mapping[str, tuple[str, ...]], count: int) -> list[ReadRow]:
        from outlast.tables import Range

        rows = await self._call("newest", lambda: self.held.read(Range(table, tags=tags), None, 10**9))
        return list({row[0]: row for row in rows}.values())[:count]

    async def tag_names(self, table: str = "", *, prefix: str = "", count: int = 25) -> list[str]:
        def found() -> list[str]:
            names = {tag for name, held in self.held.tables.items() if table in {"", name} for of in held.series for tag, _ in of}
            return sorted(name for name in names if name.startswith(prefix))[:count]

        return await self._call("tag_names", found)

    async def tag_values(self, tag: str = "", *, table: str = "", prefix: str = "", count: int = 25) -> list[str]:
        def found() -> list[str]:
            values = {
                value
                for name, held in self.held.tables.items()
                if table in {"", name}
                for of in held.series
                for each, value in of
                if tag in {"", each} and value.startswith(prefix)
            }
            return sorted(values)[:count]

        return await self._call("tag_values", found)

    async def series_of(self, ask: Range, *, after: int = 0, count: int = 1_000) -> list[tuple[int, Tags]]:
        return await self._call("series_of", lambda: [each for each in self.held.chosen(ask) if each[0] > after][:count])

    async def counts(self, name: str) -> TableCounts | None:
        def found() -> TableCounts | None:
            held = self.held.tables.get(name)
            if held is None:
                return None
            times = [time for _, time in held.points]
            return TableCounts(len(held.series), len(times), True, min(times, default=None), max(times, default=None), None)

        return await self._call("counts", found)

    async def expire(self, name: str, before_ns: int, count: int) -> int:
        def expired() -> int:
            held = self.held.tables.get(name)
            if held is None:
                return 0
            old = sorted(key for key in held.points if key[1] < before_ns)[:count]
            for key in old:
                del held.points[key]
            return len(old)

        return await self._call("expire", expired)
