"""What the suite of the stores of tables is run with: a rig for each store, and short words for what is written and read."""

from __future__ import annotations

import abc
import contextlib
from typing import TYPE_CHECKING, Any

from outlast.tables import FieldType, Range, TableRecord
from outlast.tables._stores.port import TableRows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence

    from outlast.tables._model import Tags
    from outlast.tables._stores.port import ReadRow, TableStore, Wrote

INTEGER, FLOAT, NUMBER = FieldType.INTEGER, FieldType.FLOAT, FieldType.NUMBER
STRING, BOOLEAN = FieldType.STRING, FieldType.BOOLEAN
VALUES_MAX = 1_000
FIELDS_MAX = 500

Read = tuple[dict[str, str], int, dict[str, Any]]
"""A point as it was read: tags, time, and those fields that it has."""


class TableStoreRig(abc.ABC):
    """Tables of a test's own, and what somebody else does where they lie."""

    @abc.abstractmethod
    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a test, within a limit."""

    @abc.abstractmethod
    def store(self) -> TableStore:
        """Make a store as another process would: on the same tables, with a dependency of its own. Nothing is opened."""

    @abc.abstractmethod
    async def by_hand(self, statement: str) -> None:
        """Run a statement as somebody else would, where the tables of points lie."""

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[TableStore]:
        """Open a store for a block."""
        store = self.store()
        await store.dependency.open()
        try:
            await store.open()
            yield store
        finally:
            await store.close()
            await store.dependency.close()


async def shape(store: TableStore, name: str = "cpu", **fields: FieldType) -> TableRecord:
    return await store.shape(name, fields, fields_max=FIELDS_MAX)


def types(record: TableRecord) -> dict[str, FieldType]:
    return {field.name: field.type for field in record.fields}


def tags(**values: str) -> Tags:
    return tuple(sorted(values.items()))


async def ids(store: TableStore, record: TableRecord, *of: Tags) -> list[int]:
    found = await store.series(record, of, tag_values_max=VALUES_MAX)
    assert not found.full
    return list(found.ids)


def group(record: TableRecord, fields: str | Sequence[str], *rows: list[Any]) -> TableRows:
    """Make rows of one table; the names of fields stand in one text, or as they are."""
    return TableRows(record, tuple(fields.split() if isinstance(fields, str) else fields), list(rows))


async def write(store: TableStore, *groups: TableRows) -> None:
    """Write what is to be taken, all of it."""
    wrote = await store.write(groups)
    assert (list(wrote.refused), set(wrote.stale)) == ([], set()), wrote


def refused(wrote: Wrote) -> list[tuple[int, int]]:
    return sorted((one.group, one.row) for one in wrote.refused)


async def put(store: TableStore, name: str, of: Tags, points: Mapping[int, Mapping[str, Any]], **fields: FieldType) -> None:
    """Write points of one series, by their times; the table is made with these fields."""
    record = await shape(store, name, **fields)
    [series] = await ids(store, record, of)
    await write(store, *(group(record, list(point), [series, time, *point.values()]) for time, point in points.items()))


async def read(store: TableStore, ask: Range | str = "cpu", *, page: int = 10_000) -> list[Read]:
    """Read all, a page at a time."""
    asked = Range(ask) if isinstance(ask, str) else ask
    record = await store.table(asked.table)
    names = asked.fields or (tuple(field.name for field in record.fields) if record is not None else ())
    found: list[Read] = []
    after: tuple[int, int] | None = None
    while True:
        rows = await store.read(asked, after=after, count=page)
        assert len(rows) <= page
        for series, has, time, values in rows:
            assert after is None or after < (series, time), "in the order of series and time"
            after = (series, time)
            present = {name: value for name, value in zip(names, values, strict=True) if value is not None}
            found.append((dict(has), time, present))
        if len(rows) < page:
            return found


async def series_of(store: TableStore, ask: Range, *, page: int = 1_000) -> list[tuple[int, Tags]]:
    """Return all series of a range, a page at a time."""
    found: list[tuple[int, Tags]] = []
    while True:
        some = await store.series_of(ask, after=found[-1][0] if found else 0, count=page)
        assert len(some) <= page
        found += some
        if len(some) < page:
            return found


async def fields_of(store: TableStore, row: ReadRow, name: str = "cpu") -> dict[str, Any]:
    """Return the fields that a row of all fields has."""
    record = await store.table(name)
    assert record is not None
    return {one.name: value for one, value in zip(record.fields, row[3], strict=True) if value is not None}
