"""A process whose children are runners of procedures, which kill themselves where they are told to.

It imports once and forks for each runner. Commands come as lines of JSON on standard input, answers go to standard output:

    {"start": {"store": "sqlite:work.db", "log": ..., "journal": ..., "kinds": {"a": "done"}, "until": [...],
               "die_at": 3, "every": false}}
                                                        -> {"pid": 7}
    {"submit": {"store": ..., "kinds": {"a": "done"}}}  -> {"ids": {"a": ...}}
    {"join": {}}                                        -> {"codes": {"7": -9}}
    {"look": {"store": ..., "ids": [...]}}              -> {"records": [...]}

A log that no runner reads tells what really happened, in order: each entry is one append to one file.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Any

import outlast
from outlast.procedures import Procedure, Procedures, Run, StepOutcome

if TYPE_CHECKING:
    from collections.abc import Callable

LEASE_S = 2.0
SLEEP_S = 0.2
BACKOFF = outlast.Backoff(base_s=0.01, cap_s=0.05)
FINAL = {"done", "dead", "cancelled", "expired"}


def database(store: str) -> outlast.Dependency:
    """The dependency of a store: `sqlite:` and a path, `postgres:` and a DSN, `etcd:` and a URL with a prefix."""
    kind, _, place = store.partition(":")
    if kind == "postgres":
        from outlast.postgres import Postgres

        return Postgres(place, connections_max=3)
    if kind == "etcd":
        from outlast.etcd import Etcd

        url, _, prefix = place.rpartition("/")
        return Etcd(url, prefix=f"{prefix}/")
    from outlast.sqlite import Sqlite

    return Sqlite(place)


class Life:
    """The life of one runner: it writes down what it does, and kills itself at its n-th chance."""

    def __init__(self, log: str, die_at: int | None) -> None:
        self.file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.die_at = die_at
        self.chances = 0

    def note(self, what: str, run: Run | None = None, **more: Any) -> None:
        entry = {"what": what, "pid": os.getpid(), **more}
        if run is not None:
            entry |= {"of": f"{run.kind}/{run.key}", "step": run.step, "effect": run.idempotency_key, "token": run.token}
        os.write(self.file, json.dumps(entry).encode() + b"\n")

    def chance(self, place: str) -> None:
        self.chances += 1
        if self.chances == self.die_at:
            self.note("die", place=place)
            os.kill(os.getpid(), signal.SIGKILL)


def procedure(kind: str, end: str, life: Life, procedures: Callable[[], Procedures]) -> Procedure:
    """Three steps with undos, a sleep, and two waits; the last step succeeds, or is REJECTED."""
    made = Procedure(kind, attempts_max=20, backoff=BACKOFF)

    async def worked(run: Run, result: Any) -> Any:
        life.note("begin", run)
        await had_its_effect(run)
        life.chance(f"after {run.step}")
        return result

    async def undone(run: Run, outcome: StepOutcome) -> None:
        life.note("begin undo", run, known=outcome.known)
        await had_its_effect(run)
        life.chance(f"after the undo of {run.step}")

    async def had_its_effect(run: Run) -> None:
        try:
            await asyncio.sleep(0.002)
        finally:
            # On a busy machine a runner may be late with its heartbeat: it loses what it has, and its steps are cancelled.
            life.note("end", run)

    @made.step
    async def one(run: Run) -> int:
        return int(await worked(run, run.payload["n"]))

    made.sleep("pause", SLEEP_S)

    @made.step
    async def two(run: Run) -> int:
        # Begun again it sends a second one, of which nobody takes notice.
        await procedures().signal(run.id, "go", "went")
        return int(await worked(run, run.results["one"] + 1))

    made.wait("go", timeout_s=60.0)
    made.wait("late", timeout_s=SLEEP_S, default="nobody came")

    @made.step
    async def three(run: Run) -> Any:
        await worked(run, None)
        if end == "dead":
            fault = outlast.Fault(outlast.Kind.REJECTED, "bad", "this cannot be", scope=outlast.Scope.CALL)
            raise outlast.OutlastError("this cannot be", fault)
        return [run.results["one"], run.results["two"], run.results["go"], run.results["late"]]

    for step in (one, two, three):
        step.undo(undone)
    return made


async def run(job: dict[str, Any], life: Life) -> None:
    """Run procedures until the records have ended, or this is dead."""
    system: Procedures | None = None

    def itself() -> Procedures:
        assert system is not None
        return system

    kinds = [procedure(kind, end, life, itself) for kind, end in job["kinds"].items()]
    system = Procedures(database(job["store"]), kinds, journal_path=job["journal"], lease_s=LEASE_S, poll_s=0.1)
    record = system.store.record

    async def recorded(writes: Any) -> Any:
        if job.get("every"):
            life.chance(f"before a write of {[write.state for write in writes]}")
        answer = await record(writes)
        life.chance(f"after a write of {[write.state for write in writes]}")
        return answer

    system.store.record = recorded  # type: ignore[method-assign]
    service, stop = outlast.Service("runner", deadline_s=5.0), outlast.Stop()
    system.attach(service)
    running = asyncio.create_task(service.run(stop))
    try:
        while not running.done() and not await all_ended(system, job["until"]):
            await asyncio.sleep(0.05)
    finally:
        stop.fire("all have ended")
        await running


async def all_ended(system: Procedures, ids: list[str]) -> bool:
    try:
        return all(record is not None and record.state.value in FINAL for record in await system.store.find(ids))
    except outlast.Unavailable:
        # Its service has not opened it yet.
        return False


async def submit(job: dict[str, Any]) -> dict[str, str]:
    life = Life(os.devnull, None)
    kinds = [procedure(kind, end, life, lambda: system) for kind, end in job["kinds"].items()]
    async with Procedures(database(job["store"]), kinds) as system:
        return {kind: (await system.submit(kind, "key", {"n": 7})).id for kind in job["kinds"]}


async def look(job: dict[str, Any]) -> list[dict[str, Any] | None]:
    async with Procedures(database(job["store"])) as system:
        found = [await system.get(record_id) for record_id in job["ids"]]
        return [
            record
            and {
                "state": record.state.value,
                "result": record.result_json and json.loads(record.result_json),
                "fault": record.last_fault and record.last_fault["code"],
                "signals": len(record.signals),
            }
            for record in found
        ]


def start(job: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        # What it prints is no answer.
        os.dup2(2, 1)
        asyncio.run(run(job, Life(job["log"], job.get("die_at"))))
        code = 0
    except BaseException:  # noqa: BLE001 - it must not come back to the loop of its parent
        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> None:
    children: list[int] = []
    for line in sys.stdin:
        ((what, job),) = json.loads(line).items()
        answer: dict[str, Any]
        if what == "start":
            children.append(start(job))
            answer = {"pid": children[-1]}
        elif what == "submit":
            answer = {"ids": asyncio.run(submit(job))}
        elif what == "look":
            answer = {"records": asyncio.run(look(job))}
        else:
            codes = {pid: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children}
            children.clear()
            answer = {"codes": codes}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
