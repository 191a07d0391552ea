"""A process of its own on a store of tables, for tests that let many race or kill one: `PLACE write` or `PLACE race`.

PLACE is a path of a SQLite file or a DSN of PostgreSQL. `write` writes batches without end, and prints the number of each that
was acknowledged. `race` makes, for each number that it reads, a table of that number with fields, series and points; it prints
"made" or the error.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from typing import TYPE_CHECKING

from outlast.tables import FieldType
from outlast.tables._stores.choose import store_of
from outlast.tables._stores.port import TableRows

if TYPE_CHECKING:
    from outlast.tables._stores.port import TableStore

BATCH = 20
TABLES = 3
FIELDS = 4


def tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def store_at(place: str) -> TableStore:
    if "=" in place or "://" in place:
        from outlast.postgres import Postgres

        return store_of(Postgres(place), "outlast", "metrics")
    from outlast.sqlite import Sqlite

    return store_of(Sqlite(place), "outlast", "metrics")


async def write(store: TableStore) -> None:
    """Write batches of points of a few tables; between them a table is dropped, and made again by the next batch."""
    begun = len(await store.tables())
    name = f"of {os.getpid()} {begun}"
    for number in itertools.count():
        if number % 5 == 4:
            await store.drop("short-lived")
        groups: list[TableRows] = []
        for table in (f"{name} {number % TABLES}", "short-lived"):
            record = await store.shape(table, {"batch": FieldType.INTEGER}, fields_max=9)
            tags = [(("host", str(host)), ("of", str(number // 10))) for host in range(BATCH)]
            found = await store.series(record, tags, tag_values_max=1_000_000)
            groups.append(TableRows(record, ("batch",), [[series, number, number] for series in found.ids]))
        wrote = await store.write(groups)
        assert not wrote.refused
        assert not wrote.stale
        tell(f"{name} {number % TABLES}\t{number}")


async def race(store: TableStore) -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            await one_round(store, f"t{line.strip()}")
        except Exception as error:  # noqa: BLE001 - it is the outcome
            tell(f"{type(error).__name__}: {error}")
        else:
            tell("made")


async def one_round(store: TableStore, name: str) -> None:
    for number in range(FIELDS):
        record = await store.shape(name, {f"f{number}": FieldType.FLOAT, "n": FieldType.INTEGER}, fields_max=9)
    tags = [(("pid", str(os.getpid())),), (("pid", "all"),)]
    found = await store.series(record, tags, tag_values_max=100)
    fields = tuple(f"f{number}" for number in range(FIELDS))
    wrote = await store.write([TableRows(record, fields, [[series, os.getpid(), 1.5, 1.5, 1.5, 1.5] for series in found.ids])])
    assert not wrote.refused, wrote
    assert not wrote.stale, wrote


async def main(place: str, task: str) -> None:
    store = store_at(place)
    await store.dependency.open()
    await store.open()
    tell("ready")
    await {"write": write, "race": race}[task](store)
    await store.close()
    await store.dependency.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
