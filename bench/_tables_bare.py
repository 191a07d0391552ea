"""The bare arms of `tables.py`: the same rows by the driver alone, into tables of the same shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from _tables_bodies import together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _tables_arms import Meter
    from _tables_bodies import Bodies, Body

NAMES = "series, time, usage_user, usage_system, procs"
MARKS = "?, ?, ?, ?, ?"
SET = "usage_user = excluded.usage_user, usage_system = excluded.usage_system, procs = excluded.procs"
ARRAYS = "%s::bigint[], %s::bigint[], %s::float8[], %s::float8[], %s::bigint[]"


class Executemany:
    """`executemany` of apsw, so many bodies a transaction; `upserts`: with ON CONFLICT, as ours has to have it."""

    def __init__(self, meter: Meter, path: str, count: int, *, upserts: bool) -> None:
        import apsw

        self._count = count

        self.name = "on conflict" if upserts else "executemany"
        self._meter = meter
        self._db: Any = apsw.Connection(path)
        # As `outlast.sqlite` has them.
        self._db.execute("PRAGMA journal_mode = wal; PRAGMA synchronous = full")
        self._more = f" ON CONFLICT (series, time) DO UPDATE SET {SET}" if upserts else ""

    async def prepare(self, bodies: Bodies) -> None:
        """Make the tables, with a point of each series."""
        for table in bodies.tables:
            columns = "series INTEGER NOT NULL, time INTEGER NOT NULL, usage_user, usage_system, procs"
            self._db.execute(f"CREATE TABLE {table} ({columns}, PRIMARY KEY (series, time)) WITHOUT ROWID")
            rows = [(number, 1, 1.0, 1.0, 1) for number in range(bodies.series)]
            with self._db:
                self._db.executemany(f"INSERT INTO {table} ({NAMES}) VALUES ({MARKS})", rows)

    async def work(self, bodies: Sequence[Body]) -> float:
        """Write."""
        transactions = together(bodies, self._count)
        began_s = self._meter.now_s()
        for by_table in transactions:
            self._db.execute("BEGIN IMMEDIATE")
            for table, rows in by_table.items():
                self._db.executemany(f"INSERT INTO {table} ({NAMES}) VALUES ({MARKS}){self._more}", rows)
            self._db.execute("COMMIT")
        return self._meter.now_s() - began_s

    def close(self) -> None:
        """Let go of it."""
        self._db.close()


class PostgresBare:
    """psycopg alone, so many bodies a transaction: COPY into each table, or INSERT of arrays with ON CONFLICT."""

    def __init__(self, meter: Meter, dsn: str, count: int, *, upserts: bool) -> None:
        import psycopg

        self._count = count

        self.name = "on conflict" if upserts else "copy"
        self._meter = meter
        self._conn = psycopg.connect(dsn)
        self._schema = "bare_upsert" if upserts else "bare_copy"
        self._upserts = upserts

    async def prepare(self, bodies: Bodies) -> None:
        """Make the tables, with a point of each series."""
        self._conn.execute(f"CREATE SCHEMA {self._schema}".encode())
        for table in bodies.tables:
            columns = "series bigint NOT NULL, time bigint NOT NULL, usage_user float8, usage_system float8, procs bigint"
            self._conn.execute(f"CREATE TABLE {self._schema}.{table} ({columns}, PRIMARY KEY (series, time))".encode())
            points = "SELECT g, 1, 1.0, 1.0, 1 FROM generate_series(0, %s) AS g"
            self._conn.execute(f"INSERT INTO {self._schema}.{table} {points}".encode(), (bodies.series - 1,))
        self._conn.commit()

    async def work(self, bodies: Sequence[Body]) -> float:
        """Write."""
        transactions = together(bodies, self._count)
        began_s = self._meter.now_s()
        for by_table in transactions:
            with self._conn.cursor() as cursor:
                for table, rows in by_table.items():
                    target = f"{self._schema}.{table}"
                    if self._upserts:
                        insert = f"INSERT INTO {target} ({NAMES}) SELECT * FROM unnest({ARRAYS})"
                        arrays = [list(column) for column in zip(*rows, strict=True)]
                        cursor.execute(f"{insert} ON CONFLICT (series, time) DO UPDATE SET {SET}".encode(), arrays)
                    else:
                        with cursor.copy(f"COPY {target} ({NAMES}) FROM STDIN".encode()) as copy:
                            for row in rows:
                                copy.write_row(row)
            self._conn.commit()
        return self._meter.now_s() - began_s

    def close(self) -> None:
        """Let go of it."""
        self._conn.close()
