"""The gate: closed to newcomers at once, open to leave, and it names who is inside."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import outlast
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast._runtime.service.gate import Pass


@pytest.fixture(autouse=True, scope="module")
def no_time_passes() -> Iterator[None]:
    """Who comes back at once after a refusal waits its turn: tests/unit/core/test_turns.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("outlast._runtime.dependency.callers.sleep_in_thread", lambda turn: None)
        yield


def test_it_refuses_once_closed_and_is_empty_when_the_last_has_left() -> None:
    async def main() -> None:
        gate = outlast.Gate("shop")
        await gate.empty()
        leave = asyncio.Event()

        async def inside(name: str) -> None:
            async with gate.enter(name):
                await leave.wait()

        async with asyncio.TaskGroup() as group:
            for name in ("first", "second"):
                group.create_task(inside(name))
            await asyncio.sleep(3)
            gate.close("SIGTERM")
            gate.close("again")
            with pytest.raises(outlast.Stopping, match="SIGTERM"):
                async with gate.enter("late"):
                    pytest.fail("entered")
            assert [(holder.name, holder.since) for holder in gate.holders] == [("first", 0), ("second", 0)]
            assert gate.holders[0].stack() == gate.holders[1].stack()
            assert "inside (test_gate.py:" in gate.holders[0].stack()[-1]
            emptied = group.create_task(gate.empty())
            await asyncio.sleep(1)
            assert not emptied.done()
            leave.set()
        assert len(gate) == 0
        assert gate.refused == 1
        gate.open()
        with gate.enter("next life"):
            assert len(gate) == 1

    run_virtual(main)


def test_it_is_safe_for_threads_and_names_them() -> None:
    async def main() -> None:
        gate = outlast.Gate("shop")
        entered, leave = threading.Barrier(5), threading.Event()

        def inside() -> None:
            with gate.enter("a thread"):
                entered.wait(10)
                leave.wait(10)

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(asyncio.to_thread(inside))
            await asyncio.to_thread(entered.wait, 10)
            gate.close("SIGTERM")
            assert all("inside (test_gate.py:" in " ".join(holder.stack()) for holder in gate.holders)
            emptied = asyncio.create_task(gate.empty())
            await asyncio.sleep(0)
            leave.set()
            await emptied
        assert len(gate) == 0

    run_virtual(main)


def test_it_is_bounded() -> None:
    gate = outlast.Gate("shop", holders_max=1)
    with (
        gate.enter("one"),
        pytest.raises(outlast.Unavailable, match=r"1 are inside already \(limit 1\)") as refusal,
        gate.enter("two"),
    ):
        pytest.fail("entered")
    assert refusal.value.fault.kind is outlast.Kind.OVERLOADED


class GateAndModel(RuleBasedStateMachine):
    """Against a set of names."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = outlast.Gate("shop", holders_max=3)
        self.inside: list[Pass] = []
        self.refused = 0
        self.open = True

    @rule()
    def enter(self) -> None:
        entry = self.gate.enter("somebody")
        if self.open and len(self.inside) < 3:
            entry.__enter__()
            self.inside.append(entry)
        else:
            with pytest.raises((outlast.Stopping, outlast.Unavailable)):
                entry.__enter__()
            self.refused += 1

    @precondition(lambda self: self.inside)
    @rule()
    def leave(self) -> None:
        self.inside.pop(0).__exit__(None, None, None)

    @rule()
    def close(self) -> None:
        self.gate.close("test")
        self.open = False

    @rule()
    def reopen(self) -> None:
        self.gate.open()
        self.open = True

    @invariant()
    def counts(self) -> None:
        assert (len(self.gate), self.gate.refused) == (len(self.inside), self.refused)


TestGateAndModel = GateAndModel.TestCase
