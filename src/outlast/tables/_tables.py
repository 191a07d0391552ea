"""Tables as their users see them: write, read, look, drop; and made in a service when they are first written to."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from outlast import ConfigurationError, Phase, Stopping, Unavailable
from outlast.procedures import Procedures
from outlast.tables._limits import TableLimits
from outlast.tables._model import FieldType, ReadPoint
from outlast.tables._schema.block import Block, default_journal
from outlast.tables._schema.catalogue import Catalogue
from outlast.tables._schema.rates import Rates
from outlast.tables._schema.shape_procedures import DROP_KIND, lock_of, procedures_of
from outlast.tables._schema.shaping import Shaper
from outlast.tables._schema.upkeep import Upkeep
from outlast.tables._series import KnownSeries
from outlast.tables._shown import ShownTables
from outlast.tables._stores.choose import store_of
from outlast.tables._writing.body import Body, Desk
from outlast.tables._writing.line import Line
from outlast.tables._writing.points import parsed_of
from outlast.tables._writing.tally import Tally
from outlast.tables._writing.writer import Writer

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Mapping, Sequence
    from types import TracebackType

    from outlast import Classifiers, Dependency, Service
    from outlast.tables._lines.parser import LineParser
    from outlast.tables._model import Parsed, Point, Range, TableCounts, TableRecord, Tags, Written
    from outlast.tables._stores.port import ReadRow, TableStore

DEADLINE_S: Final = 5.0
"""The time that a body has unless it says otherwise."""
DROP_S: Final = 60.0
PAGE: Final = 10_000
"""Values of one page of what is read, of which a text counts for `TEXT_WEIGHT`."""
TEXT_WEIGHT: Final = 100
CLOSED: Final = "the tables are closed"
SLOTS: Final = 8
"""Tables that are made at a time: a store takes one change of its catalogue after the other."""
DONE_KEEP_S: Final = 3_600.0
RETENTION_S_MAX: Final = 100 * 365.25 * 86_400
"""A hundred years."""


class Stores(NamedTuple):
    """A store of tables and what `Procedures` takes, where they are not one database: for tests."""

    tables: TableStore
    procedures: object


class Tables:
    """A store of metrics whose tables make themselves.

        tables = Tables(Sqlite("metrics.db"))
        tables.attach(service)
        written = await tables.write([Point("cpu", {"used": 0.5}, {"host": "a"})])

    A table is made, and gets its fields, by a procedure when points first name them. What is stored is durable when a write
    returns; what is not says why, and when to come back. `async with tables:` uses it without a service.

    - `limits`: the bounds of what writers may make.
    - `retention_s`: how long points of tables made from now on are kept; None: forever.
    - `schema`, `data_schema`: where the catalogue and the tables lie, in PostgreSQL.
    - `journal_path`: that of the procedures; each process needs its own.
    - `make`: a catalogue that is not there, or older, is made when it is first used. Without it a look changes nothing.
    """

    def __init__(
        self,
        db: object,
        *,
        limits: TableLimits | None = None,
        retention_s: float | None = None,
        schema: str = "outlast",
        data_schema: str = "metrics",
        journal_path: str | os.PathLike[str] | None = None,
        classifiers: Classifiers | None = None,
        make: bool = True,
    ) -> None:
        """Do nothing yet. Raises `ConfigurationError`."""
        self.limits: Final = limits or TableLimits()
        if retention_s is not None:
            check_retention(retention_s)
        of_tables, of_procedures = db if isinstance(db, Stores) else (db, db)
        self.store: Final = store_of(of_tables, schema, data_schema)
        self.known: Final = KnownSeries()
        """The series that parsers have met."""
        self._make = make
        self._databases = of_procedures, schema, classifiers
        self._journal_path = None if journal_path is None else Path(journal_path)
        self._catalogue = Catalogue()
        self._tally = Tally()
        self._rates = Rates(self.limits)
        self._line = Line(self.limits.points_max)
        self._writer = Writer(self.store, self._line, self.limits, self._tally)
        self._shaper = Shaper(
            self.store, self._catalogue, self.limits, self._rates, retention_s=retention_s, begin=self._procedures_at_work
        )
        self._desk = Desk(self.store, self._catalogue, self._shaper, self._line, self.limits, self._tally, time.time_ns)
        self._upkeep = Upkeep(self.store, self._catalogue, self._tally, time.time_ns, self._open, self._shaper.forget)
        self._is_open = False
        self._opening = asyncio.Lock()
        self._service: Service | None = None
        """The service that it belongs to, or its own in a block."""
        self._procedures: Procedures | None = None
        self._block: Block | None = None
        self._writing: asyncio.Task[None] | None = None
        self.shown: Final = ShownTables(
            self.store,
            self._line,
            self._tally,
            self._catalogue,
            self.known,
            self._shaper,
            self._writer.incident,
            is_open=lambda: self._is_open,
        )
        """Its figures and health, for `service.show`."""

    @property
    def dependency(self) -> Dependency:
        """The dependency that it lies in."""
        return self.store.dependency

    @cached_property
    def lines(self) -> LineParser:
        """The parser of InfluxDB's line protocol, which learns from what it reads."""
        from outlast.tables._lines.parser import LineParser  # noqa: PLC0415 - only who reads lines pays for it

        return LineParser(self.known)

    # Its life.

    def attach(self, service: Service) -> None:
        """Make it a part of `service`: its procedures, its writer, its retention. Once; raises `ConfigurationError`.

        From the step that fires the stop on, new bodies get `Stopping`; what is under way is written in the phases of the stop.
        """
        self._check_is_free()
        path = self._journal_path or default_journal(self.dependency, self._databases[1])
        self._procedures = self._made_procedures(path)
        self._service = service
        service.needs(self.dependency)
        self._procedures.attach(service)
        self._rates.attach(service)
        service.on_start(self._begin)
        service.on_stop(self._flush)
        service.on_stop(self._end, phase=Phase.CLOSE)
        service.task(name="tables upkeep")(self._upkeep.run)
        service.show(self.shown)

    async def __aenter__(self) -> Self:
        """Use it without a service: writes and reads pass, and tables are made by a runner in this block."""
        self._check_is_free()
        self._block = Block()
        await self.dependency.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write what waits, and let go of everything, the dependency too."""
        try:
            await self._flush()
        finally:
            await self._end()
            block, self._block, self._procedures = self._block, None, None
            if block is not None:
                await block.close()
            await self.dependency.close()

    def _check_is_free(self) -> None:
        if self._service is not None or self._block is not None:
            msg = "tables: attached to a service already, or in use in a block; make one Tables for each"
            raise ConfigurationError(msg)

    def _made_procedures(self, path: Path) -> Procedures:
        of_procedures, schema, classifiers = self._databases
        return Procedures(
            of_procedures,
            procedures_of(self.store, self._catalogue),
            schema=schema,
            slots=SLOTS,
            journal_path=path,
            done_keep_s=DONE_KEEP_S,
            classifiers=classifiers,
        )

    async def _procedures_at_work(self) -> Procedures:
        """Return the procedures. In a block their runner begins now: who only looks has none."""
        if self._procedures is None and self._block is not None:
            await self._open()
            made = await self._block.runs(self._made_procedures)
            self._procedures = made
        if self._procedures is None:
            raise Stopping(CLOSED)
        return self._procedures

    async def _begin(self) -> None:
        self._line.closed = None
        if self._writing is None:
            self._writing = asyncio.create_task(self._writer.run(), name="outlast tables writer")

    async def _flush(self) -> None:
        if self._writing is not None:
            await self._writer.drained()

    async def _end(self) -> None:
        """Let go: what could not be written is refused."""
        self._line.close(CLOSED)
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.cancel()
            await asyncio.wait({writing})
        self._writer.refuse_all()
        self._writer.incident.forget_timer()
        await self._shaper.close()
        await self._desk.close()
        with suppress(Exception):
            await self.store.close()

    async def _open(self) -> None:
        """Open the store, and read the catalogue, once. Raises what the store raises."""
        if self._is_open:
            return
        async with self._opening:
            if not self._is_open:
                if self._make:
                    await self.store.open()
                await self._upkeep.load()
                self._is_open = True

    async def _ready_to_read(self) -> None:
        if self._make:
            await self._open()

    # Writing.

    def check(self, points: int = 0) -> None:
        """Raise `Unavailable` or `Stopping` if nothing could be taken now. Ask before a body is read: it costs nothing.

        From the step that fires the service's stop on it raises `Stopping`.
        """
        service = self._service
        if service is not None and service.gate.closed is not None:
            self._tally.bodies_refused["stopping"] += 1
            raise Stopping(service.gate.closed)
        self._check(points)

    def unavailable(self) -> Unavailable | None:
        """Return the refusal that any body would get now; None if there is none. Nothing is counted: it is for health checks."""
        if not self.dependency.passable:
            return self.dependency.unavailable()
        try:
            self._line.check(0)
        except Stopping:
            return None
        except Unavailable as exc:
            return exc
        return None

    def _check(self, points: int) -> None:
        if self._service is None and self._block is None:
            msg = "tables: not in use: attach it to a service, or use `async with`"
            raise RuntimeError(msg)
        try:
            if not self.dependency.passable:
                raise self.dependency.unavailable()
            self._line.check(points)
        except (Unavailable, Stopping) as exc:
            self._tally.bodies_refused["stopping" if isinstance(exc, Stopping) else exc.fault.code] += 1
            raise

    async def write(self, points: Sequence[Point], *, client: str = "", deadline_s: float | None = None) -> Written:
        """Write points from Python; places count from 0. See `write_parsed`."""
        return await self.write_parsed(parsed_of(points, self.known), client=client, deadline_s=deadline_s)

    async def write_lines(
        self, lines: bytes, *, unit_ns: int | None = 1, client: str = "", deadline_s: float | None = None
    ) -> Written:
        """Write lines of InfluxDB's line protocol; places are numbers of lines, from 1. See `write_parsed`."""
        parsed = self.lines.parse(lines, unit_ns=unit_ns)
        parsed.source = lines
        return await self.write_parsed(parsed, client=client, deadline_s=deadline_s)

    async def write_parsed(
        self,
        parsed: Parsed,
        *,
        client: str = "",
        durable: bool = True,
        whole: bool = False,
        deadline_s: float | None = None,
    ) -> Written:
        """Write what a parser of ours made of a body. It may change the rows of `parsed`.

        `client`: whose quota it is, the name of its token. `durable=False`: return once they are in line. `whole`: store nothing
        if anything is refused, by the store too. `deadline_s`: the seconds after which what is not stored is refused, LATER; at
        most 5.

        Raises `Unavailable` when nothing of the body could be taken: the store is away, the line is full, the quota is used up;
        and `Stopping` once what waits has been flushed at the stop: until then what was read may still be written. If it is
        cancelled, each point is stored or not.
        """
        self._check(parsed.points)
        try:
            refusal = self._rates.points(client, parsed.points)
            if not self._is_open:
                await self._open_to_write()
        except Unavailable as exc:
            self._tally.bodies_refused[exc.fault.code] += 1
            raise
        if self._writing is None:
            await self._begin()
        deadline_s = DEADLINE_S if deadline_s is None else min(DEADLINE_S, deadline_s)
        body = Body(self._desk, parsed, deadline_s=deadline_s, durable=durable)
        if refusal is not None:
            return body.refuse(refusal)
        return await (body.write_whole() if whole else body.write())

    async def _open_to_write(self) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._open()
        except Stopping:
            raise
        except Exception as exc:
            raise self.dependency.refusal(exc) from exc

    # Reading.

    async def read(self, ask: Range, *, points_max: int | None = None) -> AsyncIterator[ReadPoint]:
        """Iterate over points by series and time, a page at a time; at most `points_max`."""
        await self._ready_to_read()
        record = await self.store.table(ask.table)
        if record is None:
            return
        fields = ask.fields or tuple(field.name for field in record.fields)
        ask = replace(ask, fields=fields)
        left = points_max
        page_points = page_of(record, fields)
        after: tuple[int, int] | None = None
        while left is None or left > 0:
            count = page_points if left is None else min(page_points, left)
            page = await self.store.read(ask, after=after, count=count)
            for row in page:
                yield _point_of(row, fields)
            if len(page) < count:
                return
            after = page[-1][0], page[-1][2]
            left = None if left is None else left - count

    async def series(self, ask: Range, *, after: int = 0, count: int = 1_000) -> list[tuple[int, Tags]]:
        """Return series that have the tags of `ask`, in the order of their numbers; those above `after`."""
        await self._ready_to_read()
        return await self.store.series_of(ask, after=after, count=count)

    async def newest(self, table: str, tags: Mapping[str, tuple[str, ...]] | None = None, *, count: int = 100) -> list[ReadPoint]:
        """Return the newest point of each series, up to `count` series."""
        await self._ready_to_read()
        record = await self.store.table(table)
        if record is None:
            return []
        fields = tuple(field.name for field in record.fields)
        return [_point_of(row, fields) for row in await self.store.newest(table, tags or {}, count)]

    async def tables(self, *, after: str = "", count: int = 1_000) -> list[TableRecord]:
        """Return tables in the order of their names, by bytes; those after the name `after`."""
        await self._ready_to_read()
        return await self.store.tables(after=after, count=count)

    async def table(self, name: str) -> TableRecord | None:
        """Return one table as it is now; None if there is none."""
        await self._ready_to_read()
        return await self.store.table(name)

    async def counts(self, name: str) -> TableCounts | None:
        """Return what a table holds; None if there is none."""
        await self._ready_to_read()
        return await self.store.counts(name)

    async def tag_names(self, table: str = "", *, prefix: str = "", count: int = 25) -> list[str]:
        """Return names of tags, sorted; "" stands for all tables."""
        await self._ready_to_read()
        return await self.store.tag_names(table, prefix=prefix, count=count)

    async def tag_values(self, tag: str = "", *, table: str = "", prefix: str = "", count: int = 25) -> list[str]:
        """Return values of tags, sorted; "" stands for all tags, or tables."""
        await self._ready_to_read()
        return await self.store.tag_values(tag, table=table, prefix=prefix, count=count)

    # Changing.

    async def drop(self, name: str) -> bool:
        """Drop a table by a procedure; return whether there was one.

        Points of it that are written afterwards make it again. Raises what `Procedures.submit` and `ProcedureHandle.wait` do.
        """
        await self._ready_to_read()
        if await self.store.table(name) is None:
            self._catalogue.forget(name)
            return False
        procedures = await self._procedures_at_work()
        handle = await procedures.submit(DROP_KIND, name, deadline_s=DROP_S, locks=[lock_of(name)])
        was_there = await handle.wait(DROP_S)
        self._catalogue.forget(name)
        return bool(was_there)

    async def set_retention(self, name: str, retention_s: float | None) -> bool:
        """Set how long points of a table are kept, None forever; return whether there is one. Raises `ConfigurationError`."""
        check_retention(retention_s)
        await self._ready_to_read()
        there = await self.store.set_retention(name, retention_s)
        self._catalogue.told(name, await self.store.table(name))
        return there


def check_retention(retention_s: float | None) -> None:
    """Raise `ConfigurationError` for a time that is none."""
    if retention_s is not None and not 0 < retention_s <= RETENTION_S_MAX:
        msg = f"tables: retention_s must be above 0 and at most {RETENTION_S_MAX:g} seconds, or None, not {retention_s!r}"
        raise ConfigurationError(msg)


def page_of(record: TableRecord, fields: Sequence[str]) -> int:
    """Return how many points a page of these fields has: a text may be of 64 KiB, and a page is some megabytes at most."""
    texts = {field.name for field in record.fields if field.type is FieldType.STRING}
    return max(1, PAGE // max(1, sum(TEXT_WEIGHT if field in texts else 1 for field in fields)))


def _point_of(row: ReadRow, fields: tuple[str, ...]) -> ReadPoint:
    _, tags, time_ns, values = row
    return ReadPoint(tags, time_ns, {name: value for name, value in zip(fields, values, strict=False) if value is not None})
