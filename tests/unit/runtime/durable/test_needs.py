"""Which kinds are acquired while a dependency is down, and how they are let go: in virtual time."""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from outlast import Dependency, Fault, Kind, State, Stop, Unavailable
from outlast._runtime.durable.needs import LEARNED_MAX
from outlast.extend import Needs, refusal_in
from outlast.jobs import Job
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

pytestmark = pytest.mark.expected_logs
KINDS = ("pay", "mail", "note")


class Scene:
    """Needs of three kinds, a dependency `payments`, and who acquires: `take` is one statement, for `wanted` jobs."""

    def __init__(self, *, probed: bool = True, declared: bool = True, workers: int = 20) -> None:
        self.up = False
        self.payments = Dependency("payments", probe=self.probe if probed else None)
        self.stop = Stop()
        needs = {"pay": (self.payments,)} if declared else {}
        self.needs = Needs(lambda: {kind: needs.get(kind, ()) for kind in KINDS})
        self.needs.workers = workers
        self.number = 0

    async def probe(self) -> None:
        if not self.up:
            raise ConnectionRefusedError(111, "refused")

    def job(self, kind: str = "pay") -> Job:
        self.number += 1
        return Job(self.number, kind, None, 1, 5)

    def take(self, wanted: int = 1_000) -> list[Job]:
        """Acquire: as if there were any number of jobs of each kind."""
        taken: list[Job] = []
        for kinds, most in self.needs.shares(self.stop):
            for kind in kinds:
                taken += [self.job(kind) for _ in range(min(wanted, 1_000 if most is None else most))]
        for job in taken:
            self.needs.took(job)
        return taken

    def kinds(self) -> set[str]:
        return {kind for kinds, _ in self.needs.shares(self.stop) for kind in kinds}

    async def call(self, job: Job) -> bool:
        """A handler that uses the dependency; True if it was not refused."""
        worked = refused = False
        try:
            async with self.payments.use():
                await self.probe()
                worked = True
        except Unavailable as refusal:
            refused = True
            self.needs.refused(job, refusal, self.stop)
        except ConnectionError:
            pass
        self.needs.ended(job, worked=worked)
        return not refused


