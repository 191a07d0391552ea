"""The arms of `tables.py`: ways from a body, or from its rows, to durable points. Each tells its processor time a row."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Protocol

import psutil
from _overload_process import processor_s
from _tables_bodies import AT_ONCE, FIELDS, Bodies, Body, together

from outlast.tables import FieldType, Tables
from outlast.tables._lines.parser import LineParser
from outlast.tables._series import KnownSeries
from outlast.tables._stores.choose import store_of
from outlast.tables._stores.port import TableRows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from outlast._drill.greptime.http.client import HttpClient

TYPES = (FieldType.FLOAT, FieldType.FLOAT, FieldType.INTEGER)
SERIES_MANY = 10**9


class Arm(Protocol):
    """One way."""

    name: str

    async def prepare(self, bodies: Bodies) -> None:
        """Make what is there before the first body: tables, series."""
        ...

    async def work(self, bodies: Sequence[Body]) -> float:
        """Do it; return the seconds of processor time that it took."""
        ...


class Meter:
    """The processor time, user and system, of this process or of another, and of the sessions of a PostgreSQL."""

    def __init__(self, postmaster: int | None = None, pid: int | None = None) -> None:
        self._postmaster = None if postmaster is None else psutil.Process(postmaster)
        self._pid = pid

    def now_s(self) -> float:
        """Return the seconds that they have spent so far."""
        own_s = time.process_time() if self._pid is None else processor_s(self._pid)
        return own_s + self._sessions_s()

    def _sessions_s(self) -> float:
        if self._postmaster is None:
            return 0.0
        spent_s = 0.0
        for child in self._postmaster.children():
            with contextlib.suppress(psutil.Error):
                # A session, and none of the server's own processes: those do the same for each arm, at times of their own.
                if "127.0.0.1" in " ".join(child.cmdline()):
                    spent_s += processor_s(child.pid)
        return spent_s


class OurParser:
    """Our parser alone."""

    name = "parser"

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._parser = LineParser(KnownSeries())

    async def prepare(self, bodies: Bodies) -> None:
        """Meet each series."""
        for text in bodies.first():
            assert not self._parser.parse(text, unit_ns=1).refused

    async def work(self, bodies: Sequence[Body]) -> float:
        """Parse."""
        began_s = self._meter.now_s()
        for body in bodies:
            parsed = self._parser.parse(body.text, unit_ns=1)
            assert not parsed.refused
        return self._meter.now_s() - began_s


class ParserInC:
    """The parser in C of PyPI, line by line, as it wants them."""

    name = "line-protocol-parser"

    def __init__(self, meter: Meter) -> None:
        from line_protocol_parser import parse_line

        self._parse = parse_line
        self._meter = meter

    async def prepare(self, bodies: Bodies) -> None:
        """Do nothing."""

    async def work(self, bodies: Sequence[Body]) -> float:
        """Parse."""
        began_s = self._meter.now_s()
        for body in bodies:
            found = [self._parse(line) for line in body.text.decode().split("\n")]
            assert len(found) == body.points
        return self._meter.now_s() - began_s


class StoreAlone:
    """The store alone: rows of known series, so many bodies a transaction."""

    name = "store"

    def __init__(self, meter: Meter, db: Any, together: int) -> None:  # noqa: ANN401 - one of two adapters
        self._together = together
        self._meter = meter
        self._store = store_of(db, "outlast", "metrics")
        self._records: dict[str, Any] = {}
        self._ids: dict[str, Sequence[int]] = {}

    async def prepare(self, bodies: Bodies) -> None:
        """Make the tables and the series."""
        await self._store.open()
        for table in bodies.tables:
            fields = dict(zip(FIELDS, TYPES, strict=True))
            self._records[table] = record = await self._store.shape(table, fields, fields_max=100)
            tags = [bodies.tags(number) for number in range(bodies.series)]
            self._ids[table] = (await self._store.series(record, tags, tag_values_max=SERIES_MANY)).ids

    async def work(self, bodies: Sequence[Body]) -> float:
        """Write."""
        groups = [
            [
                TableRows(self._records[table], FIELDS, [[self._ids[table][row[0]], *row[1:]] for row in rows])
                for table, rows in by_table.items()
            ]
            for by_table in together(bodies, self._together)
        ]
        began_s = self._meter.now_s()
        for each in groups:
            await self._store.write(each)
        return self._meter.now_s() - began_s


class RowsOfOurs:
    """Parsed rows to durable points, through `Tables`."""

    name = "rows"

    def __init__(self, meter: Meter, db: Any) -> None:  # noqa: ANN401 - one of two adapters
        self._meter = meter
        self.tables = Tables(db)

    async def prepare(self, bodies: Bodies) -> None:
        """Write a point of each series."""
        for text in bodies.first():
            written = await self.tables.write_lines(text)
            assert written.stored == written.points, written

    async def work(self, bodies: Sequence[Body]) -> float:
        """Write what is parsed already."""
        parsed = [self.tables.lines.parse(body.text, unit_ns=1) for body in bodies]
        began_s = self._meter.now_s()

        async def write(one: Any) -> None:  # noqa: ANN401 - what the parser made
            written = await self.tables.write_parsed(one)
            assert written.stored == written.points, written.refused[:3]

        await some_at_once([write(one) for one in parsed])
        return self._meter.now_s() - began_s


class OverHttp:
    """Bodies over HTTP to durable points, of a server of its own; its client's processor time does not count."""

    name = "http"

    def __init__(self, meter: Meter, client: HttpClient) -> None:
        self._meter = meter
        self._client = client

    async def prepare(self, bodies: Bodies) -> None:
        """Write a point of each series."""
        for text in bodies.first():
            await self._write(text)

    async def work(self, bodies: Sequence[Body]) -> float:
        """Send them."""
        began_s = self._meter.now_s()
        await some_at_once([self._write(body.text) for body in bodies])
        return self._meter.now_s() - began_s

    async def _write(self, text: bytes) -> None:
        reply = await self._client.post("/write?db=bench&precision=ns", text)
        assert reply.status == 204, reply


async def some_at_once(works: Sequence[Awaitable[None]]) -> None:
    """Do all of it, `AT_ONCE` at a time."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(work: Awaitable[None]) -> None:
        async with places:
            await work

    await asyncio.gather(*map(one, works))
