"""The thread face: the same state machine, waited for and fed from threads."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import outlast

pytestmark = pytest.mark.expected_logs


def fail(db: outlast.Dependency) -> None:
    with pytest.raises(ConnectionRefusedError), db.use():
        raise ConnectionRefusedError(111, "connection refused")


def test_threads_wait_for_a_dependency_that_no_event_loop_owns() -> None:
    up = threading.Event()

    async def ask() -> None:
        if not up.is_set():
            raise ConnectionRefusedError

    db = outlast.Dependency("db", probe=ask)
    fail(db)
    with ThreadPoolExecutor(20) as threads:
        waiting = [threads.submit(db.blocking.ready) for _ in range(20)]
        with pytest.raises(outlast.Unavailable), db.blocking.use():
            pytest.fail("must not get in")
        up.set()
        for wait in waiting:
            wait.result(timeout=30)
    with db.blocking.use():
        assert db.state is outlast.State.RECOVERING
    db.blocking.close()


def test_a_thread_gives_up_at_its_timeout() -> None:
    async def ask() -> None:
        raise ConnectionRefusedError

    db = outlast.Dependency("db", probe=ask)
    fail(db)
    with pytest.raises(outlast.Unavailable):
        db.blocking.ready(timeout_s=0.05)
    db.blocking.close()


def test_without_a_probe_one_thread_is_the_trial() -> None:
    db = outlast.Dependency("api", policy=outlast.HealthPolicy(probe=outlast.Backoff(1e-9, 1e-9)))
    fail(db)
    entered, leave = threading.Event(), threading.Event()

    def on_trial() -> None:
        with db.use():
            entered.set()
            leave.wait(30)

    with ThreadPoolExecutor(1) as threads:
        trial = threads.submit(on_trial)
        assert entered.wait(30)
        for _ in range(49):
            with pytest.raises(outlast.Unavailable), db.use():
                pytest.fail("there is one place")
        leave.set()
        trial.result(timeout=30)
    assert db.state is outlast.State.RECOVERING


def test_waiting_on_the_event_loops_own_thread_is_refused() -> None:
    async def main() -> None:
        async def ask() -> None:
            raise ConnectionRefusedError

        db = outlast.Dependency("db", probe=ask)
        await db.open()
        fail(db)
        with pytest.raises(RuntimeError, match=r"await db\.ready\(\)"):
            db.blocking.ready()
        with pytest.raises(RuntimeError, match=r"await db\.close\(\)"):
            db.blocking.close()
        await db.close()

    asyncio.run(main())


def test_faults_from_threads_are_seen_by_the_event_loop() -> None:
    async def main() -> None:
        async def ask() -> None:
            return

        db, heard = outlast.Dependency("db", probe=ask), asyncio.Event()
        await db.open()
        db.subscribe(lambda state, fault: heard.set())
        await asyncio.to_thread(fail, db)
        await asyncio.wait_for(heard.wait(), 30)
        await db.ready()
        assert db.state is outlast.State.RECOVERING
        await db.close()

    asyncio.run(main())


def test_one_dependency_cannot_belong_to_two_running_loops() -> None:
    async def main() -> None:
        db = outlast.Dependency("db")
        await db.open()

        async def other() -> None:
            await db.open()

        with pytest.raises(RuntimeError, match="already belongs to another running event loop"):
            await asyncio.to_thread(asyncio.run, other())

    asyncio.run(main())
