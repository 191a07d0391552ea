"""What follows from a fault of a handler: another attempt, for nothing or not, or the dead letters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, assert_never

from outlast import Backoff, BackoffState, Fault, Jitter, Kind, Unavailable
from outlast.jobs.model import JobState, Outcome, fault_record

if TYPE_CHECKING:
    import random

    from outlast.jobs.model import Job

BACKOFF: Final = Backoff(base_s=1.0, cap_s=3600.0, factor=3.0, jitter=Jitter.EQUAL)
"""Between two attempts at a job: up to 1, 3, 9, 27, 81 s ..., at most an hour."""
PERMANENT_S: Final = 60.0
"""A fault that needs a person: no attempt sooner than this."""
REFUSED_S: Final = 1.0
"""A handler that was refused because a dependency is down: back in line, no sooner than this."""

ROOM_S: Final = 10.0
"""The queue's own server has no room, a full disk or no free connection: back in line, after half of this to one and a half."""
DISK_FULL: Final = "53100"


@dataclass(frozen=True, slots=True)
class Handling:
    """The policies of one kind of job."""

    attempts_max: int = 5
    backoff: Backoff = BACKOFF
    timeout_s: float | None = None


def after_fault(
    job: Job, fault: Fault, exc: BaseException | None, handling: Handling, database: str, rng: random.Random
) -> Outcome:
    """Decide. `database` is the name of the queue's own dependency.

    An attempt does not count when it was not the handler's doing: our own stop, the queue's database that
    went away or has no room, a dependency that refused without trying. REJECTED is dead at once, since nothing would change; the
    others are tried again with backoff until the attempts are used up.
    """
    if isinstance(exc, Unavailable):
        return give_back(job, max(REFUSED_S, exc.retry_after_s))
    if fault.source == database and (fault.is_evidence or fault.kind is Kind.OVERLOADED or fault.code == DISK_FULL):
        return give_back(job, 0.0 if fault.is_evidence else ROOM_S * rng.uniform(0.5, 1.5))
    match fault.kind:
        case Kind.STOPPING:
            return give_back(job, 0.0)
        case Kind.REJECTED:
            return dead(job, fault)
        case Kind.TRANSIENT | Kind.CONTENDED | Kind.EXHAUSTED | Kind.OVERLOADED | Kind.BUG | Kind.FATAL:
            return _again(job, fault, handling, fault.retry_after_s, rng)
        case Kind.PERMANENT:
            return _again(job, fault, handling, max(PERMANENT_S, fault.retry_after_s or 0.0), rng)
        case _:
            assert_never(fault.kind)


def give_back(job: Job, delay_s: float) -> Outcome:
    """Put the job back as if it had not been taken."""
    return Outcome(job.id, job.attempt, JobState.AVAILABLE.value, delay_s=delay_s, give_back=True)


def dead(job: Job, fault: Fault) -> Outcome:
    """Give the job up."""
    return Outcome(job.id, job.attempt, JobState.DEAD.value, fault=fault_record(fault))


def _again(job: Job, fault: Fault, handling: Handling, floor_s: float | None, rng: random.Random) -> Outcome:
    if job.attempt >= job.attempts_max:
        return dead(job, fault)
    _, wait_s = handling.backoff.next(BackoffState(attempt=job.attempt - 1), 0.0, rng, floor_s)
    delay_s = handling.backoff.cap_s if wait_s is None else wait_s
    return Outcome(job.id, job.attempt, JobState.AVAILABLE.value, fault=fault_record(fault), delay_s=delay_s)
