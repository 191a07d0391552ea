"""A runner that is stopped past its lease has lost what it held: another takes it over, and the ghost changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from killed_runner import database
from paused_runner import work

from outlast.procedures import Procedures, ProcedureState

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import RunAsync

PROGRAM = Path(__file__).with_name("paused_runner.py")
MORE = 20


@pytest.fixture(params=["sqlite", "postgres", "etcd"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'work.db'}"
    if request.param == "postgres":
        return f"postgres:{request.getfixturevalue('database')}"
    return f"etcd:{request.getfixturevalue('etcd').url}/{tmp_path.name}"


def test_a_runner_that_was_stopped_past_its_lease_changes_nothing_any_more(
    store: str, tmp_path: Path, run_async: RunAsync
) -> None:
    log = tmp_path / "log"

    def started(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(PROGRAM), store, str(tmp_path / name), str(log)], stderr=subprocess.DEVNULL)

    def entries() -> list[dict[str, Any]]:
        return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []

    async def until(condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0.02)

    async def main() -> None:
        db = database(store)
        procedures = Procedures(db, [work(str(log))], journal_path=tmp_path / "none")
        ghost = started("first")
        other: subprocess.Popen[bytes] | None = None
        try:
            async with procedures:
                handle = await procedures.submit("work", "K", "long", locks=("one at a time",))
                await until(lambda: any(one["what"] == "begin" for one in entries()))
                os.kill(ghost.pid, signal.SIGSTOP)
                other = started("second")
                assert await handle.wait(60.0) == 2, "by the second claim"
                os.kill(ghost.pid, signal.SIGCONT)
                await until(lambda: any(one["what"] == "cancelled" for one in entries()))
                for number in range(MORE):
                    again = await procedures.submit("work", "K", number, locks=("one at a time",))
                    await again.wait(60.0)
                found = await handle.get()
                assert found is not None
                assert (found.state, found.token) == (ProcedureState.DONE, 2)
                assert (await procedures.counts()).held == {("work", "done"): MORE + 1}
        finally:
            for process in (ghost, *([other] if other is not None else [])):
                os.kill(process.pid, signal.SIGCONT)
                process.terminate()
                process.wait(30)
            await db.close()
        one_at_a_time(entries(), ghost.pid)

    run_async(main, limit_s=120.0)


def one_at_a_time(entries: list[dict[str, Any]], ghost: int) -> None:
    """Of the ghost's hold nothing counts but its cancellation; all others begin and end one after another."""
    held = [one for one in entries if (one["pid"], one["id"], one["token"]) == (ghost, entries[0]["id"], 1)]
    assert [one["what"] for one in held] == ["begin", "cancelled"]
    others = [one["what"] for one in entries if one not in held]
    assert others == ["begin", "end"] * (MORE + 1), "at most one holds it"
