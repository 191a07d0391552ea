"""SIGTERM with PostgreSQL stopped or frozen: out in time, and what was finished is recorded exactly once by the next start.

And a start with a backlog of any size: all end, in order, none is left, in bounded memory.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from outlast.postgres import Postgres
from outlast.procedures import Procedure, Procedures, ProcedureState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from outlast.procedures import Run
    from outlast.testing import PostgresServer

PROGRAM = Path(__file__).with_name("stopped_runner.py")
KEYS = [f"{number}" for number in range(20)]


@contextmanager
def runner(
    server: PostgresServer, directory: Path, step_s: float = 2.0, lease_s: float = 30.0
) -> Iterator[subprocess.Popen[bytes]]:
    variables = {
        **os.environ,
        "RUNNER_DSN": server.dsn(),
        "RUNNER_LOG": str(directory / "log"),
        "RUNNER_STEP_S": f"{step_s}",
        "RUNNER_LEASE_S": f"{lease_s}",
        "RUNNER_JOURNAL": str(directory / "journal"),
    }
    with (directory / "said").open("ab") as said:
        process = subprocess.Popen([sys.executable, PROGRAM], env=variables, stdout=said, stderr=said)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60.0
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.05)


def logged(directory: Path) -> list[str]:
    log = directory / "log"
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def looking(server: PostgresServer) -> Procedures:
    work = Procedure("work")

    @work.step
    async def note(run: Run) -> str:
        return run.key

    return Procedures(Postgres(server.dsn()), [work])


async def submit(server: PostgresServer, keys: list[str]) -> list[str]:
    async with looking(server) as procedures:
        return [handle.id for handle in await asyncio.gather(*(procedures.submit("work", key) for key in keys))]


async def results(server: PostgresServer, ids: list[str]) -> list[str]:
    async with looking(server) as procedures:
        return [await procedures.wait(each, 60.0) for each in ids]


async def states(server: PostgresServer) -> set[ProcedureState]:
    async with looking(server) as procedures:
        return {record.state for record in await procedures.list(count=100)}


@pytest.mark.parametrize("how", ["frozen", "stopped"])
def test_sigterm_with_the_server_away_keeps_what_is_finished(server: PostgresServer, tmp_path: Path, how: str) -> None:
    with runner(server, tmp_path) as process:
        ids = asyncio.run(submit(server, KEYS))
        until(lambda: len(logged(tmp_path)) >= len(KEYS))
        if how == "frozen":
            server.freeze()
        else:
            server.stop("immediate")
        try:
            process.send_signal(signal.SIGTERM)
            # Its exit code says that all phases of the stop were over by the deadline.
            code = process.wait(60.0)
        finally:
            if how == "frozen":
                server.thaw()
            else:
                server.start()
    said = (tmp_path / "said").read_text(encoding="utf-8")
    assert code == 0, said
    assert "runner stopped in" in said
    assert sorted(logged(tmp_path)) == sorted(f"{word} {key} 1" for word in ("begun", "done") for key in KEYS)
    # A busy machine may have recorded some of them before the server was gone.
    assert ProcedureState.RUNNING in asyncio.run(states(server)) <= {ProcedureState.RUNNING, ProcedureState.DONE}
    with runner(server, tmp_path) as process:
        assert asyncio.run(results(server, ids)) == KEYS
        process.send_signal(signal.SIGTERM)
        assert process.wait(60.0) == 0
    assert len(logged(tmp_path)) == 2 * len(KEYS), "nothing was done again"
    assert asyncio.run(states(server)) == {ProcedureState.DONE}


async def counted(server: PostgresServer) -> dict[tuple[str, str], int]:
    async with looking(server) as procedures:
        return (await procedures.counts()).held


@pytest.mark.parametrize("count", [500, pytest.param(20_000, marks=pytest.mark.long)])
def test_a_start_with_a_backlog_ends_all_of_it_in_order_in_bounded_memory(
    server: PostgresServer, tmp_path: Path, count: int
) -> None:
    keys = [f"{number:05}" for number in range(count)]
    asyncio.run(submit(server, keys))
    with runner(server, tmp_path, 0.0) as process:
        until(lambda: asyncio.run(counted(server)) == {("work", "done"): count})
        process.send_signal(signal.SIGTERM)
        assert process.wait(60.0) == 0
    said = (tmp_path / "said").read_text(encoding="utf-8")
    assert [line.split()[1] for line in logged(tmp_path) if line.startswith("begun")] == keys
    assert int(said.rpartition("maxrss ")[2]) < 300 * 1024


def test_a_runner_that_was_stopped_past_its_lease_changes_nothing_and_each_key_has_one_runner_at_a_time(
    server: PostgresServer, tmp_path: Path
) -> None:
    ghosts, others = tmp_path / "ghost", tmp_path / "other"
    ghosts.mkdir()
    others.mkdir()

    async def again(count: int) -> list[int]:
        """Submit the key again and again, each time when it is done, and return the tokens."""
        tokens = list[int]()
        async with looking(server) as procedures:
            for _ in range(count):
                handle = await procedures.submit("work", "k")
                assert await handle.wait(60.0) == "k"
                record = await handle.get()
                assert record is not None
                tokens.append(record.token)
        return tokens

    with runner(server, ghosts, 1.0, lease_s=3.0) as ghost:
        ids = asyncio.run(submit(server, ["k"]))
        until(lambda: "begun k 1" in logged(ghosts))
        ghost.send_signal(signal.SIGSTOP)
        with runner(server, others, 0.2, lease_s=3.0) as other:
            assert asyncio.run(results(server, ids)) == ["k"]
            assert logged(others) == ["begun k 2", "done k 2"]
            ghost.send_signal(signal.SIGCONT)
            assert asyncio.run(again(4)) == [1] * 4
            for process in (ghost, other):
                process.send_signal(signal.SIGTERM)
                assert process.wait(60.0) == 0
    # Both were at work afterwards or one of them was: four were done, each of them once.
    done = [line for each in (ghosts, others) for line in logged(each) if line == "done k 1"]
    assert len(done) in {4, 5}
