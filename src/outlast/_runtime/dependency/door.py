"""The way in while a dependency is down: who may try, who waits, who is refused, and who waits its turn to be refused."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from outlast._core.health import State
from outlast._core.incidents import Line
from outlast._core.reaction import WARNING
from outlast._runtime.dependency.callers import on_event_loop, sleep_in_thread
from outlast._runtime.dependency.incident import clock
from outlast._runtime.service.stop import Stop, Stopping

if TYPE_CHECKING:
    from outlast._core.faults import Unavailable
    from outlast._core.turns import Turn
    from outlast._runtime.dependency.cell import Cell


def enter(cell: Cell) -> bool:
    """Pass as the trial (True) or because it is usable (False), or raise `Unavailable`: at once, or when it is one's turn.

    From any thread. On an event loop's thread nobody waits, since a sleep would freeze the loop: what spins there by `with`
    is only named.
    """
    place = cell.let_in()
    if place is not None:
        return place
    turn = next_turn(cell)
    if turn.wait_s and not on_event_loop():
        sleep_in_thread(turn)
        place = cell.let_in()
        if place is not None:
            return place
    raise refused(cell, turn)


async def admit(cell: Cell) -> bool:
    """Enter as `enter` does, for a coroutine: whoever waits its turn is in line with the other waiters, and passes with them."""
    place = cell.let_in()
    if place is not None:
        return place
    turn = next_turn(cell)
    if turn.wait_s:
        await _wait_turn(cell, turn.wait_s)
        place = cell.let_in()
        if place is not None:
            return place
    raise refused(cell, turn)


async def ready(cell: Cell, timeout_s: float | None, stop: Stop | None) -> None:
    """See `Dependency.ready`."""
    if stop is not None and stop.requested:
        raise await _sent_away(cell, stop)
    if cell.passable:
        return
    cell.bind()
    if cell.stop is not None:
        raise await _sent_away(cell, cell.stop)
    cell.incident.refused()
    turn = next_turn(cell)
    if len(cell.waiters) >= cell.waiters_max:
        if turn.wait_s:
            await asyncio.sleep(turn.wait_s)
            if cell.health.state is not State.DOWN:
                return
    else:
        # Whoever spins by a time-out of nothing waits its turn as well.
        limit_s = None if timeout_s is None else max(timeout_s, turn.wait_s)
        if await cell.waiters.wait(limit_s, stop):
            return
    raise remembered(cell, turn, cell.unavailable())


def next_turn(cell: Cell) -> Turn:
    """Return the refusal of this caller, if it has to be refused."""
    return cell.callers.next_turn(clock(), cell.policy.present_wait_s(cell.health))


def refused(cell: Cell, turn: Turn) -> Unavailable:
    """Count and remember the refusal of a caller that has waited its turn, and build it."""
    return remembered(cell, turn, cell.refusal())


def remembered(cell: Cell, turn: Turn, refusal: Unavailable) -> Unavailable:
    """Remember that the caller is refused now, and name it when it has begun to spin; returns `refusal`."""
    spinner = cell.callers.refused(turn, clock())
    if spinner is not None:
        text = (
            f"{spinner} spins: {cell.name} is down, and it came back within 10 ms of each of its last {turn.in_a_row} refusals; "
            f"each one takes longer now. Let outlast.Unavailable out of it, or await {cell.name}.ready() first"
        )
        cell.incident.note(Line(WARNING, text, {"outlast.subject": cell.name}))
        cell.incident.write()
    return refusal


async def _wait_turn(cell: Cell, seconds: float) -> None:
    here = cell.loop is asyncio.get_running_loop() and cell.stop is None
    # Half of the places are left to those who came to wait.
    if not here or len(cell.waiters) >= cell.waiters_max // 2:
        await asyncio.sleep(seconds)
        return
    with contextlib.suppress(Stopping):
        await cell.waiters.wait(seconds)


async def _sent_away(cell: Cell, stop: Stop) -> Stopping:
    """Make a refusal of it as well: who takes no notice of the stop and asks on must not keep the others from heeding it."""
    await cell.callers.take_turn(cell.policy.present_wait_s(cell.health))
    return Stopping(stop.reason or "")
