"""Code that changed between a crash and the next run: nothing runs by steps that are not those recorded."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from outlast import Kind
from outlast.procedures import InvalidProcedureError
from outlast.procedures._machine.actions import RunStep, RunUndo
from outlast.procedures._machine.body import Body
from outlast.procedures._machine.faults import StepsChangedError
from outlast.procedures._machine.next_action import next_action
from outlast.procedures._model import ProcedureState
from outlast.procedures._procedure import Procedure
from outlast.procedures._run import RecordedStep
from procedure_rig import ID, Rig, World, dies_at, fault, nothing


def of_steps(*names: str, version: int = 1, undos: bool = True) -> Procedure:
    procedure = Procedure("order", version=version, attempts_max=9)
    for name in names:
        if name.startswith("sleep"):
            procedure.sleep(name, 60.0)
            continue
        step = procedure.step(name=name)(nothing)
        if undos:
            step.undo(nothing)
    return procedure


def crashed(*names: str, place: str = "after three", undos: bool = True) -> Rig:
    """The runner died, by default after the second step was recorded and in the third."""
    rig = Rig(of_steps(*names, undos=undos))
    rig.dies = dies_at([place])
    rig.run(claims=1)
    rig.world.effects.clear()
    return rig


CHANGES = {
    "step 2 renamed": ("one", "second", "three"),
    "steps 2 and 3 swapped": ("one", "three", "two"),
    "a new step before 2": ("one", "new", "two", "three"),
    "a new step before 1": ("new", "one", "two", "three"),
    "step 1 gone": ("two", "three"),
    "steps 2 and 3 gone": ("one",),
    "the step that was begun renamed": ("one", "two", "third"),
    "a new step before the one that was begun": ("one", "two", "new", "three"),
    "the step that was begun gone": ("one", "two"),
}


@pytest.mark.parametrize("names", CHANGES.values(), ids=CHANGES)
def test_no_step_runs_if_the_code_has_other_steps_and_all_goes_on_when_the_old_code_is_back(names: tuple[str, ...]) -> None:
    rig = crashed("one", "two", "three")
    old = rig.procedure
    rig.procedure = of_steps(*names, version=2)
    rig.run(claims=5)
    assert rig.world.effects == []
    assert rig.record.state is ProcedureState.WAITING
    assert isinstance(rig.refused, StepsChangedError)
    assert (rig.refused.fault.kind, rig.refused.fault.code) == (Kind.PERMANENT, "steps changed")
    rig.procedure = old
    assert rig.run() is ProcedureState.DONE
    assert rig.world.done() == ["three"]
    assert rig.record.result_json == '"three"'


def test_the_fault_says_what_the_steps_are_and_what_to_do() -> None:
    rig = crashed("one", "two", "three")
    rig.procedure = of_steps("one", "second", "three", version=2)
    rig.run(claims=1)
    assert rig.refused is not None
    assert rig.refused.fault.reason == (
        "procedure 'order' of version 2 has the steps one, second, three; recorded by version 1 are: one, two, three (begun)"
    )
    assert "version 1 again" in rig.refused.fault.hint
    assert "@procedure.migrate(from_version=1)" in rig.refused.fault.hint


def test_the_key_is_tried_again_in_its_time_and_not_in_a_loop() -> None:
    rig = crashed("one", "two", "three")
    rig.procedure = of_steps("one", "second", "three")
    began = rig.now
    rig.run(claims=5)
    assert rig.now == began + 4 * 30.0
    assert rig.record.failures == 0


@pytest.mark.parametrize(
    "names",
    [
        ("one", "two", "three", "four"),
        ("one", "two", "three"),
    ],
    ids=["one more at the end", "the same"],
)
def test_a_new_version_with_the_same_first_steps_goes_on(names: tuple[str, ...]) -> None:
    rig = crashed("one", "two", "three")
    rig.procedure = of_steps(*names, version=7)
    assert rig.run() is ProcedureState.DONE
    assert rig.world.done() == list(names[2:])
    assert json.loads(rig.record.body_json)["version"] == 7


def test_steps_that_were_not_begun_may_change() -> None:
    """The runner stopped between two steps: what comes after them was never begun."""
    rig = Rig(of_steps("one", "sleep", "three"))
    rig.run(claims=1)
    rig.procedure = of_steps("one", "sleep", "new", "third", version=2)
    assert rig.run() is ProcedureState.DONE
    assert rig.world.done() == ["one", "new", "third"]


def between(rig: Rig, *, runs: bool) -> str:
    """The body as a runner gives it back whose stop came after step one, before or after step two was called."""
    body = Body.of(rig.procedure, rig.record)
    next_action(body, now=rig.now)
    body.step_done('"one"')
    assert isinstance(next_action(body, now=rig.now), RunStep)
    if runs:
        body.step_failed(fault(Kind.STOPPING), rig.rng)
    else:
        body.not_begun()
    return body.encode()


def test_a_step_that_the_stop_kept_from_beginning_may_change_as_well() -> None:
    rig = Rig(of_steps("one", "two"))
    rig.record = replace(rig.record, body_json=between(rig, runs=False))
    rig.procedure = of_steps("one", "new", "two", version=2)
    assert rig.run() is ProcedureState.DONE
    assert rig.world.done() == ["new", "two"]


def test_one_that_was_begun_before_and_is_not_begun_now_is_still_the_one_that_was_begun() -> None:
    rig = Rig(of_steps("one", "two"))
    rig.record = replace(rig.record, body_json=between(rig, runs=True))
    body = Body.of(rig.procedure, rig.record)
    next_action(body, now=rig.now)
    body.not_begun()
    rig.record = replace(rig.record, body_json=body.encode())
    rig.procedure = of_steps("one", "new", "two", version=2)
    rig.run(claims=1)
    assert isinstance(rig.refused, StepsChangedError)


def test_a_stop_before_an_undo_leaves_the_step_whose_outcome_is_unknown_to_be_undone() -> None:
    rig = Rig(of_steps("one", "two"))
    body = Body.of(rig.procedure, rig.record)
    next_action(body, now=rig.now)
    body.step_failed(fault(Kind.REJECTED), rig.rng)
    assert isinstance(next_action(body, now=rig.now), RunUndo)
    body.not_begun()
    rig.record = replace(rig.record, body_json=body.encode())
    assert rig.run() is ProcedureState.DEAD
    assert rig.world.done() == ["one:undo"]


def test_the_deaths_of_runners_are_counted_through_a_change_of_the_code() -> None:
    rig = Rig(of_steps("one", "sleep", "three"))
    old = rig.procedure
    rig.run(claims=1)
    rig.dies = dies_at(["claimed", "claimed"])
    rig.claim()
    rig.claim()
    rig.procedure = of_steps("one", "other", "three")
    rig.claim()
    assert rig.record.deaths == 0
    rig.procedure = old
    assert json.loads(rig.record.body_json)["at"]["attempts"] == 2


def test_an_undo_goes_on_with_the_old_code_alone() -> None:
    rig = Rig(of_steps("one", "two", "three"), World(always={"three": fault(Kind.REJECTED)}))
    rig.dies = dies_at(["after three:undo"])
    rig.run(claims=1)
    old = rig.procedure
    rig.procedure = of_steps("one", "second", "three")
    rig.run(claims=2)
    assert isinstance(rig.refused, StepsChangedError)
    rig.procedure = old
    assert rig.run() is ProcedureState.DEAD
    assert rig.world.done() == ["one", "two", "three", "three:undo", "two:undo", "one:undo"]


def test_a_runner_that_died_in_a_step_of_which_nothing_is_recorded_leaves_it_to_the_step_that_is_next() -> None:
    rig = Rig(of_steps("one", "two"))
    rig.dies = dies_at(["after one"])
    rig.run(claims=1)
    body = Body.of(of_steps("uno", "two", version=2), replace(rig.record, deaths=1))
    action = next_action(body, now=rig.now)
    assert isinstance(action, RunStep)
    assert (action.step.name, action.attempt) == ("uno", 2)


def test_deaths_after_the_last_step_begin_nothing() -> None:
    """The code has fewer steps now, and all of them are done."""
    rig = Rig(of_steps("one", "two", "three"))
    rig.world.meets["three"] = [fault(Kind.STOPPING)]
    body = Body.of(rig.procedure, rig.record)
    for name in ("one", "two"):
        next_action(body, now=rig.now)
        body.step_done(f'"{name}"')
    shorter = Body.of(of_steps("one", "two", version=2), replace(rig.record, body_json=body.encode(), deaths=1))
    assert shorter.next_step() is None


class Migrating:
    """A procedure whose second step was split in version 2, and whose first was renamed in version 3."""

    def __init__(self, version: int = 3) -> None:
        self.given: list[tuple[int, list[RecordedStep]]] = []
        names = ("uno", "two-a", "two-b", "three") if version == 3 else ("one", "two-a", "two-b", "three")
        self.procedure = of_steps(*names, version=version)
        self.procedure.migrate(from_version=1)(self.to_2)
        if version == 3:
            self.procedure.migrate(from_version=2)(self.to_3)

    def to_2(self, steps: list[RecordedStep]) -> list[RecordedStep]:
        self.given.append((1, steps))
        mapped: list[RecordedStep] = []
        for step in steps:
            if step.name == "two" and step.done:
                mapped += [replace(step, name="two-a"), RecordedStep("two-b", result="made up")]
            else:
                mapped.append(replace(step, name="two-a") if step.name == "two" else step)
        return mapped

    def to_3(self, steps: list[RecordedStep]) -> list[RecordedStep]:
        self.given.append((2, steps))
        return [replace(step, name="uno") if step.name == "one" else step for step in steps]


def test_migrations_map_the_recorded_steps_from_version_to_version() -> None:
    rig = crashed("one", "two", "three")
    migrating = Migrating()
    rig.procedure = migrating.procedure
    rig.record = replace(rig.record, state=ProcedureState.WAITING, deaths=1)
    body = Body.of(rig.procedure, rig.record)
    assert [version for version, _ in migrating.given] == [1, 2]
    assert migrating.given[0][1] == [
        RecordedStep("one", result="one"),
        RecordedStep("two", result="two"),
        RecordedStep("three", done=False),
    ]
    assert body.texts == {"uno": '"one"', "two-a": '"two"', "two-b": '"made up"'}
    action = next_action(body, now=rig.now)
    assert isinstance(action, RunStep)
    assert (action.step.name, action.attempt) == ("three", 2)
    assert rig.run() is ProcedureState.DONE


def test_a_body_of_the_version_between_takes_the_later_migration_alone() -> None:
    rig = Rig(Migrating(version=2).procedure)
    rig.dies = dies_at(["after three"])
    rig.run(claims=1)
    migrating = Migrating()
    Body.of(migrating.procedure, rig.record)
    assert [version for version, _ in migrating.given] == [2]


def test_what_was_migrated_is_recorded_and_not_migrated_twice() -> None:
    rig = crashed("one", "two", "three")
    migrating = Migrating()
    rig.procedure = migrating.procedure
    rig.world.meets["three"] = [fault(), fault(), fault()]
    assert rig.run() is ProcedureState.DONE
    assert [version for version, _ in migrating.given] == [1, 2]


def test_a_step_that_was_begun_is_mapped_with_its_attempts() -> None:
    rig = crashed("one", "two", place="after two")
    rig.procedure = Migrating().procedure
    assert rig.run(claims=1) is ProcedureState.DONE
    assert rig.world.seen[-3:] == [("two-a", 2), ("two-b", 1), ("three", 1)]


def test_a_migration_may_end_an_undo_in_the_new_steps() -> None:
    rig = Rig(of_steps("one", "two"), World(always={"two": fault(Kind.REJECTED)}))
    rig.dies = dies_at(["before two:undo"])
    rig.run(claims=1)
    body = Body.of(Migrating().procedure, rig.record)
    action = next_action(body, now=rig.now)
    assert isinstance(action, RunUndo)
    assert action.idempotency_key == f"{ID}:0:two-a:undo"


BROKEN = {
    "raises": lambda steps: 1 / 0,
    "no list": lambda steps: None,
    "no steps": lambda steps: ["one"],
    "two that are not done": lambda steps: [replace(step, done=False) for step in steps],
    "a result that is no JSON": lambda steps: [replace(steps[0], result={1, 2})],
    "a result that is too large": lambda steps: [replace(steps[0], result="x" * 70_000)],
}


@pytest.mark.parametrize("migration", BROKEN.values(), ids=BROKEN)
def test_a_migration_that_fails_runs_nothing_and_is_told(migration: object) -> None:
    rig = crashed("one", "two", "three")
    before = rig.record.body_json
    rig.procedure = of_steps("one", "two", "three", version=2)
    rig.procedure.migrate(from_version=1)(migration)  # type: ignore[arg-type]
    rig.run(claims=1)
    assert rig.refused is not None
    assert (rig.refused.fault.kind, rig.refused.fault.code) == (Kind.PERMANENT, "migration failed")
    assert json.loads(rig.record.body_json)["done"] == json.loads(before)["done"]
    assert rig.world.effects == []


def test_a_migration_that_maps_to_other_steps_than_the_code_has_runs_nothing() -> None:
    rig = crashed("one", "two", "three")
    rig.procedure = of_steps("uno", "two", "three", version=2)
    rig.procedure.migrate(from_version=1)(lambda steps: steps)
    rig.run(claims=1)
    assert isinstance(rig.refused, StepsChangedError)
    assert rig.refused.fault.code == "steps changed"


def test_a_migration_is_from_a_version_before_and_declared_once() -> None:
    procedure = of_steps("one", version=3)
    procedure.migrate(from_version=2)(lambda steps: steps)
    with pytest.raises(InvalidProcedureError, match="from version 2 is declared twice"):
        procedure.migrate(from_version=2)(lambda steps: steps)
    with pytest.raises(InvalidProcedureError, match="from version 3 is not from before version 3"):
        procedure.migrate(from_version=3)(lambda steps: steps)
