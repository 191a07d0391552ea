"""Transactions of a SQLite file are whole, whatever happens to whoever asked for them, and hold up nobody else."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import apsw
import pytest

from outlast import ConfigurationError, Kind, Scope, State, Unavailable
from outlast.extend import attached
from outlast.sqlite import Sqlite
from outlast.sqlite import _log_growth as log_growth
from outlast.sqlite._connection import connect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import RunAsync

ROWS = 10_000


def execute(statement: str, *values: object) -> Callable[[apsw.Connection], list[Any]]:
    return lambda connection: connection.execute(statement, values).fetchall()  # type: ignore[arg-type]


async def opened(path: Path, **settings: Any) -> Sqlite:
    db = Sqlite(path, **settings)
    await db.write(execute("CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b)"))
    return db


def count(connection: apsw.Connection) -> int:
    [(number,)] = connection.execute("SELECT count(*) FROM t").fetchall()
    return int(number)  # type: ignore[arg-type]


def test_who_reads_first_and_writes_later_never_meets_a_lock(tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        stores = [await opened(tmp_path / "work.db") for _ in range(2)]

        def add(connection: apsw.Connection) -> None:
            connection.execute("INSERT INTO t VALUES (?, 0)", (count(connection),))

        await asyncio.gather(*(stores[number % 2].write(add) for number in range(200)))
        assert await stores[0].read(count) == 200
        for store in stores:
            await store.close()

    run_async(main)


def test_a_transaction_whose_past_is_over_begins_again_whole(tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        db = await opened(tmp_path / "work.db")
        other = apsw.Connection(str(db.path))
        seen: list[int] = []

        def upgrade(connection: apsw.Connection) -> None:
            seen.append(count(connection))
            if len(seen) == 1:
                other.execute("INSERT INTO t VALUES (1, 0)")
            connection.execute("INSERT INTO t VALUES (?, 0)", (seen[-1] + 1,))

        await db.read(upgrade)  # Deferred, as no writer of ours is: it meets BUSY_SNAPSHOT.
        assert seen == [0, 1], "all of it was done again"
        assert (db.done.restarts, db.done.rollbacks) == (1, 1)
        assert await db.read(count) == 2
        other.close()
        await db.close()

    run_async(main)


@pytest.mark.short
def test_what_is_cancelled_at_any_moment_is_done_or_not_and_leaves_nothing_open(tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        db = await opened(tmp_path / "work.db")
        other = apsw.Connection(str(db.path))
        other.set_busy_timeout(60_000)
        for turn in range(25):
            base = (turn + 1) * ROWS

            def many(connection: apsw.Connection, base: int = base) -> None:
                connection.executemany("INSERT INTO t VALUES (?, 0)", ((base + number,) for number in range(ROWS)))

            writing = asyncio.create_task(db.write(many))
            await asyncio.sleep(turn * 0.001)
            writing.cancel()
            await asyncio.wait({writing})
            other.execute("INSERT INTO t VALUES (?, 0)", (turn,))
            [(stored,)] = other.execute("SELECT count(*) FROM t WHERE a >= ? AND a < ?", (base, base + ROWS)).fetchall()
            assert stored in {0, ROWS}
        assert await db.write(count) >= 25
        other.close()
        await db.close()

    run_async(main)


def test_who_is_cancelled_while_it_waits_for_the_lock_does_not_get_it_later(tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        db = await opened(tmp_path / "work.db")
        other = apsw.Connection(str(db.path))
        other.execute("BEGIN IMMEDIATE")
        begun = threading.Event()
        waiting = asyncio.create_task(db.write(lambda _: begun.set()))
        behind = asyncio.create_task(db.write(execute("INSERT INTO t VALUES (1, 0)")))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.wait({waiting})
        other.execute("COMMIT")
        await behind
        assert not begun.is_set()
        assert db.state is State.UP
        other.close()
        await db.close()

    run_async(main)


@pytest.mark.parametrize("error", [ConnectionResetError, TimeoutError, MemoryError])
def test_an_error_rolls_all_back_and_says_nothing_about_the_file(
    tmp_path: Path, run_async: RunAsync, error: type[Exception]
) -> None:
    async def main() -> None:
        db = await opened(tmp_path / "work.db")

        def half(connection: apsw.Connection) -> None:
            connection.execute("INSERT INTO t VALUES (1, 0)")
            raise error("of somebody else")

        with pytest.raises(error, match="of somebody else") as caught:
            await db.write(half)
        assert attached(caught.value) is None
        assert db.state is State.UP
        assert await db.read(count) == 0
        await db.close()

    run_async(main)


@pytest.mark.short
def test_what_hangs_holds_up_no_name_look_up_and_no_reader(tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        db = await opened(tmp_path / "work.db")
        thaw = threading.Event()
        hanging = [asyncio.create_task(db.write(lambda _: thaw.wait())) for _ in range(50)]
        await asyncio.sleep(0)
        assert await asyncio.get_running_loop().getaddrinfo("localhost", 80)
        assert await db.read(count) == 0
        assert not any(task.done() for task in hanging)
        thaw.set()
        await asyncio.gather(*hanging)
        await db.close()

    run_async(main)


@pytest.mark.short
def test_a_thread_that_is_stuck_keeps_its_connection_to_itself(tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        db = await opened(tmp_path / "work.db")
        thaw, seen = threading.Event(), list[apsw.Connection]()

        def stuck(connection: apsw.Connection) -> None:
            seen.append(connection)
            thaw.wait()

        reading = asyncio.create_task(db.read(stuck))
        while not seen:
            await asyncio.sleep(0.001)
        reading.cancel()
        await db.close()
        await db.open()
        await db.read(seen.append)
        assert seen[0] is not seen[1]
        assert await db.read(count) == 0
        thaw.set()
        await db.close()

    run_async(main)


def test_only_its_own_threads_touch_a_connection(tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        db = await opened(tmp_path / "work.db")
        names = [await call(lambda _: threading.current_thread().name) for call in (db.write, db.write, db.read)]
        assert names == ["sqlite work.db: writes"] * 2 + ["sqlite work.db: reads"]
        await db.close()

    run_async(main)


def test_too_many_that_wait_are_refused_and_say_so(tmp_path: Path, run_async: RunAsync, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        db = await opened(tmp_path / "work.db")
        thaw = threading.Event()
        db._writer._thread.waiting_max = 3
        hanging = [asyncio.create_task(db.write(lambda _: thaw.wait())) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError, match="limit 3") as caught:
            await db.write(count)
        fault = attached(caught.value)
        assert fault is not None
        assert (fault.kind, fault.scope) == (Kind.OVERLOADED, Scope.CALL)
        thaw.set()
        await asyncio.gather(*hanging)
        assert db.state is State.UP
        await db.close()

    run_async(main)


def test_who_was_not_begun_by_its_deadline_is_told_of_the_line(tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        db = await opened(tmp_path / "work.db")
        thaw = threading.Event()
        first = asyncio.create_task(db.write(lambda _: thaw.wait(), deadline_s=60))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError, match="waited in line") as caught:
            await db.write(count, deadline_s=0.01)
        fault = attached(caught.value)
        assert fault is not None
        assert (fault.kind, fault.scope, db.state) == (Kind.OVERLOADED, Scope.CALL, State.UP)
        thaw.set()
        await first
        await db.close()

    run_async(main)


def test_whoever_waits_for_a_change_is_told_of_any_commit(tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        db, other = await opened(tmp_path / "work.db"), Sqlite(tmp_path / "work.db")
        for writer in (db, other):
            seen = await db.changed(None, 30)
            assert await db.changed(seen, 0.06) == seen
            waiting = asyncio.create_task(db.changed(seen, 30))
            await writer.write(execute("INSERT INTO t(b) VALUES (0)"))
            assert await waiting != seen
        await db.close()
        await other.close()

    run_async(main)


def test_a_reader_that_does_not_end_is_told_once(
    tmp_path: Path, run_async: RunAsync, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_growth, "LOOK_APART_S", 0.0)

    async def main() -> None:
        db = await opened(tmp_path / "work.db", log_bytes_max=200_000)
        reader = apsw.Connection(str(db.path))
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM t").fetchall()
        for _ in range(5):
            await db.write(execute("INSERT INTO t(b) VALUES (zeroblob(100000))"))
        assert db.size().log_is_held
        assert db.size().log_bytes > 200_000
        reader.execute("COMMIT")
        await db.write(execute("INSERT INTO t(b) VALUES (0)"))
        assert not db.size().log_is_held
        assert db.size().log_bytes == 0
        reader.close()
        await db.close()

    with caplog.at_level("INFO", "outlast.sqlite"):
        run_async(main)
    held, over = [record.getMessage() for record in caplog.records if record.name == "outlast.sqlite"]
    assert "cannot be used again" in held
    assert "is used again" in over


def test_a_cursor_that_was_not_read_to_its_end_keeps_nothing_open(tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        db = await opened(tmp_path / "work.db")
        await db.write(execute("INSERT INTO t VALUES (1, 0), (2, 0)"))
        cursor = await db.read(lambda connection: connection.execute("SELECT * FROM t"))
        other = apsw.Connection(str(db.path))
        assert count(other) == 2
        other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        assert (tmp_path / "work.db-wal").stat().st_size == 0
        with pytest.raises(apsw.CursorClosedError):
            cursor.fetchall()
        other.close()
        await db.close()

    run_async(main)


@pytest.mark.expected_logs
@pytest.mark.parametrize("harm", ["deleted", "overwritten"])
def test_a_file_that_is_gone_ends_its_use_and_is_not_made_again(tmp_path: Path, run_async: RunAsync, harm: str) -> None:
    async def main() -> None:
        db = await opened(tmp_path / "work.db")
        await db.close()
        await db.open()
        if harm == "deleted":
            await db.read(count)
            db.path.rename(tmp_path / "elsewhere.db")
        else:
            db.path.write_bytes(b"no database at all" * 1_000)
        with pytest.raises(apsw.Error) as caught:
            await db.write(execute("INSERT INTO t VALUES (1, 0)"))
        fault = attached(caught.value)
        assert fault is not None
        assert fault.hint
        if harm == "deleted":
            assert not db.path.exists()
        else:
            assert (fault.kind, fault.scope, db.is_lost) == (Kind.FATAL, Scope.CHILD, True)
        with pytest.raises(Unavailable):
            await db.write(count)
        assert db.shown.health().well is False
        if db.is_lost:
            [act] = db.shown.acts()
            assert act.concerns == 1
            db.path.unlink()
            (tmp_path / "work.db-wal").unlink(missing_ok=True)
            (tmp_path / "work.db-shm").unlink(missing_ok=True)
            apsw.Connection(str(db.path)).execute("CREATE TABLE t(a, b)")
            assert await act.run() == 1
            await db.ready()
            await db.write(execute("INSERT INTO t VALUES (1, 0)"))
            assert await act.run() == 0
            assert db.shown.health().well
        await db.close()

    run_async(main)


@pytest.mark.expected_logs
def test_a_folder_that_is_not_there_is_a_thing_for_a_person(tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        db = Sqlite(tmp_path / "none" / "work.db")
        with pytest.raises(apsw.CantOpenError) as caught:
            await db.write(count)
        fault = attached(caught.value)
        assert fault is not None
        assert (fault.kind, fault.scope, db.state) == (Kind.PERMANENT, Scope.DEPENDENCY, State.DOWN)
        (tmp_path / "none").mkdir()
        await db.ready()
        await db.write(execute("CREATE TABLE t(a)"))
        await db.close()

    run_async(main)


@pytest.mark.parametrize("settings", [{"timeout_s": 0}, {"probe_timeout_s": -1}, {"log_bytes_max": 0}])
def test_settings_that_cannot_work_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Sqlite(tmp_path / "work.db", **settings)


@pytest.mark.parametrize("path", ["", ":memory:", "file:work.db"])
def test_only_a_file_is_kept(path: str) -> None:
    with pytest.raises(ConfigurationError, match="path of a file"):
        Sqlite(path)


def test_a_file_that_somebody_else_writes_to_as_it_is_opened_is_waited_for(tmp_path: Path) -> None:
    """Of several that open a new file at once, SQLite refuses the change to a write-ahead log without asking whether to wait."""
    other = apsw.Connection(str(tmp_path / "work.db"))
    other.execute("CREATE TABLE t(a)")
    other.execute("BEGIN IMMEDIATE")
    asked: list[int] = []

    def wait(attempts: int) -> bool:
        asked.append(attempts)
        if len(asked) == 3:
            other.execute("COMMIT")
        return True

    connection = connect(tmp_path / "work.db", create=False, is_over=lambda: False, wait=wait)
    assert asked == [0, 1, 2]
    assert connection.pragma("journal_mode") == "wal"
    connection.close()
    other.close()


def test_a_file_that_stays_locked_as_it_is_opened_is_given_up(tmp_path: Path) -> None:
    other = apsw.Connection(str(tmp_path / "work.db"))
    other.execute("CREATE TABLE t(a)")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(apsw.BusyError, match="locked"):
        connect(tmp_path / "work.db", create=False, is_over=lambda: False, wait=lambda attempts: attempts < 3)
    other.close()
