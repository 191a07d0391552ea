"""A reply that comes when the lease is over already: nothing is begun by it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from served_procedures import served_by

from fake_procedure_store import FakeStore
from outlast.procedures import Procedure, Run
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.expected_logs("the lease of this runner is over")


class SlowOnce(FakeStore):
    """After its first write the machine stood still for longer than the lease: nobody has noticed that yet."""

    over: Any = None

    async def record(self, writes: Sequence[Any]) -> list[Any]:
        answer = await super().record(writes)
        if self.over is not None:
            self.over._until, self.over = -math.inf, None
        return answer


def test_no_step_is_begun_after_a_write_that_took_longer_than_the_lease(tmp_path: Path) -> None:
    tokens: dict[str, list[int]] = {"one": [], "two": []}
    procedure = Procedure("slow")

    @procedure.step
    async def one(run: Run) -> None:
        tokens["one"].append(run.token)

    @procedure.step
    async def two(run: Run) -> None:
        tokens["two"].append(run.token)

    async def main() -> None:
        store = SlowOnce()
        runs = served_by(store, [procedure], tmp_path / "journal")
        await runs.start()
        assert runs.runner is not None
        store.over = runs.runner.lease
        await (await runs.system.submit("slow", "key")).wait(120.0)
        assert runs.runner.lease.losses == 1
        assert await runs.end() == 0

    run_virtual(main())
    assert tokens == {"one": [1], "two": [2]}, "whoever has a lease begins it, by a claim of its own"
