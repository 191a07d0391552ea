"""The store of tables in PostgreSQL. `outlast.tables._stores.port` says what it promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast.tables._limits import FIELDS_LIMIT
from outlast.tables._stores.postgres._catalogue import kept, kept_after
from outlast.tables._stores.postgres._formats import TABLES
from outlast.tables._stores.postgres._reading import Reader
from outlast.tables._stores.postgres._series import SeriesKeeper
from outlast.tables._stores.postgres._sessions import SETTINGS, Statements, rows, run, transaction
from outlast.tables._stores.postgres._shaping import Shaper
from outlast.tables._stores.postgres._upkeep import Upkeep
from outlast.tables._stores.postgres._writing import Writer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outlast.postgres import Postgres
    from outlast.tables._model import FieldType, Range, TableCounts, TableRecord, Tags
    from outlast.tables._stores.port import ReadRow, SeriesFound, TableRows, Wrote

_RETENTION = "UPDATE {schema}.tables SET retention_s = $2::float8 WHERE name = $1 RETURNING id"


class PostgresStore:
    """Tables of points in `data_schema`, and their catalogue in `schema` beside the tables of other systems."""

    # PostgreSQL's 1,600 columns are more, unless many were dropped or widened: then `shape` leaves out what has no column left.
    fields_limit = FIELDS_LIMIT

    def __init__(self, db: Postgres, *, schema: str = "outlast", data_schema: str = "metrics") -> None:
        """Nothing is dialled before `open`. A table stays in the data schema that it was made in."""
        self.dependency = db
        self._db = db
        self._said = Statements(schema)
        self._shaper = Shaper(db, self._said, data_schema)
        self._series = SeriesKeeper(db, self._said)
        self._writer = Writer(db, self._said)
        self._reader = Reader(db, self._said)
        self._upkeep = Upkeep(db, self._said)

    async def open(self) -> None:
        async with self._db.connection() as conn:
            await TABLES.migrate(conn, self._said.schema)
        await self._shaper.make_schema()

    async def close(self) -> None:
        self._writer.forget()

    async def tables(self, *, after: str = "", count: int = 1_000) -> list[TableRecord]:
        async with self._db.connection() as conn:
            return [table.record for table in await kept_after(conn, self._said, after, count)]

    async def table(self, name: str) -> TableRecord | None:
        async with self._db.connection() as conn:
            table = await kept(conn, self._said, name)
        return None if table is None else table.record

    async def shape(
        self, name: str, fields: Mapping[str, FieldType], *, fields_max: int, retention_s: float | None = None
    ) -> TableRecord:
        return await self._shaper.shape(name, fields, fields_max, retention_s)

    async def drop(self, name: str) -> bool:
        return await self._shaper.drop(name)

    async def set_retention(self, name: str, retention_s: float | None) -> bool:
        async with transaction(self._db) as conn:
            await run(conn, SETTINGS)
            return bool(await rows(conn, self._said(_RETENTION), name, retention_s))

    async def series(self, table: TableRecord, tags: Sequence[Tags], *, tag_values_max: int) -> SeriesFound:
        return await self._series.ids(table, tags, tag_values_max)

    async def write(self, groups: Sequence[TableRows], *, whole: bool = False) -> Wrote:
        return await self._writer.write(groups, whole=whole)

    async def read(self, ask: Range, *, after: tuple[int, int] | None = None, count: int = 10_000) -> list[ReadRow]:
        return await self._reader.read(ask, after, count)

    async def newest(self, table: str, tags: Mapping[str, tuple[str, ...]], count: int) -> list[ReadRow]:
        return await self._reader.newest(table, tags, count)

    async def tag_names(self, table: str = "", *, prefix: str = "", count: int = 25) -> list[str]:
        return await self._reader.tag_names(table, prefix, count)

    async def tag_values(self, tag: str = "", *, table: str = "", prefix: str = "", count: int = 25) -> list[str]:
        return await self._reader.tag_values(tag, table, prefix, count)

    async def series_of(self, ask: Range, *, after: int = 0, count: int = 1_000) -> list[tuple[int, Tags]]:
        return await self._reader.series_of(ask, after, count)

    async def counts(self, name: str) -> TableCounts | None:
        return await self._upkeep.counts(name)

    async def expire(self, name: str, before_ns: int, count: int) -> int:
        return await self._upkeep.expire(name, before_ns, count)
