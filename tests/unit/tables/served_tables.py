"""Tables on fakes, in a service and in virtual time; and short words for bodies and for what is read."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fake_procedure_store import FakeStore
from fake_table_store import FakeTableStore
from outlast import Service, Stop
from outlast.tables import FieldType, Range, Tables
from outlast.tables._model import Parsed, PointOutcome, Rows
from outlast.tables._tables import Stores

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from outlast.tables import Written
    from outlast.tables._series import KnownSeries

INTEGER, FLOAT, NUMBER = FieldType.INTEGER, FieldType.FLOAT, FieldType.NUMBER
STRING, BOOLEAN = FieldType.STRING, FieldType.BOOLEAN
STORED, NEVER, LATER, PERSON = PointOutcome.STORED, PointOutcome.NEVER, PointOutcome.LATER, PointOutcome.PERSON
TYPES = {int: INTEGER, float: FLOAT, str: STRING, bool: BOOLEAN}
NOW_NS = 1_000_000_000_000_000_000


@dataclass
class Served:
    """One process."""

    tables: Tables
    store: FakeTableStore
    procedures: FakeStore
    service: Service
    stop: Stop = field(default_factory=Stop)
    life: asyncio.Task[int] | None = None

    @property
    def made(self) -> list[str]:
        """The tables whose making or changing was done, in order."""
        return self.store.held.shapes

    async def start(self) -> None:
        self.life = asyncio.create_task(self.service.run(self.stop))
        await self.service.until_ready()
        await self.tables._open()

    async def end(self) -> int:
        self.stop.fire("the test says so")
        assert self.life is not None
        return await self.life

    async def points(self, table: str) -> dict[tuple[str, int], dict[str, Any]]:
        """The points of a table: by the value of their first tag, and time."""
        return {
            (point.tags[0][1] if point.tags else "", point.time_ns): dict(point.fields)
            async for point in self.tables.read(Range(table))
        }


def served_by(store: FakeTableStore, procedures: FakeStore, path: Path, *, deadline_s: float = 10.0, **settings: Any) -> Served:
    """A process that is not started yet."""
    tables = Tables(Stores(store, procedures), journal_path=path, **settings)
    tables._desk.now_ns = tables._upkeep._now_ns = lambda: NOW_NS + round(asyncio.get_running_loop().time() * 1e9)
    service = Service("metrics", deadline_s=deadline_s)
    tables.attach(service)
    return Served(tables, store, procedures, service)


@asynccontextmanager
async def served(path: Path, *, latency_s: float = 0.0, **settings: Any) -> AsyncIterator[Served]:
    """One process, from its start to the end of its stop."""
    process = served_by(FakeTableStore(latency_s=latency_s), FakeStore(latency_s=latency_s), path / "journal", **settings)
    await process.start()
    try:
        yield process
    finally:
        assert await process.end() == 0


def body(known: KnownSeries, *points: tuple[str, Mapping[str, str], int | None, Mapping[str, Any]]) -> Parsed:
    """A body as a parser makes it: points of table, tags, time and fields, on lines from 1."""
    parsed = Parsed(points=len(points))
    shapes: dict[Any, Rows] = {}
    for place, (table, tags, time_ns, fields) in enumerate(points, 1):
        types = tuple(TYPES[type(value)] for value in fields.values())
        rows = shapes.get((table, tuple(fields), types))
        if rows is None:
            rows = shapes[table, tuple(fields), types] = Rows(table, tuple(fields), types)
            parsed.rows.append(rows)
        rows.rows.append([known.get(table, tuple(sorted(tags.items()))), time_ns, *fields.values()])
        rows.places.append(place)
    return parsed


def point(table: str, time_ns: int | None, host: str = "", **fields: Any) -> tuple[str, Mapping[str, str], int | None, Any]:
    return table, {"host": host} if host else {}, time_ns, fields


async def write(process: Served, *points: Any, **options: Any) -> Written:
    """Write one body."""
    return await process.tables.write_parsed(body(process.tables.known, *points), **options)


def refusals(written: Written) -> list[tuple[int, PointOutcome, str]]:
    """Place, outcome and code of what was refused."""
    return [(each.place, each.outcome, each.fault.code) for each in written.refused]
