"""The steps of a record as people see them."""

from __future__ import annotations

from dataclasses import replace

import pytest

import outlast
from outlast import Kind
from outlast.procedures._procedure import Procedure
from outlast.procedures._recorded import RecordedSteps, recorded_steps
from outlast.procedures._run import RecordedStep
from procedure_rig import Rig, World, dies_at, fault, nothing


def three(world: World) -> Rig:
    procedure = Procedure("three", version=4, attempts_max=2)
    for name in ("a", "b", "c"):
        procedure.step(name=name)(nothing).undo(nothing)
    return Rig(procedure, world)


def test_a_record_that_was_never_begun_has_none() -> None:
    assert recorded_steps(three(World()).record) == RecordedSteps(4)


def test_the_steps_that_are_done_and_the_one_that_was_begun() -> None:
    rig = three(World(meets={"b": [fault()]}))
    rig.run(claims=1)
    steps = (RecordedStep("a", result="a"), RecordedStep("b", done=False))
    assert recorded_steps(rig.record) == RecordedSteps(4, steps, attempts=1)


def test_one_that_is_done_has_no_longer_the_results_of_its_steps() -> None:
    rig = three(World())
    rig.run()
    steps = (RecordedStep("a"), RecordedStep("b"), RecordedStep("c"))
    assert recorded_steps(rig.record) == RecordedSteps(4, steps, has_results=False)
    assert rig.record.result_json == '"c"'


def test_one_that_goes_back() -> None:
    rig = three(World(always={"c": fault(Kind.REJECTED), "b:undo": fault()}))
    rig.run(claims=3)
    steps = (RecordedStep("a", result="a"), RecordedStep("b", result="b"))
    assert recorded_steps(rig.record) == RecordedSteps(4, steps, attempts=3, undoing=True, undone=("c",))


def test_one_whose_runner_died_in_a_step_that_was_not_recorded() -> None:
    rig = three(World())
    rig.dies = dies_at(["after a"])
    rig.run(claims=1)
    rig.procedure = Procedure("three")
    rig.procedure.step(name="x")(nothing)
    assert recorded_steps(rig.record) == RecordedSteps(4)


def test_one_that_cannot_be_read_says_so() -> None:
    with pytest.raises(outlast.OutlastError, match="cannot be read"):
        recorded_steps(replace(three(World()).record, body_json="{"))
