"""What must hold. The safety phase is looked at after each turn of the event loop, at each phase, and at the end.

(a) State and token agree in the whole tree. (b) Nothing begins after the stop. (c) Phases are in order. (d) Log lines and exit
codes say what was injected, and nothing else. (e) It ends by its deadline, and who did not is named. (f) It always ends.
(g) Liveness: with the faults off everything is up and makes progress.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from outlast._core.health import State
from outlast._core.phases import EXIT_BUG, EXIT_CLEAN, EXIT_FATAL, EXIT_FORCED, Phase
from outlast._core.stop_report import KEPT_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.sim.world import HookRecord, ServiceRecord, World

    from outlast._core.stop_report import StopReport, Unfinished
    from outlast._runtime.service.stop import Stop

ORDER: Final = [phase.value for phase in Phase if phase is not Phase.REPORT]
HURRIED_SHARE: Final = 0.7
"""What is left of a deadline at most after a hurry: x = 0.8 x of a child, 0.02 and 0.12 of its own."""
BUGS_MAX: Final = 8
"""How many bugs the workers of a body may have without any of them leaving."""
GONE: Final = " was cancelled, and not by the stop: it works no more"
SAID_ONCE: Final = (GONE, " failed")
SLACK_S: Final = 1e-6
INCIDENT: Final = re.compile(r"^(?:(?:loop|task) )?(\w+)(?: is| still|: )")


class Safety:
    """Watches one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.trace = world.trace
        self.stops: list[tuple[ServiceRecord, Stop]] = []
        world.entering = self.entering  # type: ignore[method-assign]

    # (a), after each turn of the loop.

    def turn(self) -> None:
        if not self.stops:
            if self.world.root.life is None:
                return
            self.stops = [(record, record.life.stop) for record in self.world.services if record.life is not None]
        for _, stop in self.stops:
            if stop.reason is not None:
                break
        else:
            return
        for record, stop in self.stops:
            if stop.reason is not None and not (record.drained and record.stop_at is not None):
                self._requested(record, stop)

    def _requested(self, record: ServiceRecord, stop: Stop) -> None:
        name = record.plan.name
        if record.stop_at is None:
            record.stop_at = self.trace.now
            self.trace(f"stop {name}: {stop.reason}")
            if stop.at is None or abs(stop.at - self.trace.now) > SLACK_S:
                self.trace.violation("a", f"{name} was stopped at {stop.at} and is seen so only now")
        if any(not future.done() for future in stop._parked):
            self.trace.violation("a", f"the stop of {name} is requested, and somebody who waits for it was not woken")
        if stop._callbacks:
            self.trace.violation("a", f"the stop of {name} is requested, and a callback was not called")
        if record.service.ready:
            self.trace.violation("a", f"{name} is stopping, and ready")
        if record.service.gate.closed is None:
            self.trace.violation("a", f"{name} is stopping, and its gate is open")
        for child in record.children:
            if not child.requested:
                self.trace.violation("a", f"{name} is stopping, and its child {child.plan.name} is not")

    # (c), at each phase.

    def entering(self, record: ServiceRecord, phase: str) -> None:
        name, now = record.plan.name, self.trace.now
        if not record.requested:
            self.trace.violation("c", f"{name} enters {phase}, and no stop was requested")
        if list(record.entered) != ORDER[: ORDER.index(phase)]:
            self.trace.violation("c", f"{name} enters {phase} after {list(record.entered)}")
        record.entered[phase] = now
        if phase != Phase.FLUSH.value:
            return
        record.drained = True
        life = record.life
        assert life is not None
        named = {unfinished.what for unfinished in life._unfinished}
        complete = len(life._unfinished) < KEPT_MAX
        for child in record.children:
            if child.life is None or not complete:
                continue
            if child.life.phase is not Phase.REPORT and f"child service {child.plan.name}" not in named:
                self.trace.violation("c", f"{name} flushes, and its child {child.plan.name} neither ended nor is named")
        running = {task.rpartition(".")[2] for body in record.bodies for task in body.inside}
        for worker in sorted(running - named) if complete else ():
            self.trace.violation("e", f"{name} flushes, and {worker} runs and is not named")
        if len(record.service.gate) and complete and not {holder.name for holder in record.service.gate.holders} <= named:
            self.trace.violation("e", f"{name} flushes, and who is inside its gate is not named")

    # At the end.

    def end(self, report: StopReport | None, failure: BaseException | None, ended_at: float) -> None:
        if report is None:
            if failure is None or not any(hook.raised for hook in self.world.hooks.values() if hook.plan.phase == "start"):
                self.trace.violation("f", f"run() ended without a report: {failure!r}")
            return
        self._times(report, ended_at)
        self._hooks_and_closings(report)
        self._exit_code(report)
        self._explained(report)
        self._lines(report)
        self._loudness()

    def _times(self, report: StopReport, ended_at: float) -> None:
        world, root = self.world, self.world.root
        assert root.life is not None
        stop_at = root.life.stop.at
        if stop_at is None:
            self.trace.violation("e", "it ended without a stop")
            return
        abandoned = not root.life.working
        delays_s = sum(record.delays_s for record in world.services) if abandoned else root.delays_s
        by = stop_at + root.plan.deadline_s + delays_s
        if world.hurried_at is not None and not any(self._stopped_before(record, stop_at) for record in world.services):
            # A child that was stopped before and is being cancelled already keeps its time.
            by = min(by, max(world.hurried_at, stop_at) + HURRIED_SHARE * root.plan.deadline_s + delays_s)
        if ended_at > by + SLACK_S:
            self.trace.violation("e", f"it ended at {ended_at:.3f} s, and had until {by:.3f} s (stopped at {stop_at:.3f} s)")

    def _stopped_before(self, record: ServiceRecord, stop_at: float) -> bool:
        return record.stop_at is not None and record.stop_at < stop_at

    def _hooks_and_closings(self, report: StopReport) -> None:
        left_starting = {each.service.rpartition("/")[2] for each in report.unfinished if each.what == "the start"}
        for hook in self.world.hooks.values():
            if hook.plan.phase == "start" or hook.service.plan.name in left_starting:
                continue
            started = self._started(hook.service)
            expected = 1 if started else 0
            if hook.began != expected and not (hook.began < expected and self._slowed(hook.service)):
                said = "ran all its starters" if started else "did not start"
                text = (
                    f"{hook.service.plan.name}, which {said}, ran its {hook.plan.phase} hook {hook.plan.name} {hook.began} times"
                )
                self.trace.violation("c", text)
        for dependency in self.world.dependencies:
            left_open = dependency.closings == 0 and any(map(self._slowed, dependency.users))
            if dependency.users and dependency.closings != 1 and not left_open:
                self.trace.violation("c", f"{dependency.name} was closed {dependency.closings} times")

    def _started(self, record: ServiceRecord) -> bool:
        return record.life is not None and record.life.started

    def _exit_code(self, report: StopReport) -> None:
        fatal = [left for body in self.world.bodies.values() for left in body.left if left.what == "FATAL"]
        fatal_hook = any(hook.raised == "FATAL" for hook in self.world.hooks.values())
        bugs = any(sum(left.what == "BUG" for left in body.left) > BUGS_MAX for body in self.world.bodies.values())
        if any(left.draining for left in fatal):
            expected = {EXIT_FATAL}
        elif report.unfinished_count or report.not_flushed_count or report.failed:
            expected = {EXIT_FORCED}
        else:
            expected = {EXIT_CLEAN}
        if fatal or fatal_hook:
            expected.add(EXIT_FATAL)
        if bugs:
            expected.add(EXIT_BUG)
        if report.exit_code not in expected:
            self.trace.violation("d", f"exit code {report.exit_code}, and expected {sorted(expected)}")

    def _explained(self, report: StopReport) -> None:
        """Whoever is named in the report had a reason not to finish."""
        for unfinished in report.unfinished:
            reason = self._why(unfinished)
            if reason:
                self.trace.violation("e", f"{unfinished.what} of {unfinished.service} is named as unfinished: {reason}")
        for name in (*report.not_flushed, *report.failed):
            hook = self._hook(name)
            if hook is None or not (hook.raised or hook.plan.deaf or hook.plan.seconds != 0.0 or self._delayed(hook.service)):
                self.trace.violation("e", f"{name!r} is reported as not done, and nothing was wrong with it")

    def _why(self, unfinished: Unfinished) -> str:
        """What is wrong with naming it, or nothing."""
        world = self.world
        service = next(record for record in world.services if unfinished.service.rpartition("/")[2] == record.plan.name)
        delayed = self._delayed(service)
        if unfinished.what == "the start":
            slow = [hook for hook in world.hooks.values() if hook.plan.phase == "start" and hook.plan.deaf]
            return "" if slow else "no starter was deaf"
        if unfinished.what.startswith("child service "):
            child = next(record for record in world.services if record.plan.name == unfinished.what.split()[-1])
            return "" if self._slowed(child) else "nothing delayed its stop"
        hook = self._hook(unfinished.what)
        if hook is not None:
            took_s = hook.plan.seconds
            return "" if took_s is None or hook.plan.deaf or took_s >= unfinished.held_s - SLACK_S else "it would have ended"
        kinds = self._kinds(unfinished.what.partition("#")[0])
        return "" if delayed or kinds & {"deaf", "cleanup"} else f"it does nothing but {', '.join(sorted(kinds))}"

    def _delayed(self, service: ServiceRecord) -> bool:
        return any(record.plan.delay_s_max for record in (service, *service.above()))

    def _slowed(self, service: ServiceRecord) -> bool:
        """Whether delays were injected into it, or into what it waits for or is waited for by."""
        related = (record for record in self.world.services if service in record.above())
        return self._delayed(service) or any(record.plan.delay_s_max for record in related)

    def _kinds(self, what: str) -> set[str]:
        name = what.rpartition(".")[2]
        if name in self.world.bodies:
            return self.world.bodies[name].kinds
        number = int(name.removeprefix("handler"))
        return self.world.schedule.handlers[number].act.kinds()

    def _hook(self, name: str) -> HookRecord | None:
        return next((self.world.hooks[word] for word in re.findall(r"h\d+", name) if word in self.world.hooks), None)

    # (d), the log.

    def _lines(self, report: StopReport) -> None:
        for _, level, text in self.trace.lines:
            if level >= logging.WARNING and not self._allowed(level, text, report):
                self.trace.violation("d", f"nothing explains the line: {logging.getLevelName(level)} {text}")

    def _allowed(self, level: int, text: str, report: StopReport) -> bool:
        if " stopped in " in text:
            return level == logging.ERROR and report.exit_code != 0
        if ": cancelled what still ran: " in text:
            return level == logging.WARNING and self._cancelled(text)
        subject = None if text.endswith(SAID_ONCE) or " leaves service: " in text else INCIDENT.match(text)
        return self._said_once(level, text) if subject is None else self._incident(level, subject.group(1))

    def _said_once(self, level: int, text: str) -> bool:
        world = self.world
        if text.endswith(GONE):
            name = text.partition(" ")[0].rpartition(".")[2].partition("#")[0]
            return any(left.what == "cancelled" for left in world.bodies[name].left)
        if text.endswith(": the start failed"):
            return any(hook.raised for hook in world.hooks.values() if hook.plan.phase == "start")
        if text.endswith(" failed"):
            hook = self._hook(text)
            return hook is not None and hook.raised == ("FATAL" if level == logging.CRITICAL else "BUG")
        if " leaves service: " in text:
            return any(sum(left.what == "BUG" for left in body.left) > BUGS_MAX for body in world.bodies.values())
        return False

    def _incident(self, level: int, name: str) -> bool:
        world = self.world
        if name in world.bodies:
            lefts = {left.what for left in world.bodies[name].left}
            return {logging.WARNING: bool(lefts & {"other", "BUG"}), logging.ERROR: "BUG" in lefts}.get(level, "FATAL" in lefts)
        peer = next((peer for peer in world.peers if peer.name == name), None)
        return level == logging.WARNING and peer is not None and (peer.troubled > 0 or world.timeouts_inside > 0)

    def _cancelled(self, text: str) -> bool:
        """Only what does not heed the stop by itself may have to be cancelled, and only when the drain is over."""
        world = self.world
        if world.hurried_at is not None or world.root.plan.delay_s_max:
            return True
        names = text.partition(": cancelled what still ran: ")[2].partition(" and ")[0].split(", ")
        unheeding = {"plain", "call", "deaf", "cleanup"}
        return all(self._kinds(name.partition("#")[0]) & unheeding for name in names)

    def _loudness(self) -> None:
        """Each corruption is one CRITICAL line; no bug is silent."""
        said = list(self._said())
        for body in self.world.bodies.values():
            fatal = sum(left.what == "FATAL" for left in body.left)
            critical = sum(name == body.plan.name and level == logging.CRITICAL for level, name in said)
            if fatal != critical:
                self.trace.violation("d", f"{fatal} corruptions left {body.plan.name}, and {critical} lines are CRITICAL")
            bugs = sum(left.what == "BUG" for left in body.left)
            if bugs and not any(name == body.plan.name and level == logging.ERROR for level, name in said):
                self.trace.violation("d", f"{bugs} bugs left {body.plan.name}, and no line says so")
        for hook in self.world.hooks.values():
            if (
                hook.raised
                and hook.plan.phase != "start"
                and not any(
                    text.endswith(f"{hook.plan.name} failed") for _, level, text in self.trace.lines if level >= logging.ERROR
                )
            ):
                self.trace.violation("d", f"the hook {hook.plan.name} failed through a {hook.raised}, and no line says so")

    def _said(self) -> Iterator[tuple[int, str]]:
        for _, level, text in self.trace.lines:
            subject = INCIDENT.match(text)
            if subject is not None:
                yield level, subject.group(1)


def check_liveness(world: World, before: dict[str, int], after: dict[str, int]) -> None:
    """(g) With the faults off: every dependency usable, every loop makes progress."""
    for dependency in world.dependencies:
        if dependency.state is State.DOWN and dependency.users:
            world.trace.violation("g", f"{dependency.name} is still down")
    for name, body in world.bodies.items():
        if body.service.requested:
            continue
        if not body.plan.once and after[name] == before[name]:
            world.trace.violation("g", f"{body.subject} made no progress")
