"""A SQLite file on a disk that runs full: what was committed stays, and writing goes on by itself when there is room."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import apsw
import pytest

from outlast import Kind, Scope, State, Unavailable
from outlast.extend import Levels, attached
from outlast.sqlite import Sqlite
from outlast.sqlite import _connection as connection_module
from outlast.testing import SmallDisk

if TYPE_CHECKING:
    from conftest import RunAsync

pytestmark = [pytest.mark.expected_logs, pytest.mark.root]

BLOB = 20_000


def insert(db: apsw.Connection) -> None:
    db.execute("INSERT INTO t(b) VALUES (zeroblob(?))", (BLOB,))


def count(db: apsw.Connection) -> object:
    [(number,)] = db.execute("SELECT count(*) FROM t").fetchall()
    return number


def test_nothing_committed_is_lost_and_it_goes_on_by_itself(run_async: RunAsync) -> None:
    with SmallDisk(4 << 20) as disk:

        async def main() -> None:
            async with Sqlite(disk.path / "work.db", low=None) as db:
                await db.write(lambda connection: connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)"))
                written = 0
                disk.fill(leave_bytes=1 << 20)
                fault = None
                while fault is None:
                    try:
                        await db.write(insert)
                        written += 1
                    except apsw.FullError as error:
                        fault = attached(error)
                assert (fault.kind, fault.code) in {(Kind.EXHAUSTED, "SQLITE_FULL"), (Kind.EXHAUSTED, "ENOSPC")}
                disk.fill(leave_bytes=0)
                while db.state is not State.DOWN:
                    with contextlib.suppress(apsw.FullError, Unavailable):
                        await db.write(insert)
                        written += 1
                with pytest.raises(Unavailable) as refused:
                    await db.write(insert)
                assert refused.value.fault.kind is Kind.EXHAUSTED
                assert await asyncio.to_thread(_count_elsewhere, str(db.path)) == written
                assert await db.read(count) == written, "reads go on"
                assert db.state is State.DOWN
                with pytest.raises(apsw.SQLError) as failed:
                    await db.read(lambda connection: connection.execute("SELECT * FROM nothing"))
                fault = attached(failed.value)
                assert fault is not None
                assert (fault.kind, fault.scope) == (Kind.PERMANENT, Scope.CALL)
                disk.free()
                await db.ready()
                await db.write(insert)
                assert await db.read(count) == written + 1

        run_async(main)


def _count_elsewhere(path: str) -> object:
    connection = apsw.Connection(path)
    try:
        return count(connection)
    finally:
        connection.close()


def test_writing_is_refused_before_the_disk_is_full_and_cleaning_is_not(run_async: RunAsync) -> None:
    with SmallDisk(8 << 20) as disk:

        async def main() -> None:
            async with Sqlite(disk.path / "work.db", low=Levels(2 << 20, 3 << 20)) as db:
                await db.write(lambda connection: connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)"))
                await db.write(insert)
                disk.fill(leave_bytes=(2 << 20) - 10_000)
                with pytest.raises(OSError, match="writing stops below") as caught:
                    await db.write(insert)
                fault = attached(caught.value)
                assert fault is not None
                assert (fault.kind, fault.code, fault.scope, db.state) == (
                    Kind.EXHAUSTED,
                    "low space",
                    Scope.DEPENDENCY,
                    State.DOWN,
                )
                await db.write(lambda connection: connection.execute("DELETE FROM t"), cleaning=True)
                disk.free()
                await db.ready()
                await db.write(insert)
                assert await db.read(count) == 1

        run_async(main)


def test_one_call_that_wants_too_much_room_for_its_temporary_files_is_alone(run_async: RunAsync) -> None:
    with SmallDisk(24 << 20) as disk:

        async def main() -> None:
            connection_module._placed.clear()
            async with Sqlite(disk.path / "work.db", low=None) as db:
                await db.write(lambda connection: connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)"))
                numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)"
                sort = f"{numbers} SELECT hex(randomblob(300)) AS b FROM n ORDER BY b LIMIT -1 OFFSET 39999"
                with pytest.raises(apsw.FullError) as caught:
                    await db.read(lambda connection: connection.execute(sort).fetchall(), deadline_s=60)
                fault = attached(caught.value)
                assert fault is not None
                assert (fault.kind, fault.scope) == (Kind.EXHAUSTED, Scope.CALL)
                assert str(disk.path) in fault.reason
                assert db.state is State.UP
                await db.write(insert)
            connection_module._placed.clear()

        run_async(main)
