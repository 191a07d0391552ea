"""Tables, as a service uses them. Nothing here is run: mypy and basedpyright read it."""

from __future__ import annotations

from typing import assert_type

import outlast
from outlast.sqlite import Sqlite
from outlast.tables import (
    FieldRecord,
    FieldType,
    Point,
    PointOutcome,
    PointRefusal,
    PutServer,
    Range,
    ReadPoint,
    TableCounts,
    TableLimits,
    TableRecord,
    Tables,
    TablesApp,
    Written,
)

service = outlast.Service("metrics")
limits = TableLimits(tables_max=100, tables_per_minute=0.5, points_per_s=1_000, future_s=None)
tables = Tables(Sqlite("metrics.db"), limits=limits, retention_s=86_400.0, journal_path="metrics.journal")
tables.attach(service)
assert_type(tables.dependency, outlast.Dependency)
app = TablesApp(tables)
server = PutServer(tables, "127.0.0.1:4242")


async def write() -> int:
    tables.check(points=1)
    written = await tables.write([Point("cpu", {"used": 0.5, "up": True}, {"host": "a"}, 1)], client="ann", deadline_s=1.0)
    assert_type(written, Written)
    assert_type(written.refused, tuple[PointRefusal, ...])
    for refusal in written.refused:
        assert_type(refusal.outcome, PointOutcome)
        assert_type(refusal.fault, outlast.Fault)
    assert_type(await tables.write_lines(b"cpu,host=a used=1 1", unit_ns=1_000_000_000), Written)
    return written.stored


async def read() -> None:
    async for point in tables.read(Range("cpu", ("used",), {"host": ("a", "b")}), points_max=10):
        assert_type(point, ReadPoint)
    assert_type(await tables.newest("cpu"), list[ReadPoint])
    record = await tables.table("cpu")
    assert_type(record, TableRecord | None)
    if record is not None:
        assert_type(record.fields, tuple[FieldRecord, ...])
        assert_type(record.fields[0].type, FieldType)
    assert_type(await tables.counts("cpu"), TableCounts | None)
    assert_type(await tables.tag_values("host", table="cpu", prefix="a"), list[str])


async def change() -> bool:
    async with Tables(Sqlite("metrics.db"), make=False) as looking:
        assert_type(looking, Tables)
        return await looking.drop("cpu") and await looking.set_retention("mem", None)
