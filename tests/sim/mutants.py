"""Defects planted on purpose, to show that the simulator sees. Nothing of this is ever in `src`.

`state before token` and `await before fire` are the two defects of Neon's shutdown; the others are mistakes of the same kind.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from outlast._core.classify import Classifiers
from outlast._core.faults import Fault, Kind
from outlast._core.phases import Phase
from outlast._runtime.dependency.incident import clock
from outlast._runtime.service.gate import Gate
from outlast._runtime.service.holdings import Holdings
from outlast._runtime.service.lifecycle import Lifecycle
from outlast._runtime.service.stop import Stop, Stopping
from outlast._runtime.service.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

LATE_S: Final = 0.005


def state_before_token(patch: Callable[[Any, str, Any], None]) -> None:
    """Neon's first defect: the state says "stopping", and the token is cancelled some milliseconds later."""

    def fire(self: Stop, reason: str) -> None:
        if self.reason is not None:
            return
        fired = [stop for stop in self.tree() if stop.reason is None]
        for stop in fired:
            stop.at, stop.reason = clock(), reason
        asyncio.get_running_loop().call_later(LATE_S, lambda: [stop.wake() for stop in fired])

    patch(Stop, "fire", fire)


def state_a_turn_before_token(patch: Callable[[Any, str, Any], None]) -> None:
    """The same, with no more than a turn of the event loop between them."""

    def fire(self: Stop, reason: str) -> None:
        if self.reason is not None:
            return
        fired = [stop for stop in self.tree() if stop.reason is None]
        for stop in fired:
            stop.at, stop.reason = clock(), reason
        asyncio.get_running_loop().call_soon(lambda: [stop.wake() for stop in fired])

    patch(Stop, "fire", fire)


def await_before_fire(patch: Callable[[Any, str, Any], None]) -> None:
    """Neon's second defect: the children are awaited before the token is fired that they listen to."""
    fire = Stop.fire

    def alone(self: Stop, reason: str) -> None:
        """Fire this one, and leave the children to `end`."""
        children, self._children = self._children, {}
        fire(self, reason)
        self._children = children

    original = Lifecycle.end

    async def end(self: Lifecycle) -> Any:
        running = [task for task in self._pending if task not in self._workers]
        if running:
            await asyncio.wait(running)
        for child in self.children:
            fire(child.stop, self.stop.reason or "")
        return await original(self)

    patch(Stop, "fire", alone)
    patch(Lifecycle, "end", end)


def provenance_by_time(patch: Callable[[Any, str, Any], None]) -> None:
    """Whatever fails once the stop is requested is called a consequence of it: a corruption in the window is silent."""
    failed = Worker._failed

    async def by_time(self: Worker, exc: BaseException, stop: Stop) -> None:
        if stop.requested:
            raise Stopping(stop.reason or "") from exc
        await failed(self, exc, stop)

    patch(Worker, "_failed", by_time)


def hidden_corruption(patch: Callable[[Any, str, Any], None]) -> None:
    """A corruption whose clean-up is ended by the stop is not looked for."""
    patch(Classifiers, "fatal_behind", lambda self, exc: None)


def loud_stop(patch: Callable[[Any, str, Any], None]) -> None:
    """Provenance is not looked at: what the stop ends is taken for a bug."""
    classify = Classifiers.classify

    def without(self: Classifiers, exc: BaseException, *, source: str = "", phase: str = "") -> Fault:
        fault = classify(self, exc, source=source, phase=phase)
        return Fault(Kind.BUG, "stopped", str(exc), source) if fault.kind is Kind.STOPPING else fault

    patch(Classifiers, "classify", without)


def drain_without_deadline(patch: Callable[[Any, str, Any], None]) -> None:
    """The drain lasts until everybody has gone."""

    async def until_empty(self: Lifecycle, when: object) -> None:
        while self._pending:
            await self._wait_for_bell()

    patch(Lifecycle, "_until_empty", until_empty)


def open_gate(patch: Callable[[Any, str, Any], None]) -> None:
    """The gate lets newcomers in after it was closed."""
    take = Gate.take

    def let_in(self: Gate, holding: Any, name: str) -> None:
        closed, self.closed = self.closed, None
        try:
            take(self, holding, name)
        finally:
            self.closed = closed

    patch(Gate, "take", let_in)


def missed_wake(patch: Callable[[Any, str, Any], None]) -> None:
    """Who begins to wait after the stop was fired is not told."""

    async def until(self: Stop, future: asyncio.Future[Any]) -> Any:
        self._parked[future] = None
        try:
            return await future
        finally:
            self._parked.pop(future, None)

    patch(Stop, "until", until)


def probes_go_on(patch: Callable[[Any, str, Any], None]) -> None:
    """The probers are not told of the stop."""
    patch(Holdings, "stopping", lambda self, dependencies, stop: None)


def close_too_early(patch: Callable[[Any, str, Any], None]) -> None:
    """Dependencies are let go without regard to who else needs them."""

    def let_go(self: Holdings, dependencies: Any) -> Any:
        return [self._dependencies.pop(id(each)) for each in dependencies if id(each) in self._dependencies]

    patch(Holdings, "let_go", let_go)


def flush_before_drain(patch: Callable[[Any, str, Any], None]) -> None:
    """Durable state is written while bodies still change it."""

    async def skipped(self: Lifecycle) -> None:
        """Do not wait."""

    patch(Lifecycle, "_drain", skipped)


def flush_twice(patch: Callable[[Any, str, Any], None]) -> None:
    """The hooks of a phase run again."""
    hooks = Lifecycle._hooks

    async def twice(self: Lifecycle, phase: Phase) -> None:
        await hooks(self, phase)
        if phase is Phase.FLUSH:
            await hooks(self, phase)

    patch(Lifecycle, "_hooks", twice)


def forgets_codes(patch: Callable[[Any, str, Any], None]) -> None:
    """What a child ended in does not reach its parent."""
    take_over = Lifecycle._take_over

    def without(self: Lifecycle, report: Any) -> None:
        codes = list(self._codes)
        take_over(self, report)
        self._codes[:] = codes

    patch(Lifecycle, "_take_over", without)


NEON: Final = ("state_before_token", "await_before_fire")
MUTANTS: Final = {
    mutant.__name__: mutant
    for mutant in (
        state_before_token,
        await_before_fire,
        state_a_turn_before_token,
        provenance_by_time,
        hidden_corruption,
        loud_stop,
        drain_without_deadline,
        open_gate,
        missed_wake,
        probes_go_on,
        close_too_early,
        flush_before_drain,
        flush_twice,
        forgets_codes,
    )
}