def played(scene: Scene, act: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        try:
            await act(scene)
        finally:
            scene.stop.fire("the end")
            scene.needs.close()
            await scene.payments.close()

    run_virtual(main)


def test_a_kind_is_held_while_what_it_needs_is_down() -> None:
    async def act(scene: Scene) -> None:
        assert scene.kinds() == set(KINDS)
        await scene.call(scene.job())
        assert scene.payments.state is State.DOWN
        assert scene.kinds() == {"mail", "note"}
        await asyncio.sleep(60)
        assert scene.kinds() == {"mail", "note"}

    played(Scene(), act)


def test_it_is_let_go_over_the_ramp() -> None:
    async def act(scene: Scene) -> None:
        await scene.call(scene.job())
        scene.take()
        woken = 0

        def wake() -> None:
            nonlocal woken
            woken += 1

        scene.needs.wake = wake
        scene.up = True
        while scene.payments.state is State.DOWN:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        begun = 0
        for step in range(1, 10):
            await asyncio.sleep(0.1)
            begun += sum(job.kind == "pay" for job in scene.take())
            assert 10 * step - 10 <= begun <= 10 * step
        assert woken == 1
        await asyncio.sleep(0.2)
        assert scene.needs.shares(scene.stop) == [(list(KINDS), None)], "no hold is left"

    played(Scene(workers=100), act)


def test_what_is_not_declared_is_learned_from_the_refusal() -> None:
    async def act(scene: Scene) -> None:
        await scene.call(scene.job())
        assert scene.kinds() == set(KINDS)
        assert not await scene.call(scene.job())
        assert scene.kinds() == {"mail", "note"}
        scene.up = True
        await asyncio.sleep(10)
        assert scene.kinds() == set(KINDS)
        # In the next outage it is known.
        scene.up = False
        await scene.call(scene.job())
        assert scene.kinds() == {"mail", "note"}

    played(Scene(declared=False), act)


def test_without_a_probe_one_job_at_a_time_is_the_trial() -> None:
    async def act(scene: Scene) -> None:
        await scene.call(scene.job())
        calls = 0
        for step in range(6_000):
            if step == 3_000:
                scene.up = True
            for job in scene.take(20):
                if job.kind == "pay":
                    calls += 1
                    await scene.call(job)
            if scene.payments.state is not State.DOWN:
                break
            await asyncio.sleep(0.01)
        assert scene.payments.state is State.RECOVERING
        assert 3 <= calls <= 60, "as often as a probe would ask"

    played(Scene(probed=False), act)


def test_a_learned_need_that_a_job_does_without_is_forgotten() -> None:
    async def act(scene: Scene) -> None:
        await scene.call(scene.job())
        assert not await scene.call(scene.job())
        for _ in range(1_000):
            for job in scene.take(1):
                if job.kind == "pay":
                    scene.needs.ended(job, worked=True)
            await asyncio.sleep(0.01)
        assert scene.payments.state is State.DOWN
        assert scene.needs.shares(scene.stop) == [(list(KINDS), None)]

    played(Scene(probed=False, declared=False), act)


def test_one_that_nobody_asks_any_more_holds_nothing_up_for_ever() -> None:
    """It belongs to a service that has ended, or to the event loop of a thread: it stays down, and tells nobody."""

    async def act(scene: Scene) -> None:
        await scene.call(scene.job())
        assert not await scene.call(scene.job())
        other = Stop()
        other.fire("the other service ends")
        scene.payments.stopping(other)
        calls = 0
        for _ in range(6_000):
            for job in scene.take(1):
                if job.kind == "pay":
                    calls += 1
                    scene.needs.ended(job, worked=calls > 2)
            await asyncio.sleep(0.01)
        assert scene.payments.state is State.DOWN
        assert calls >= 3
        assert scene.needs.shares(scene.stop) == [(list(KINDS), None)], "it works without, so it does not need it"

    played(Scene(declared=False), act)


def test_of_which_only_the_name_is_known_is_tried_at_growing_intervals() -> None:
    async def act(scene: Scene) -> None:
        loop = asyncio.get_running_loop()
        refusal = Unavailable("elsewhere", Fault(Kind.TRANSIENT, "503", "down", "elsewhere"), 1.0, 0.5)
        scene.needs.refused(scene.job("mail"), refusal, scene.stop)
        calls = 0
        while loop.time() < 60:
            for job in scene.take(20):
                if job.kind == "mail":
                    calls += 1
                    scene.needs.refused(job, refusal, scene.stop)
                    scene.needs.ended(job, worked=False)
            await asyncio.sleep(0.01)
        assert 3 <= calls <= 8
        taken: list[Job] = []
        while not any(job.kind == "mail" for job in taken):
            await asyncio.sleep(0.01)
            taken = scene.take(1)
        for job in taken:
            scene.needs.ended(job, worked=True)
        await asyncio.sleep(1)
        assert scene.needs.shares(scene.stop) == [(list(KINDS), None)]

    played(Scene(), act)


def test_what_is_learned_of_a_kind_is_bounded() -> None:
    async def act(scene: Scene) -> None:
        others = [Dependency(f"tenant {number}", probe=scene.probe) for number in range(LEARNED_MAX + 3)]
        for other in others:
            other.report(ConnectionRefusedError(111, "refused"))
            assert scene.needs.refused(scene.job("note"), other.unavailable(), scene.stop)
        assert sum(len(learned) for learned in scene.needs._learned.values()) == LEARNED_MAX
        for other in others:
            await other.close()

    played(Scene(), act)


def test_a_refusal_is_found_behind_other_exceptions() -> None:
    refusal = Unavailable("payments", Fault(Kind.TRANSIENT, "timeout", "t", "payments"), 5.0, 7.0)
    wrapped = RuntimeError("cannot pay")
    wrapped.__cause__ = refusal
    assert refusal_in(wrapped) is refusal
    assert refusal_in(ExceptionGroup("all", [refusal, wrapped])) is refusal
    assert refusal_in(ExceptionGroup("one", [refusal, ValueError("mine")])) is None
    assert refusal_in(ValueError("mine")) is None


def test_a_refusal_travels_without_its_owner() -> None:
    async def main() -> None:
        payments = Dependency("payments")
        payments.report(ConnectionRefusedError(111, "refused"))
        refusal = payments.unavailable()
        assert refusal.owner is payments
        copy = pickle.loads(pickle.dumps(refusal))  # noqa: S301 - our own bytes
        assert (copy.owner, copy.args, copy.fault, copy.retry_after_s) == (
            None,
            refusal.args,
            refusal.fault,
            refusal.retry_after_s,
        )
        await payments.close()

    run_virtual(main)
