"""The store: each call is one transaction, in a thread of the file's."""

from __future__ import annotations

import itertools
import time
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from outlast.tables._errors import TableError
from outlast.tables._limits import FIELDS_LIMIT
from outlast.tables._stores.port import SeriesFound
from outlast.tables._stores.sqlite import catalogue, cleaning, looking, rows, series
from outlast.tables._stores.sqlite.statements import Statements

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import apsw

    from outlast.sqlite import Sqlite
    from outlast.tables._model import FieldType, Range, TableCounts, TableRecord, Tags
    from outlast.tables._stores.port import ReadRow, TableRows, Wrote

T = TypeVar("T")
COUNT_S_MAX: Final = 2.0
SERIES_A_STEP: Final = 2_000
"""Series that one transaction makes, 25 microseconds each."""


class _NotWholeError(TableError):
    """Takes back a write of all or nothing of which something was refused, or stale."""

    def __init__(self, wrote: Wrote) -> None:
        super().__init__("something of a write of all or nothing was not written")
        self.wrote = wrote


class SqliteStore:
    """`TableStore` in a SQLite file, for processes of one machine. The tables of its catalogue begin with `outlast_`.

    A table of points is `(series, time, fields ...)` WITHOUT ROWID: fields have no declared type, so every value stays as it is.
    """

    fields_limit: int = FIELDS_LIMIT

    def __init__(self, db: Sqlite) -> None:
        self.dependency: Sqlite = db
        self._db = db
        self._writer = rows.Writer()
        self._expired_to: dict[str, int] = {}
        """For a table whose old points are being deleted: the series up to which that is done."""

    async def open(self) -> None:
        """See the port."""
        await self._write(partial(catalogue.bring_up, path=self._db.path))

    async def close(self) -> None:
        """See the port."""

    async def tables(self, *, after: str = "", count: int = 1_000) -> list[TableRecord]:
        """See the port."""
        return await self._read(partial(catalogue.tables, after=after, count=count))

    async def table(self, name: str) -> TableRecord | None:
        """See the port."""
        return await self._read(partial(catalogue.table, name=name))

    async def shape(
        self, name: str, fields: Mapping[str, FieldType], *, fields_max: int, retention_s: float | None = None
    ) -> TableRecord:
        """See the port. A table that is there gets its fields by some eight a transaction."""
        while True:
            record, more = await self._write(
                lambda st: catalogue.shape(st, name, fields, min(fields_max, FIELDS_LIMIT), retention_s, time.time())
            )
            if not more:
                return record

    async def drop(self, name: str) -> bool:
        """See the port. Its points are deleted some thousand a transaction."""
        was_there = await self._write(partial(catalogue.begin_drop, name=name), cleaning=True)
        self._expired_to.pop(name, None)
        while await self._write(cleaning.clear_some, cleaning=True):
            pass
        return was_there

    async def set_retention(self, name: str, retention_s: float | None) -> bool:
        """See the port."""
        return await self._write(partial(catalogue.set_retention, name=name, retention_s=retention_s))

    async def series(self, table: TableRecord, tags: Sequence[Tags], *, tag_values_max: int) -> SeriesFound:
        """See the port. Many are made some thousand a transaction, so that others can write in between."""
        ids: list[int] = []
        full: dict[int, str] = {}
        for first in range(0, max(len(tags), 1), SERIES_A_STEP):
            some = tags[first : first + SERIES_A_STEP]
            found = await self._write(partial(series.make, table=table, tags=some, tag_values_max=tag_values_max))
            full |= {len(ids) + place: tag for place, tag in found.full.items()}
            ids += found.ids
        return SeriesFound(ids, full)

    async def write(self, groups: Sequence[TableRows], *, whole: bool = False) -> Wrote:
        """See the port."""
        if not whole:
            return await self._write(partial(self._writer.write, groups=groups))

        def all_of_it(st: Statements) -> Wrote:
            wrote = self._writer.write(st, groups)
            if wrote.refused or wrote.stale:
                raise _NotWholeError(wrote)
            return wrote

        try:
            return await self._write(all_of_it)
        except _NotWholeError as error:
            return error.wrote

    async def read(self, ask: Range, *, after: tuple[int, int] | None = None, count: int = 10_000) -> list[ReadRow]:
        """See the port."""
        return await self._read(partial(rows.read, ask=ask, after=after, count=count))

    async def newest(self, table: str, tags: Mapping[str, tuple[str, ...]], count: int) -> list[ReadRow]:
        """See the port."""
        return await self._read(lambda st: rows.newest(st, table, tags, count))

    async def tag_names(self, table: str = "", *, prefix: str = "", count: int = 25) -> list[str]:
        """See the port."""
        return await self._read(lambda st: looking.tag_names(st, table, prefix, count))

    async def tag_values(self, tag: str = "", *, table: str = "", prefix: str = "", count: int = 25) -> list[str]:
        """See the port."""
        return await self._read(lambda st: looking.tag_values(st, tag, table, prefix, count))

    async def series_of(self, ask: Range, *, after: int = 0, count: int = 1_000) -> list[tuple[int, Tags]]:
        """See the port."""

        def found(st: Statements) -> list[tuple[int, Tags]]:
            record = catalogue.table(st, ask.table)
            if record is None or count < 1:
                return []
            pages = series.pages(st, record.id, ask.tags, after)
            return list(itertools.islice((one for page in pages for one in page.items()), count))

        return await self._read(found)

    async def counts(self, name: str) -> TableCounts | None:
        """See the port."""
        return await self._read(partial(looking.counts, name=name), deadline_s=COUNT_S_MAX)

    async def expire(self, name: str, before_ns: int, count: int) -> int:
        """See the port. It goes on where the call before it ended, in transactions that look at some 2,000 series each.

        Only after a walk through all series that found nothing it returns 0.
        """
        deleted, whole = 0, name not in self._expired_to
        while deleted < count:
            step = partial(
                cleaning.expire, name=name, before_ns=before_ns, count=count - deleted, after=self._expired_to.get(name, 0)
            )
            expired = await self._write(step, cleaning=True)
            deleted += expired.points
            if expired.after is not None:
                self._expired_to[name] = expired.after
                continue
            self._expired_to.pop(name, None)
            if deleted or whole:
                break
            whole = True
        return deleted

    async def _write(self, function: Callable[[Statements], T], *, cleaning: bool = False) -> T:
        def whole(connection: apsw.Connection) -> T:
            return function(Statements(connection))

        return await self._db.write(whole, cleaning=cleaning)

    async def _read(self, function: Callable[[Statements], T], *, deadline_s: float | None = None) -> T:
        def whole(connection: apsw.Connection) -> T:
            return function(Statements(connection))

        return await self._db.read(whole, deadline_s=deadline_s)
