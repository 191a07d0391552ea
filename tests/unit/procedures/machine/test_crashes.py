"""Whatever runners die of, and wherever: a procedure ends once, as if it had never been interrupted."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from outlast import Backoff, Kind
from outlast.extend import Jitter
from outlast.procedures._model import FINAL, ProcedureState
from outlast.procedures._procedure import Procedure
from procedure_rig import ID, Rig, World, fault, nothing

if TYPE_CHECKING:
    from collections.abc import Callable

DEATHS_MAX = 8
ATTEMPTS_MAX = DEATHS_MAX + 4
BACKOFF = Backoff(base_s=1.0, cap_s=10.0, jitter=Jitter.NONE)


@dataclass(frozen=True)
class Plan:
    """A procedure, and what its steps meet."""

    shapes: tuple[str, ...]
    """step, undoable, sleep, wait, or default: a wait with one."""
    passing: tuple[int, ...]
    """By step: the faults that pass, before it comes to its end."""
    refused: int | None
    """The step that is REJECTED in the end."""
    undo_passing: int
    signalled: bool

    def procedure(self) -> Procedure:
        procedure = Procedure("plan", attempts_max=ATTEMPTS_MAX, backoff=BACKOFF)
        for number, shape in enumerate(self.shapes):
            name = f"s{number}"
            if shape == "sleep":
                procedure.sleep(name, 20.0)
            elif shape == "wait":
                procedure.wait(name, timeout_s=30.0)
            elif shape == "default":
                procedure.wait(name, timeout_s=30.0, default="none came")
            else:
                step = procedure.step(name=name)(nothing)
                if shape == "undoable":
                    step.undo(nothing)
        return procedure

    def rig(self) -> Rig:
        world = World()
        for number, count in enumerate(self.passing):
            world.meets[f"s{number}"] = [fault()] * count
            world.meets[f"s{number}:undo"] = [fault(Kind.BUG)] * self.undo_passing
            world.results[f"s{number}"] = f'"result {number}"'
        if self.refused is not None:
            world.always[f"s{self.refused}"] = fault(Kind.REJECTED, "bad")
        rig = Rig(self.procedure(), world)
        if self.signalled:
            for number in range(len(self.shapes)):
                rig.signal(f"s{number}", f'"signal {number}"')
        return rig


SHAPES = st.sampled_from(["step", "undoable", "undoable", "sleep", "wait", "default"])


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    shapes = tuple(draw(st.lists(SHAPES, min_size=1, max_size=5)))
    passing = tuple(draw(st.integers(0, 2)) for _ in shapes)
    refused = draw(st.none() | st.integers(0, len(shapes) - 1))
    return Plan(shapes, passing, refused, draw(st.integers(0, 2)), draw(st.booleans()))


def deadly(seed: int, often: float) -> Callable[[str], bool]:
    """Die at random places, a bounded number of times."""
    rng, died = random.Random(seed), [0]

    def dies(_place: str) -> bool:
        now = died[0] < DEATHS_MAX and rng.random() < often
        died[0] += now
        return now

    return dies


def check(rig: Rig) -> None:
    """What holds of every run, whoever died in it and whatever was asked."""
    assert rig.record.state in FINAL
    assert len(rig.ends) == 1
    names = [key.removeprefix(f"{ID}:0:") for key in rig.world.effects]
    undos = [name for name in names if name.endswith(":undo")]
    steps = names[: len(names) - len(undos)]
    # No step runs once anything is undone, and steps run in order, each as often as it has to.
    assert steps == sorted(steps)
    assert all(not name.endswith(":undo") for name in steps)
    # Undone in reverse, one after the other.
    assert undos == sorted(undos, reverse=True)
    if rig.record.state is ProcedureState.DONE:
        assert not undos
    else:
        undoable = {step.name for step in rig.procedure.steps if getattr(step, "undoing", None)}
        assert {name.removesuffix(":undo") for name in undos} >= set(steps) & undoable
    known = {name: {told for told, _ in outcomes} for name, outcomes in rig.world.known.items()}
    # Told the same thing each time, and only the last step that ran may be unknown.
    assert all(len(told) == 1 for told in known.values())
    assert [name for name, told in known.items() if told == {False}] in ([], [max(known, default="")])


@given(plans(), st.integers(0, 2**32), st.sampled_from([0.05, 0.2, 0.5]))
def test_a_procedure_ends_once_as_if_it_had_never_been_interrupted(plan: Plan, seed: int, often: float) -> None:
    calm, troubled = plan.rig(), plan.rig()
    troubled.dies = deadly(seed, often)
    assert calm.run() is troubled.run()
    check(calm)
    check(troubled)
    assert troubled.record.result_json == calm.record.result_json
    assert troubled.ends[0].body_json == calm.ends[0].body_json
    # The same effects, by their keys, in the same order: a step is begun again, never as another one. Where a death came before
    # anything was known of the last step, its undo may find nothing to take back.
    assert troubled.world.done() == calm.world.done()


@given(plans(), st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.3]), st.integers(0, 40))
def test_a_cancel_at_any_place_ends_it_once_undone_or_done(plan: Plan, seed: int, often: float, after: int) -> None:
    rig = plan.rig()
    die, asked = deadly(seed, often), [0]

    def dies(place: str) -> bool:
        asked[0] += 1
        if asked[0] == after:
            rig.cancel()
        return die(place)

    rig.dies = dies
    rig.run()
    check(rig)


@given(plans(), st.integers(0, 2**32))
def test_a_revived_key_is_new_work(plan: Plan, seed: int) -> None:
    rig = plan.rig()
    rig.dies = deadly(seed, 0.2)
    if rig.run() is not ProcedureState.DEAD:
        return
    first = list(rig.world.effects)
    rig.world.always.clear()
    rig.revive()
    if any(shape == "wait" for shape in plan.shapes):
        for number in range(len(plan.shapes)):
            rig.signal(f"s{number}")
    assert rig.run() is ProcedureState.DONE
    second = rig.world.effects[len(first) :]
    assert not set(first) & set(second)
    assert all(key.startswith(f"{ID}:1:") for key in second)


def test_a_death_at_each_place_of_a_whole_procedure() -> None:
    """One death at the n-th place where a runner may be killed, for each n; in one that ends well, and in one that is undone."""
    for refused in (None, 4):
        plan = Plan(("undoable", "sleep", "undoable", "wait", "undoable"), (1, 0, 1, 0, 1), refused, 1, signalled=False)

        def signalled(plan: Plan = plan) -> Rig:
            rig = plan.rig()
            rig.signal("s3", '"yes"')
            return rig

        calm = signalled()
        calm.run()
        places = 0
        while True:
            rig, count = signalled(), [0]

            def dies(_place: str, count: list[int] = count, at: int = places) -> bool:
                count[0] += 1
                return count[0] == at + 1

            rig.dies = dies
            assert rig.run() is calm.record.state
            check(rig)
            assert rig.world.done() == calm.world.done()
            if count[0] <= places:
                break
            places += 1
        assert places > 20
