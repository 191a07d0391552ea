"""One arm of a drill, from launching what it depends on to counting what became of its work."""

from __future__ import annotations

import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Generic, TypeVar

from outlast._drill.lab.arm.figures import Course
from outlast._drill.lab.errors import DrillCancelled, DrillError
from outlast._drill.lab.faults import Outage, StagedFault, mend
from outlast._drill.lab.observer import ArmState, Observer
from outlast._drill.lab.result import A
from outlast._drill.lab.watch import Watch

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from outlast._drill.lab.arm.instance import Instance
    from outlast._drill.lab.options import ArmKind, DrillOptions

T = TypeVar("T")

START_LIMIT_S = 30.0
STOP_LIMIT_S = 30.0
"""Seconds that an arm may take to end after SIGTERM before it is killed; longer than any default deadline in it."""


class ArmRun(ABC, Generic[A, T]):
    """Carries out one arm with a fault that strikes a T. A drill says what is set up, what work is and what is measured."""

    def __init__(self, options: DrillOptions, kind: ArmKind, observer: Observer, cancel: threading.Event) -> None:
        """Run `kind` as `options` say, telling `observer`; setting `cancel` ends it with DrillCancelled."""
        self.instances: list[Instance] = []
        self.options = options
        self.kind = kind
        self.observer = observer
        self.cancel = cancel
        self.fault: StagedFault[T] = options.faults[options.fault]()

    @abstractmethod
    def set_up(self, stack: ExitStack, directory: Path) -> Mapping[str, str]:
        """Launch what the arm depends on and the `instances`; return what its figures depend on, by name."""

    @abstractmethod
    def target(self) -> T:
        """Return what the fault strikes; called when everything is ready."""

    @abstractmethod
    def begin_work(self) -> None:
        """Begin to hand out work."""

    @abstractmethod
    def end_work(self) -> None:
        """Hand out no more, also when none was handed out; raises what went wrong meanwhile."""

    @abstractmethod
    def readiness(self) -> str:
        """Say what is still missing for the warm-up to begin, in words; empty when nothing is."""

    @abstractmethod
    def left(self) -> int:
        """Count the work that is not done."""

    @abstractmethod
    def result(self, course: Course) -> A:
        """Return the figures of the arm, when its processes have ended."""

    def run(self) -> tuple[A, Mapping[str, str]]:
        """Carry it out; return the result and what it depends on. Nothing it started is left behind."""
        self.enter(ArmState.STARTING)
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outlast-drill-")))
            depends_on = self.set_up(stack, directory)
            stack.enter_context(Watch(self.kind.name, self.instances, self.observer))
            course = self._carry_out()
            return self.result(course), depends_on

    def _carry_out(self) -> Course:
        try:
            self.begin_work()
            self._await_readiness()
            self.enter(ArmState.HEALTHY, self.options.warmup_s)
            healthy_s = time.monotonic()
            self.pause(self.options.warmup_s)
            outage = self.stage_fault()
            self.enter(ArmState.RECOVERY, self.options.cooldown_s)
            self.pause(self.options.cooldown_s)
        finally:
            self.end_work()
        fed_until_s = time.monotonic()
        self._drain()
        self.enter(ArmState.STOPPING)
        term_s = time.monotonic()
        processes = [instance.process for instance in self.instances if not instance.process.killed]
        died = any(process.exit_code is not None for process in processes)
        stops = [process.stop(STOP_LIMIT_S) for process in processes]
        self.refresh()
        return Course(
            healthy_s=healthy_s,
            outage=outage,
            fed_until_s=fed_until_s,
            term_s=term_s,
            exit_code=next((code for code, _ in stops if code != 0), 0),
            stop_s=None if died else max((took_s for _, took_s in stops), default=None),
        )

    def stage_fault(self) -> Outage:
        """Break it, let it be broken, mend it."""
        target = self.target()
        self.enter(ArmState.OUTAGE, self.options.outage_s)
        self.refresh()
        began_s = time.monotonic()
        try:
            self.fault.begin(target)
            broken_s = time.monotonic()
            self.fault.sustain(target, broken_s + self.options.outage_s, self.pause, Random(self.options.seed))
        finally:
            self.refresh()
            mended_s = time.monotonic()
            accepted_s = mend(self.fault, target, time.sleep)
        return Outage(began_s, broken_s, mended_s, accepted_s)

    def refresh(self) -> None:
        """Bring the records up to now."""
        for instance in self.instances:
            instance.refresh()

    def pause(self, seconds: float) -> None:
        """Wait; raises DrillCancelled when the drill is cancelled meanwhile."""
        if self.cancel.wait(seconds):
            msg = "the drill was cancelled"
            raise DrillCancelled(msg)

    def enter(self, state: ArmState, lasts_s: float | None = None) -> None:
        """Report the arm's state to the observer."""
        self.observer.arm_state(self.kind.name, state, lasts_s)

    def _await_readiness(self) -> None:
        deadline_s = time.monotonic() + START_LIMIT_S
        while missing := self.readiness():
            codes = [instance.process.exit_code for instance in self.instances]
            if time.monotonic() > deadline_s or any(code is not None for code in codes):
                ended = ", ".join("still runs" if code is None else f"ended with exit code {code}" for code in codes)
                outputs = [instance.process.output for instance in self.instances]
                last = " | ".join(line for output in outputs for line in [*output.first, *output.last][-3:]) or "no output"
                msg = (
                    f"arm {self.kind.name}: {missing} within {START_LIMIT_S:g} s of the start, and the process {ended};"
                    f" its last lines: {last}"
                )
                raise DrillError(msg)
            self.pause(0.02)

    def _drain(self) -> None:
        """Let the arm finish what it was given: until all is done, or nothing has moved for the kind's grace."""
        if not self.fault.heals:
            return
        self.enter(ArmState.DRAINING, self.kind.grace_s)
        moved_s, before = time.monotonic(), -1
        while any(instance.process.exit_code is None for instance in self.instances):
            self.refresh()
            left = self.left()
            if left != before:
                moved_s, before = time.monotonic(), left
            if left == 0 or time.monotonic() - moved_s >= self.kind.grace_s:
                return
            self.pause(0.25)
