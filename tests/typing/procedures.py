"""Procedures as a service declares, submits and looks at them. Nothing here is run: mypy and basedpyright read it."""

from __future__ import annotations

from typing import Any, assert_type

import outlast
from outlast.postgres import Postgres
from outlast.procedures import (
    Counts,
    Explanation,
    InvalidProcedureError,
    Pause,
    Priority,
    Procedure,
    ProcedureCancelledError,
    ProcedureError,
    ProcedureExpiredError,
    ProcedureFailedError,
    ProcedureGoneError,
    ProcedureHandle,
    ProcedureRecord,
    ProcedureRefused,
    Procedures,
    ProcedureState,
    RecordedStep,
    RecordedSteps,
    Run,
    Signal,
    SignalsFullError,
    Step,
    StepOutcome,
    WaitTimeoutError,
    recorded_steps,
)

db = Postgres("postgresql://localhost/shop")
service = outlast.Service("shop")

# Declared: steps of any awaitable result, undos that keep their type.

create = Procedure("create-table", version=2, attempts_max=3, backoff=outlast.Backoff(), timeout_s=30.0, needs=db)
other = Procedure("other", needs=(db,))


@create.step
async def allocate(run: Run) -> dict[str, int]:
    assert_type(run.key, str)
    assert_type(run.attempt, int)
    assert_type(run.token, int)
    assert_type(run.idempotency_key, str)
    run.say(f"{run.id} {run.kind} {run.step}")
    return {"payload": run.payload, "before": run.results["before"]}


@allocate.undo
async def release(run: Run, outcome: StepOutcome) -> None:
    assert_type(outcome.known, bool)
    assert_type(outcome.result, Any)


@create.step(name="make it", attempts_max=10, timeout_s=5.0)
async def make(run: Run) -> None: ...


@make.undo(attempts_max=3, timeout_s=1.0)
async def drop(run: Run, outcome: StepOutcome) -> None: ...


assert_type(allocate, Step)
assert_type(make, Step)
create.sleep("cool-down", 30)
create.wait("approved", timeout_s=3600.0)
create.wait("noticed", timeout_s=None, default={"by": "nobody"})


@create.migrate(from_version=1)
def renamed(steps: list[RecordedStep]) -> list[RecordedStep]:
    return [RecordedStep("make it", step.done, step.result) if step.name == "make" else step for step in steps]


async def call_as_before(run: Run, outcome: StepOutcome) -> None:
    await allocate(run)
    assert_type(await release(run, outcome), None)
    assert_type(renamed([]), list[RecordedStep])


# Run, submitted, waited for.

procedures = Procedures(db, [create, other], slots=64, journal_path="journal", lease_s=10.0, admission=outlast.Admission("shop"))
procedures.attach(service)


async def submit() -> Any:
    try:
        handle = await procedures.submit(
            "create-table", "cpu", {"columns": [1]}, deadline_s=10, priority=Priority.HIGH, locks=("db",), tenant="a"
        )
        assert_type(handle, ProcedureHandle)
        assert_type(await handle.get(), ProcedureRecord | None)
        assert_type(await handle.cancel(), ProcedureState | None)
        return await handle.wait(timeout_s=10)
    except ProcedureRefused as refused:
        assert_type(refused.fault, outlast.Fault)
        assert_type(refused.since_s, float)
        assert_type(refused.retry_after_s, float)
        assert_type(refused.why, str)
        assert_type(refused.handle, ProcedureHandle)
        raise outlast.OutlastError from refused
    except ProcedureFailedError as failed:
        assert_type(failed.fault, outlast.Fault)
    except (ProcedureCancelledError, ProcedureExpiredError, ProcedureGoneError) as ended:
        an_error: ProcedureError = ended
        assert_type(an_error.handle, ProcedureHandle)
    except WaitTimeoutError as late:
        assert_type(late.handle, ProcedureHandle)
    except (InvalidProcedureError, SignalsFullError, outlast.Unavailable):
        raise


async def look() -> None:
    record = await procedures.get("id")
    if record is not None:
        assert_type(record.state, ProcedureState)
        assert_type(record.signals, tuple[Signal, ...])
        assert_type(recorded_steps(record), RecordedSteps)
        assert_type(recorded_steps(record).steps, tuple[RecordedStep, ...])
    assert_type(await procedures.list(states=(ProcedureState.DEAD,), kind="create-table"), list[ProcedureRecord])
    assert_type(await procedures.explain("create-table", "cpu"), Explanation)
    assert_type(await procedures.counts(), Counts)
    assert_type(await procedures.signal("id", "approved", {"by": "ada"}), ProcedureState | None)
    assert_type(await procedures.clear("create-table"), int)
    assert_type(await procedures.fixed("shop", outlast.Kind.PERMANENT, "42P01"), int)
    await procedures.pause("create-table")
    assert_type(await procedures.resume("create-table"), bool)
    assert_type(await procedures.pauses(), list[Pause])


async def without_a_service() -> None:
    async with Procedures(db, make=False) as found:
        assert_type(found, Procedures)
