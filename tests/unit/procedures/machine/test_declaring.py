"""The declaration of procedures: what is refused, and what it says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

import outlast
from outlast.procedures import InvalidProcedureError
from outlast.procedures._names import check_name
from outlast.procedures._procedure import STEPS_MAX, Procedure, SleepStep, WaitStep
from outlast.procedures._run import Results, Run
from outlast.testing import run_virtual
from procedure_rig import nothing

if TYPE_CHECKING:
    from collections.abc import Callable


def fresh(**options: Any) -> Procedure:
    return Procedure("create-table", **options)


def with_step(**options: Any) -> Procedure:
    procedure = fresh()
    procedure.step(**options)(nothing)
    return procedure


def wait(name: str = "x", **options: Any) -> None:
    fresh().wait(name, **{"timeout_s": None, **options})


def wait_named(procedure: Procedure) -> None:
    procedure.wait("allocate", timeout_s=1.0)


async def allocate(run: Run) -> Any:
    return {"key": run.key}


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: Procedure(""), "the name of a procedure must be a text that is not empty, not ''"),
    (lambda: Procedure(7), "must be a text that is not empty, not 7"),  # type: ignore[arg-type]
    (lambda: Procedure("x" * 101), "has 101 characters, the limit is 100"),
    (lambda: Procedure("a\nb"), "holds a control character"),
    (lambda: Procedure("a\ud800"), "half a surrogate pair"),
    (lambda: fresh(version=0), "version of procedure 'create-table' must be a whole number from 1 to 2147483647, not 0"),
    (lambda: fresh(version=True), "version of procedure 'create-table' must be a whole number"),
    (lambda: fresh(version="2"), "version of procedure 'create-table' must be a whole number"),
    (lambda: fresh(attempts_max=0), "attempts_max of procedure 'create-table' must be a whole number from 1 to 1000, not 0"),
    (lambda: fresh(attempts_max=1_001), "not 1001"),
    (lambda: fresh(timeout_s=0), "timeout_s of procedure 'create-table' must be above 0 seconds"),
    (lambda: fresh(timeout_s=math.nan), "not nan"),
    (lambda: fresh(timeout_s=math.inf), "not inf"),
    (lambda: fresh(backoff=1.0), "backoff of procedure 'create-table' must be an outlast.Backoff, not 1.0"),
    (lambda: fresh(needs=["db"]), "needs must be an outlast.Dependency, not 'db'"),
    (lambda: with_step(name="a:b"), "'a:b' holds a colon"),
    (lambda: with_step(name="x" * 101), "has 101 characters"),
    (lambda: with_step(attempts_max=0), "attempts_max of step 'nothing' of procedure 'create-table' must be"),
    (lambda: with_step(timeout_s=-1), "timeout_s of step 'nothing' of procedure 'create-table' must be above 0"),
    (lambda: fresh().step(len), "step 'len' of procedure 'create-table' must be an `async def`"),  # type: ignore[arg-type]
    (lambda: fresh().step(lambda run: run), "asyncio.to_thread"),  # type: ignore[arg-type, return-value]
    (lambda: fresh().sleep("", 1.0), "the name of a sleep"),
    (lambda: fresh().sleep("x", 0.0), "seconds of sleep 'x' of procedure 'create-table' must be above 0"),
    (lambda: fresh().sleep("x", 1e12), "at most 3.15576e"),
    (lambda: wait("a:b"), "holds a colon"),
    (lambda: wait(timeout_s=0.0), "timeout_s of wait 'x' of procedure 'create-table' must be above 0"),
    (lambda: wait(default={1}), "the default of wait 'x' of procedure 'create-table' must be JSON"),
    (lambda: wait(default="x" * 70_000), "must be JSON of at most 65536 bytes"),
    (lambda: fresh().step(nothing).undo(print), "the undo of step 'nothing' must be an `async def`"),  # type: ignore[type-var]
    (lambda: fresh().step(nothing).undo(attempts_max=0)(nothing), "attempts_max of the undo of step 'nothing' must be"),
    (lambda: fresh().step(nothing).undo(timeout_s=0)(nothing), "timeout_s of the undo of step 'nothing' must be above 0"),
    (lambda: fresh(version=2).migrate(from_version=0), "from_version of a migration"),
    (lambda: fresh().seal(), "procedure 'create-table' has no steps"),
]


@pytest.mark.parametrize(("declare", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_what_cannot_be_is_refused_where_it_is_declared(declare: Callable[[], object], says: str) -> None:
    with pytest.raises(InvalidProcedureError) as caught:
        declare()
    assert says in str(caught.value)


@pytest.mark.parametrize("again", [lambda p: p.step(allocate), lambda p: p.sleep("allocate", 1.0), wait_named])
def test_two_steps_of_one_name_are_refused(again: Callable[[Procedure], object]) -> None:
    procedure = fresh()
    procedure.step(allocate)
    with pytest.raises(InvalidProcedureError, match="two steps named 'allocate'"):
        again(procedure)


def test_a_second_undo_of_a_step_is_refused() -> None:
    step = fresh().step(allocate)
    step.undo(nothing)
    with pytest.raises(InvalidProcedureError, match="the undo of step 'allocate' is declared twice"):
        step.undo(nothing)


def test_more_steps_than_the_limit_are_refused() -> None:
    procedure = fresh()
    for number in range(STEPS_MAX):
        procedure.sleep(f"{number}", 1.0)
    with pytest.raises(InvalidProcedureError, match="has 100 steps already, the limit: 'more' is one more"):
        procedure.sleep("more", 1.0)


def test_nothing_is_declared_after_it_came_into_use() -> None:
    procedure = fresh(version=2)
    step = procedure.step(allocate)
    procedure.seal()
    procedure.seal()
    for declare in (
        lambda: procedure.sleep("x", 1.0),
        lambda: step.undo(nothing),
        lambda: procedure.migrate(from_version=1)(lambda steps: steps),
    ):
        with pytest.raises(InvalidProcedureError, match="declared after the procedure came into use"):
            declare()


def test_steps_are_kept_in_the_order_of_their_declaration() -> None:
    needed = outlast.Dependency("db")
    procedure = Procedure("p", attempts_max=3, timeout_s=9.0, needs=needed)
    first = procedure.step(allocate)
    second = procedure.step(name="named", attempts_max=7, timeout_s=1.0)(allocate)
    procedure.sleep("pause", 30)
    procedure.wait("approved", timeout_s=None, default=None)
    assert procedure.steps == (first, second, SleepStep("pause", 30.0), WaitStep("approved", None, "null"))
    assert (first.name, first.attempts_max, first.timeout_s) == ("allocate", 3, 9.0)
    assert (second.name, second.attempts_max, second.timeout_s) == ("named", 7, 1.0)
    assert procedure.needs == (needed,)
    assert repr(procedure) == "Procedure('p', version=1, steps=['allocate', 'named', 'pause', 'approved'])"
    assert repr(first) == "Step('allocate')"


def test_a_step_may_be_called_as_its_function() -> None:
    step = fresh().step(allocate)
    said: list[str] = []
    run = Run("1", "create-table", "cpu", None, "allocate", 1, "1:0:allocate", 1, on_say=said.append)
    run.say("half")
    assert said == ["half"]
    assert run_virtual(lambda: _call(step, run)) == {"key": "cpu"}


async def _call(step: Any, run: Run) -> Any:
    return await step(run)


def test_progress_of_a_run_that_nobody_listens_to_goes_nowhere() -> None:
    Run("1", "create-table", "cpu", None, "allocate", 1, "1:0:allocate", 1).say("half")


def test_results_are_read_each_time_so_that_no_change_is_kept() -> None:
    results = Results({"a": '{"n": [1]}', "b": "null"})
    results["a"]["n"].append(2)
    assert results == {"a": {"n": [1]}, "b": None}
    assert list(results) == ["a", "b"]
    assert len(results) == 2
    assert repr(results) == "Results(a, b)"
    with pytest.raises(KeyError):
        results["c"]


def test_a_name_that_cannot_be_shown_is_refused_all_the_same() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(InvalidProcedureError, match="not a Broken that cannot be shown"):
        check_name("a key", Broken(), 512)


def test_a_name_may_be_as_long_as_the_limit_and_in_any_language() -> None:
    for name in ("x" * 512, "höhe/世界 1", "a b"):
        assert check_name("a key", name, 512) == name
