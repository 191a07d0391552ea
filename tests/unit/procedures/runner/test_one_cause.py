"""Many keys that fail for one reason, through the whole of a process: one incident, one canary at a time, then waves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from served_procedures import served

from fake_procedure_store import FakeStore
from outlast.procedures import Procedure, ProcedureState, Run
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

KEYS = 300
HEALED_AFTER_S = 20.0


class Backend:
    """The thing that every step needs, and no dependency reports."""

    def __init__(self) -> None:
        self.is_down = True
        self.calls: list[tuple[float, str]] = []
        self.inside = 0
        self.most_inside = 0

    async def ask(self, run: Run) -> str:
        self.calls.append((asyncio.get_running_loop().time(), run.key))
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            await asyncio.sleep(0.01)
            if self.is_down:
                raise ConnectionRefusedError("the metadata server is away")
        finally:
            self.inside -= 1
        return "made"


def test_keys_that_fail_for_one_reason_wait_for_it_and_none_is_blamed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backend, store = Backend(), FakeStore()
    create = Procedure("create", attempts_max=2)
    create.step(backend.ask, name="allocate")

    async def whole() -> list[float]:
        async with served(store, [create], tmp_path, slots=64) as procedures:
            handles = await asyncio.gather(*(procedures.submit("create", f"table-{number}") for number in range(KEYS)))
            await asyncio.sleep(HEALED_AFTER_S / 2)
            assert len(procedures._desk.front.open_causes) == 1
            tried_before = len(backend.calls)
            backend.most_inside = 0
            await asyncio.sleep(HEALED_AFTER_S / 2)
            assert backend.most_inside == 1, "one canary at a time"
            canaries = [key for _, key in backend.calls[tried_before:]]
            assert len(set(canaries)) == len(canaries) > 8, "another key each time"
            backend.is_down = False
            backend.calls.clear()
            healed = asyncio.get_running_loop().time()
            assert await asyncio.gather(*(handle.wait() for handle in handles)) == ["made"] * KEYS
            times = sorted({at - healed for at, _ in backend.calls})
            counts = await procedures.counts()
            assert counts.held == {("create", "done"): KEYS}
            return times

    times = run_virtual(whole())
    assert times[0] <= 1.0, "the first after the cause was gone"
    assert times[-1] - times[0] < 1.5, "each wave goes as soon as the one before it has gone well"
    lines = [record.getMessage() for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]
    assert len([line for line in lines if "wait for a cause" in line]) == 1
    assert len(lines) <= 4, lines
    assert all(record.state is ProcedureState.DONE for record in run_virtual(store.records(count=KEYS)))
