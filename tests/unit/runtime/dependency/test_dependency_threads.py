"""What one thread writes or tells holds up no other: lines and changes are collected under the lock, and leave it after."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import outlast
from outlast._core.incidents import Line
from outlast._core.reaction import WARNING
from outlast._runtime.dependency.outbox import LINES_MAX, Outbox

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.expected_logs

LIMIT_S = 30


class Blocking(logging.Handler):
    """Blocks in its first record until it is let go, as a full pipe does."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.let_go = threading.Event(), threading.Event()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.entered.set()
        assert self.let_go.wait(LIMIT_S)
        self.texts.append(record.getMessage())


@pytest.fixture
def handler(caplog: pytest.LogCaptureFixture) -> Iterator[Blocking]:
    caplog.set_level("INFO", "outlast")
    logger, handler = logging.getLogger("outlast"), Blocking()
    logger.addHandler(handler)
    yield handler
    handler.let_go.set()
    logger.removeHandler(handler)


def fail(db: outlast.Dependency, error: Exception) -> None:
    with pytest.raises(type(error)), db.use():
        raise error


def is_refused(db: outlast.Dependency) -> bool:
    try:
        with db.use():
            return False
    except outlast.Unavailable:
        return True


def test_a_log_handler_that_blocks_one_thread_stops_no_other_from_being_refused(handler: Blocking) -> None:
    db = outlast.Dependency("db", rng=random.Random(1))
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(fail, db, ConnectionRefusedError(111, "connection refused"))
        assert handler.entered.wait(LIMIT_S)
        assert threads.submit(is_refused, db).result(LIMIT_S), "while the handler blocks"
        # One that has a line to write is not held up either.
        threads.submit(db.report, ConnectionResetError(104, "connection reset")).result(LIMIT_S)
        assert not first.done()
        assert handler.texts == []
        handler.let_go.set()
        first.result(LIMIT_S)
    assert [text.split(":")[0] for text in handler.texts] == ["db is down", "db"], "in their order"
    assert "also TRANSIENT ECONNRESET" in handler.texts[1]


def test_a_log_handler_that_blocks_a_thread_keeps_the_loop_from_nothing(handler: Blocking) -> None:
    """The thread that met the first fault is stuck in the handler: the loop probes, the waiters go, the listeners are told."""

    async def main() -> list[outlast.State]:
        async def ask() -> None:
            return

        heard: list[outlast.State] = []
        db = outlast.Dependency("db", probe=ask, rng=random.Random(1))
        await db.open()
        db.subscribe(lambda state, fault: heard.append(state))
        stuck = asyncio.create_task(asyncio.to_thread(fail, db, ConnectionRefusedError(111, "connection refused")))
        while db.passable:
            await asyncio.sleep(0)
        await asyncio.wait_for(db.ready(), LIMIT_S)
        assert not stuck.done()
        async with db.use():
            assert db.state is outlast.State.RECOVERING
        handler.let_go.set()
        await stuck
        await db.close()
        return heard

    assert asyncio.run(main()) == [outlast.State.DOWN, outlast.State.RECOVERING]
    assert [text.split(" after ")[0].split(":")[0] for text in handler.texts] == ["db is down", "db is back"]


def test_a_listener_that_blocks_the_loop_stops_no_thread_from_being_refused() -> None:
    entered, let_go = threading.Event(), threading.Event()

    def block(state: outlast.State, fault: outlast.Fault | None) -> None:
        entered.set()
        assert let_go.wait(LIMIT_S)

    db = outlast.Dependency("db", rng=random.Random(1))

    async def main() -> None:
        await db.open()
        db.subscribe(block)
        db.report(ConnectionRefusedError(111, "connection refused"))
        await db.close()

    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(asyncio.run, main())
        assert entered.wait(LIMIT_S)
        assert threads.submit(is_refused, db).result(LIMIT_S)
        assert not running.done()
        let_go.set()
        running.result(LIMIT_S)


def test_a_change_that_a_listener_brings_about_is_told_after_its_own_to_everybody() -> None:
    async def main() -> None:
        db = outlast.Dependency("db", rng=random.Random(1))
        await db.open()
        seen: list[tuple[str, outlast.State]] = []

        def fail_again(state: outlast.State, fault: outlast.Fault | None) -> None:
            seen.append(("first", state))
            if state is outlast.State.RECOVERING and len(seen) < 5:
                db.report(ConnectionRefusedError(111, "connection refused"))

        db.subscribe(fail_again)
        db.subscribe(lambda state, fault: seen.append(("second", state)))
        db.report(ConnectionRefusedError(111, "connection refused"))
        db._cell.probe_passed()
        down, recovering = outlast.State.DOWN, outlast.State.RECOVERING
        assert seen == [(who, state) for state in (down, recovering, down) for who in ("first", "second")]
        await db.close()

    asyncio.run(main())


def test_lines_that_wait_for_a_handler_are_bounded_and_counted(handler: Blocking) -> None:
    outbox = Outbox(logging.getLogger("outlast"))
    with ThreadPoolExecutor(1) as threads:
        outbox.put(Line(WARNING, "the first"))
        writing = threads.submit(outbox.write)
        assert handler.entered.wait(LIMIT_S)
        for number in range(LINES_MAX + 7):
            outbox.put(Line(WARNING, f"line {number}"))
            outbox.write()
        handler.let_go.set()
        writing.result(LIMIT_S)
    assert len(handler.texts) == LINES_MAX + 2
    assert handler.texts[-1].startswith("7 lines were dropped")


def test_what_a_handler_itself_brings_about_is_written_after_its_line(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that uses the dependency it is told about: neither a deadlock nor a line within a line."""
    db = outlast.Dependency("db", rng=random.Random(1))

    class Using(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "is down" in record.getMessage():
                db.report(ConnectionResetError(104, "connection reset"))

    logger, handler = logging.getLogger("outlast"), Using()
    logger.addHandler(handler)
    try:
        db.report(ConnectionRefusedError(111, "connection refused"))
    finally:
        logger.removeHandler(handler)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["db is down", "db"]
