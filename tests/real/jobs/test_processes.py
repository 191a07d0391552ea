"""Handlers in child processes: what they are given, what their death costs, and that none of them is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from process_handlers import alive

import outlast
from outlast.extend import JsonTooLargeError, NotJsonError
from outlast.jobs import Job
from outlast.jobs._child_process import ChildDiedError
from outlast.jobs._importable import Home
from outlast.jobs._processes import ChildError, ChildProcesses

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tests.conftest import RunAsync

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
KINDS = ("describe", "signals", "spin", "hold", "leave", "fail", "note")
LIMIT_S = 100.0
"""Children start slowly on a busy machine."""


def job(kind: str, payload: Any = None, *, number: int = 1, attempt: int = 1, **more: Any) -> Job:
    return Job(number, kind, payload, attempt, 3, **more)


async def value(children: ChildProcesses, job: Job, timeout_s: float | None) -> Any:
    result = await children.run(job, timeout_s)
    assert result.error is None
    return None if result.json is None else json.loads(result.json)


def on_children(run_async: RunAsync, test: Callable[[ChildProcesses], Coroutine[Any, Any, None]], **places: Home) -> None:
    async def main() -> None:
        known = {kind: Home("process_handlers", kind) for kind in KINDS} | places
        children = ChildProcesses(lambda: known, result_bytes_max=256 * 1024)
        try:
            await test(children)
        finally:
            await children.close(10.0)
            await children.dependency.close()
        assert children.pids == ()

    run_async(main, limit_s=LIMIT_S)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.short
def test_a_child_gets_the_job_and_nothing_else_of_its_parent(run_async: RunAsync, capfd: pytest.CaptureFixture[str]) -> None:
    async def test(children: ChildProcesses) -> None:
        deadline = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
        listening = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        try:
            first = await value(children, job("describe", {"page": "é"}, unique_key="k", deadline_at=deadline, attempt=2), None)
        finally:
            listening.close()
        assert first["job"] == ["describe", {"page": "é"}, 2, 3, "k"]
        assert first["deadline"] == deadline.isoformat()
        assert first["pid"] != os.getpid()
        assert first["parent"] == os.getpid()
        assert first["argv"] == sys.argv[0]
        # Its own end of the stream, and no socket of ours.
        assert first["sockets"] == 1
        # It is used again.
        again = await value(children, job("describe", number=2), None)
        assert again["pid"] == first["pid"]

    on_children(run_async, test)
    assert "written by job 1" in capfd.readouterr().out


def test_a_child_lives_on_after_signals_that_are_meant_for_all(run_async: RunAsync) -> None:
    async def test(children: ChildProcesses) -> None:
        assert await value(children, job("signals"), None) == "alive"
        assert os.getsid(children.pids[0]) != os.getsid(0)

    on_children(run_async, test)


def test_a_handler_that_holds_the_interpreter_stops_no_event_loop(run_async: RunAsync, tmp_path: Path) -> None:
    async def test(children: ChildProcesses) -> None:
        running = asyncio.ensure_future(value(children, job("spin", str(tmp_path / "enough")), None))
        await until(lambda: bool(children.pids))
        turns = 0
        while turns < 200:
            await asyncio.sleep(0.001)
            turns += 1
        assert not running.done()
        (tmp_path / "enough").touch()
        assert await running > 0

    on_children(run_async, test)


@pytest.mark.short
def test_at_its_time_out_a_child_is_killed_with_what_it_has_started(run_async: RunAsync, tmp_path: Path) -> None:
    """It holds the interpreter lock in C: nothing but SIGKILL ends it."""

    async def test(children: ChildProcesses) -> None:
        ran = asyncio.ensure_future(value(children, job("hold", str(tmp_path / "pids"), number=7), 3.0))
        with pytest.raises(TimeoutError, match=r"job 7 \(hold\) did not end within 3 s; its child process \d+ was killed"):
            await ran
        pids = [int(pid) for pid in (tmp_path / "pids").read_text(encoding="ascii").split()]
        await until(lambda: not any(alive(pid) for pid in pids))
        assert children.pids == ()
        assert await value(children, job("note", "next"), 30.0) == "next"

    on_children(run_async, test)


def test_one_that_is_cancelled_is_killed(run_async: RunAsync, tmp_path: Path) -> None:
    async def test(children: ChildProcesses) -> None:
        running = asyncio.ensure_future(value(children, job("spin", str(tmp_path / "never")), None))
        await until(lambda: bool(children.pids))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await value(children, job("note", 1), None) == 1
        await until(lambda: len(children.pids) == 1)

    on_children(run_async, test)


@pytest.mark.short
def test_the_death_of_a_child_says_how_and_costs_nobody_else(run_async: RunAsync, tmp_path: Path) -> None:
    ends = {"exit": ("exit 3", "bug"), "segfault": ("SIGSEGV", "bug"), "kill": ("SIGKILL", "exhausted")}

    async def test(children: ChildProcesses) -> None:
        other = asyncio.ensure_future(value(children, job("spin", str(enough), number=2), None))
        for how, expected in ends.items():
            with pytest.raises(ChildDiedError) as caught:
                await value(children, job("leave", how), 60.0)
            fault = outlast.Classifiers().classify(caught.value)
            assert (fault.code, fault.kind.value) == expected
            assert fault.source == "leave"
            assert "of job 1 (leave)" in fault.reason
            assert not fault.is_evidence
        assert not other.done()
        enough.touch()
        assert await other > 0
        assert children.dependency.passable
        assert await value(children, job("leave", "exit", attempt=2), 60.0) == 2

    enough = tmp_path / "enough"
    on_children(run_async, test)


def test_an_idle_child_that_dies_costs_no_attempt(run_async: RunAsync) -> None:
    async def test(children: ChildProcesses) -> None:
        for stopped in (False, True):
            await value(children, job("note"), None)
            (pid,) = children.pids
            if stopped:
                # Our side has not heard of it yet when it gives it the next job.
                os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    # Python 3.11 has a thread that waits for it, and may be first.
                    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - the loop must not turn meanwhile
            else:
                os.kill(pid, signal.SIGKILL)
                await until(lambda: children.pids == ())
            assert await value(children, job("note", "again"), None) == "again"

    on_children(run_async, test)


RAISED = {
    "bug": ("bug", "KeyError@process_handlers:", "no such key"),
    "reset": ("transient", "ECONNRESET", "reset by peer"),
}
"""By what the handler is asked for: the kind, the beginning of the code, and a part of the reason."""


def test_what_a_handler_raises_is_classified_where_it_was_raised(run_async: RunAsync) -> None:
    async def test(children: ChildProcesses) -> None:
        for payload, (kind, code, text) in RAISED.items():
            with pytest.raises(ChildError, match=text) as caught:
                await value(children, job("fail", payload), None)
            fault = outlast.Classifiers().classify(caught.value)
            assert fault.kind.value == kind
            assert fault.code.startswith(code)
            assert text in fault.reason
            if kind == "bug":
                assert "in fail" in caught.value.__notes__[0]
        with pytest.raises(outlast.Unavailable) as refused:
            await value(children, job("fail", "refused"), None)
        assert (refused.value.dependency, refused.value.retry_after_s) == ("payments", 7.0)
        assert refused.value.fault.code == "timeout"
        for payload, kind_of_error, text in (
            ("no json", NotJsonError, "Object of type object is not JSON"),
            ("large", JsonTooLargeError, "it has 1000002 bytes, the limit is 262144"),
        ):
            result = await children.run(job("fail", payload), None)
            assert type(result.error) is kind_of_error
            assert text in str(result.error)
        text = "ä" * 40_000
        assert await value(children, job("note", text), None) == text, "large ones pass"
        assert len(children.pids) == 1, "it lives on"

    on_children(run_async, test)


def test_the_rules_of_the_queue_hold_in_the_child(run_async: RunAsync) -> None:
    async def test(children: ChildProcesses) -> None:
        with pytest.raises(ChildError, match="no such order") as caught:
            await value(children, job("shop", "shop"), None)
        assert outlast.Classifiers().classify(caught.value).code == "no order"

    on_children(run_async, test, shop=Home("process_handlers_of_a_queue", "shop"))


def test_what_a_handler_lets_out_ends_no_child(run_async: RunAsync) -> None:
    async def test(children: ChildProcesses) -> None:
        with pytest.raises(ChildError, match="SystemExit") as caught:
            await value(children, job("leave", "sys.exit"), None)
        assert outlast.Classifiers().classify(caught.value).kind is outlast.Kind.BUG
        (pid,) = children.pids
        # One that has forked and let its child out is there once.
        assert await value(children, job("leave", "fork"), None) == 1
        assert await value(children, job("note", 5), None) == 5
        assert children.pids == (pid,)

    on_children(run_async, test)


def test_while_no_child_can_be_started_jobs_are_refused_and_one_prober_asks(
    run_async: RunAsync, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "broken_for_now.py"
    module.write_text("raise ValueError('no licence')\ndef note(job): return job.payload\n", encoding="utf-8")

    async def test(children: ChildProcesses) -> None:
        for _ in range(3):
            with pytest.raises(outlast.Unavailable, match="no licence"):
                await value(children, job("broken"), None)
        assert not children.dependency.passable
        assert children.pids == ()
        module.write_text("def note(job): return job.payload\n", encoding="utf-8")
        await until(lambda: children.dependency.passable)
        assert await value(children, job("broken", "mended"), None) == "mended"

    on_children(run_async, test, broken=Home("broken_for_now", "note"))
    told = [text for text in caplog.messages if "no licence" in text]
    assert len(told) == 1, "one line, however many were refused"
    assert "import the module of each handler" in told[0]


@pytest.mark.short
@pytest.mark.parametrize("argument", [[str(Path(__file__).parent / "process_worker.py")], ["-m", "process_worker"]])
def test_a_killed_worker_leaves_no_child(tmp_path: Path, argument: list[str]) -> None:
    """Its handlers stand in its main module; one of its children holds the interpreter lock."""
    pids = tmp_path / "pids"
    command = [sys.executable, *argument, str(pids)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment) as worker:
        try:
            asyncio.run(until(lambda: pids.exists() and len(pids.read_text(encoding="ascii").split()) == 2))
            children = [int(pid) for pid in pids.read_text(encoding="ascii").split()]
            assert all(alive(pid) for pid in children)
        finally:
            worker.kill()
    asyncio.run(until(lambda: not any(alive(pid) for pid in children)))
