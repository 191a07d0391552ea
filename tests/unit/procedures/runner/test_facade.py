"""The door: limits, refusals with a handle, progress, changed steps, an admission, a process without a runner."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from served_procedures import one_step, served, served_by

from fake_procedure_store import FakeStore
from outlast import Admission, ConfigurationError
from outlast.admission import Rate
from outlast.procedures import InvalidProcedureError, Procedure, ProcedureRefused, Procedures, ProcedureState
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from pathlib import Path

    from outlast.procedures import Run


async def note(run: Run) -> str:
    return run.key


@pytest.mark.parametrize(
    "settings",
    [
        {"slots": 0},
        {"lease_s": 0},
        {"poll_s": -1.0},
        {"dead_max": -1},
        {"backlog_max": 0},
        {"payload_bytes_max": 2**40},
        {"done_keep_s": -1},
    ],
)
def test_a_setting_out_of_its_limits_is_refused_when_it_is_given(settings: dict[str, Any]) -> None:
    async def main() -> None:
        with pytest.raises(ConfigurationError, match=next(iter(settings))):
            Procedures(FakeStore(), [one_step("note", note)], **settings)

    run_virtual(main())


def test_what_is_no_store_is_refused_and_so_are_two_of_one_name_and_a_second_service(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(ConfigurationError, match="not in a str"):
            Procedures("work.db")
        with pytest.raises(ConfigurationError, match="one name"):
            Procedures(FakeStore(), [one_step("note", note), one_step("note", note)])
        with pytest.raises(InvalidProcedureError, match="no steps"):
            Procedures(FakeStore(), [Procedure("empty")])
        async with served(FakeStore(), [one_step("note", note)], tmp_path) as procedures:
            from outlast import Service

            with pytest.raises(ConfigurationError, match="already"):
                procedures.attach(Service("other"))

    run_virtual(main())


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (("other", "a"), {}, "no such procedure"),
        (("note", ""), {}, "key"),
        (("note", "a\nb"), {}, "key"),
        (("note", "a" * 513), {}, "512"),
        (("note", "a", {"x": float("nan")}), {}, "no JSON"),
        (("note", "a", "x" * 70_000), {}, "65536"),
        (("note", "a"), {"deadline_s": -1.0}, "deadline_s"),
        (("note", "a"), {"delay_s": 1e12}, "delay_s"),
        (("note", "a"), {"locks": [f"{number}" for number in range(9)]}, "locks"),
    ],
)
def test_a_submission_out_of_its_limits_is_refused_and_leaves_nothing(
    tmp_path: Path, arguments: tuple[Any, ...], settings: dict[str, Any], said: str
) -> None:
    async def main() -> None:
        store = FakeStore()
        async with served(store, [one_step("note", note)], tmp_path) as procedures:
            with pytest.raises(InvalidProcedureError, match=said):
                await procedures.submit(*arguments, **settings)
            assert store.statements["submit"] == 0
            assert await (await procedures.submit("note", "a")).wait(5.0) == "a"

    run_virtual(main())


def test_a_full_backlog_and_an_admission_refuse_with_a_handle(tmp_path: Path) -> None:
    async def main() -> None:
        store = FakeStore()
        admission = Admission("tables", rate=Rate(1, burst=2))
        async with served(store, [one_step("note", note)], tmp_path, backlog_max=3, admission=admission) as procedures:
            await procedures.pause()
            await procedures.submit("note", "a")
            await procedures.submit("note", "b")
            with pytest.raises(ProcedureRefused) as by_rate:
                await procedures.submit("note", "c", tenant="ann")
            assert by_rate.value.why == "admission"
            assert by_rate.value.handle.key == "c"
            assert await by_rate.value.handle.get() is None
            await asyncio.sleep(3.0)
            await procedures.submit("note", "c")
            before = store.statements["submit"]
            with pytest.raises(ProcedureRefused) as by_backlog:
                await procedures.submit("note", "d")
            assert by_backlog.value.why == "backlog"
            assert "limit 3" in by_backlog.value.fault.reason
            assert store.statements["submit"] == before
            assert (await procedures.explain("note", "d")).why == "paused"
            assert procedures.tally.refused == {"admission": 1, "backlog": 1}
            await procedures.resume()
            await asyncio.sleep(5.0)
            assert await (await procedures.submit("note", "d")).wait(5.0) == "d"

    run_virtual(main())


def test_what_a_long_step_says_is_recorded_while_it_runs(tmp_path: Path) -> None:
    async def slow(run: Run) -> None:
        for number in range(10):
            run.say(f"{number} of 10")
            await asyncio.sleep(1.0)

    async def main() -> None:
        store = FakeStore()
        async with served(store, [one_step("slow", slow)], tmp_path) as procedures:
            handle = await procedures.submit("slow", "a")
            await asyncio.sleep(5.5)
            record = await handle.get()
            assert record is not None
            assert record.progress in {"3 of 10", "4 of 10"}
            assert record.state is ProcedureState.RUNNING
            await handle.wait(10.0)
            assert store.statements["record"] <= 6

    run_virtual(main())


@pytest.mark.expected_logs("other steps than those recorded|cancelled what still ran")
def test_steps_that_changed_stop_the_record_and_not_the_key(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def gated(run: Run) -> str:
        await gate.wait()
        return run.step

    def procedure(*names: str) -> Procedure:
        made = Procedure("steps")
        for name in names:
            made.step(name=name)(note if name == "first" else gated)
        return made

    async def main() -> None:
        store = FakeStore()
        async with served(store, [procedure("first", "second")], tmp_path) as procedures:
            handle = await procedures.submit("steps", "a")
            await asyncio.sleep(1.0)
        async with served(store.beside(), [procedure("renamed", "second")], tmp_path) as procedures:
            await asyncio.sleep(5.0)
            record = await procedures.get(handle.id)
            assert record is not None
            assert record.state is ProcedureState.WAITING
            assert record.last_fault is not None
            assert record.last_fault["kind"] == "permanent"
            assert record.last_fault["hint"]
            assert record.failures == 0
        gate.set()
        async with served(store.beside(), [procedure("first", "second")], tmp_path) as procedures:
            assert await procedures.wait(handle.id, 60.0) == "second"

    run_virtual(main())


def test_a_process_without_a_runner_submits_waits_and_hears_news(tmp_path: Path) -> None:
    async def main() -> None:
        store = FakeStore()
        async with (
            served(store, [one_step("note", note)], tmp_path) as runs,
            Procedures(store.beside(), [one_step("note", note)]) as procedures,
        ):
            assert await (await procedures.submit("note", "a")).wait(5.0) == "a"
            await runs.pause("note")
            handle = await procedures.submit("note", "b")
            assert await handle.cancel(5.0) is ProcedureState.CANCELLED
            assert [record.key for record in await procedures.list(kind="note")] == ["b", "a"]
            assert await procedures.get("no id") is None
            assert await procedures.cancel("0" * 32) is None
            assert await procedures.signal("0" * 32, "x") is None

    run_virtual(main())


def test_two_runners_with_one_journal_are_told_apart_at_the_start(tmp_path: Path) -> None:
    async def main() -> None:
        store = FakeStore()
        async with served(store, [one_step("note", note)], tmp_path):
            second = served_by(store.beside(), [one_step("note", note)], tmp_path / "journal")
            with pytest.raises(ConfigurationError, match="journal"):
                await second.service.run()

    run_virtual(main())
