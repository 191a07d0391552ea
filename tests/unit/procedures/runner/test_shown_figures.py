"""The page `/metrics` of a service that runs procedures says what became of them, and an act is felt by the next submission."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from served_procedures import one_step, served_by

import exposition
from fake_procedure_store import FakeStore
from outlast import Fault, Kind, OutlastError
from outlast._runtime.process.run import Process
from outlast._runtime.process.watchdog import Watchdog
from outlast.procedures import ProcedureFailedError, ProcedureRefused, Run
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from pathlib import Path

    from outlast import Service

pytestmark = pytest.mark.expected_logs("procedures")


def page(service: Service) -> dict[str, exposition.Family]:
    process = Process(service, "127.0.0.1:0", None, Watchdog())
    process.notifier.close()
    assert process._endpoint is not None
    return exposition.read(process._endpoint._pages["/metrics"]().text)


async def create(run: Run) -> str:
    if run.payload == "bad":
        raise OutlastError("no", Fault(Kind.REJECTED, "no such type", "no such type", "catalogue"))
    await asyncio.sleep(0.1)
    return run.key


def test_a_service_shows_what_became_of_its_procedures(tmp_path: Path) -> None:
    async def main() -> None:
        store = FakeStore()
        runs = served_by(store, [one_step("create", create)], tmp_path / "journal", slots=4)
        await runs.start()
        system = runs.system
        handles = await asyncio.gather(
            *(system.submit("create", f"k{number}") for number in range(3)), system.submit("create", "k0")
        )
        bad = await system.submit("create", "bad", "bad")
        with pytest.raises(ProcedureFailedError):
            await bad.wait()
        for _ in range(5):
            with pytest.raises(ProcedureRefused):
                await system.submit("create", "bad", "bad")
        assert [await handle.wait() for handle in handles] == ["k0", "k1", "k2", "k0"]
        await asyncio.sleep(61)

        found = page(runs.service)
        here = ("name", "store")

        def value(name: str, **labels: str) -> float | None:
            key = (here, *labels.items())
            samples = {frozenset(labels): count for labels, count in found[f"outlast_procedures_{name}"].samples.items()}
            return samples.get(frozenset(key))

        assert (value("submitted_total"), value("joined_total"), value("claimed_total")) == (4, 1, 4)
        assert (value("ended_total", state="done"), value("ended_total", state="dead")) == (3, 1)
        assert value("refused_total", reason="failing") == 5
        assert (value("failing_keys"), value("running"), value("slots"), value("journal_writes")) == (1, 0, 4, 0)
        assert list(found["outlast_system_well"].samples.values()) == [1]

        (shown,) = runs.service.all_shown()
        held = next(figure for figure in shown.figures() if figure.name == "held")
        assert dict(held.samples) == {("create", "done"): 3, ("create", "dead"): 1}
        clear = next(act for act in shown.acts() if act.name == "clear everything failing")
        assert (clear.concerns, await clear.run()) == (1, 1)
        await asyncio.sleep(1)
        assert await (await system.submit("create", "bad", "good")).wait() == "bad"
        assert await runs.end() == 0

    run_virtual(main)
