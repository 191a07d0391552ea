"""Uses that a type checker must refuse: an `ignore` that it does not need is an error of its own. Nothing here is run."""
# pyright: reportUnnecessaryTypeIgnoreComment=error

from __future__ import annotations

import outlast
from outlast.changes import Changes, DeliveryPolicy
from outlast.extend import Figure, SystemHealth
from outlast.jobs import Job, Jobs
from outlast.postgres import Postgres
from outlast.procedures import Procedure

db = Postgres("postgresql://localhost/shop")
peer = outlast.Dependency("peer")
service = outlast.Service("shop")
jobs = Jobs(db)
procedure = Procedure("create-table")


@service.loop()  # type: ignore[type-var]
def a_loop_awaits(stop: outlast.Stop) -> None: ...


@service.loop()  # type: ignore[type-var]
async def a_loop_is_given_its_stop() -> None: ...


@service.loop(needs="peer")  # type: ignore[arg-type]
async def a_need_is_a_dependency(stop: outlast.Stop) -> None: ...


@jobs.handler("pay")  # type: ignore[type-var]
async def a_handler_is_given_its_job() -> None: ...


@procedure.step  # type: ignore[arg-type]
async def a_step_is_given_its_run() -> None: ...


@procedure.step  # type: ignore[arg-type]
def a_step_is_awaited(run: object) -> int:
    return len(str(run))


@peer.guard
def guarded(number: int) -> str:
    return str(number)


guarded("1")  # type: ignore[arg-type]


@outlast.retry()
async def retried(number: int) -> str:
    return str(number)


async def arguments_of_what_is_retried() -> None:
    await retried()  # type: ignore[call-arg]


class NoSink:
    async def open(self, stream: str, epoch: int) -> int:
        return len(stream) * epoch


Changes(db, "shop", sink=NoSink())  # type: ignore[arg-type]
Changes(peer, "shop")  # type: ignore[arg-type]
DeliveryPolicy(poison="ignore")  # type: ignore[arg-type]
outlast.Fault("TRANSIENT", "x", "y")  # type: ignore[arg-type]
outlast.Service("shop", 10.0)  # type: ignore[call-arg]
outlast.Stop().requested = True  # type: ignore[misc]


class Half:
    """It has no acts."""

    system, name = "half", "half"

    def figures(self) -> list[Figure]:
        return [Figure.gauge("x", "X.", "1")]  # type: ignore[arg-type]

    def health(self) -> SystemHealth:
        return SystemHealth(state="well")  # type: ignore[call-arg]

    def lag(self) -> None: ...


service.show(Half())  # type: ignore[arg-type]


@service.on_stop  # type: ignore[type-var]
async def a_hook_takes_nothing(stop: outlast.Stop) -> None: ...


async def a_gate_is_entered_by_a_name(job: Job) -> None:
    async with service.gate.enter(job):  # type: ignore[arg-type]
        pass


admission = outlast.Admission("orders")


@admission.admitted()  # type: ignore[arg-type]
def a_plain_function_cannot_be_admitted() -> int:
    return 1


@admission.admitted(deadline_s="1 s")  # type: ignore[arg-type]
async def a_deadline_is_a_number_of_seconds() -> None: ...
