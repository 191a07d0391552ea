"""The outcome of an attempt that failed: another attempt, which may or may not count, or the dead letters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, assert_never

from outlast import Backoff, Dependency, Fault, Kind
from outlast.extend import FLOOR_SPREAD, BackoffState, Jitter, Reaction, fault_record, refusal_in
from outlast.jobs._limits import bounded_delay_s
from outlast.jobs._model import JobState, Outcome

if TYPE_CHECKING:
    import random

    from outlast.jobs._model import Job

BACKOFF: Final = Backoff(base_s=1.0, cap_s=3600.0, factor=3.0, jitter=Jitter.EQUAL)
"""Between two attempts at a job: up to 1, 3, 9, 27, 81 s ..., at most an hour."""
PERMANENT_S: Final = 60.0
"""The shortest wait for the next attempt after a fault that needs a person."""
REFUSED_S: Final = 1.0
"""The wait of a job that was refused because a dependency is down: at least this, and up to half of it more."""

ROOM_S: Final = 10.0
"""The wait of a job when the queue's own server has no room, on its disk or for a connection: half of this to one and a half."""
DISK_FULL: Final = "53100"


@dataclass(frozen=True, slots=True)
class Handling:
    """The policies of one kind of job."""

    attempts_max: int = 5
    backoff: Backoff = BACKOFF
    timeout_s: float | None = None
    needs: tuple[Dependency, ...] = ()
    """The dependencies that the handler cannot do without: while one of them is down no job of this kind is acquired."""
    process: bool = False
    """Whether the handler runs in a child process."""


def after_fault(
    job: Job,
    fault: Fault,
    exc: BaseException | None,
    handling: Handling,
    database: str,
    rng: random.Random,
    *,
    held: bool = False,
) -> Outcome:
    """Return the outcome of an attempt that failed.

    `database` is the name of the queue's own dependency; `held`: a refused job is not acquired before its time.

    An attempt does not count when it was not the handler's doing: our own stop, the queue's database that
    went away or has no room, a dependency that refused without trying. REJECTED is dead at once, since nothing would change,
    and so is FATAL: the ground that is gone is the job's, a file or a table of its own, and a person is to look at it. The
    others are tried again with backoff until the attempts are used up.
    """
    refusal = refusal_in(exc)
    if refusal is not None:
        # Spread, since everyone that was refused was told the same time.
        floor_s = max(REFUSED_S, bounded_delay_s(refusal.retry_after_s))
        return give_back(job, 0.0 if held else floor_s * rng.uniform(1.0, 1.0 + FLOOR_SPREAD))
    if fault.source == database and (fault.is_evidence or fault.kind is Kind.OVERLOADED or fault.code == DISK_FULL):
        return give_back(job, 0.0 if fault.is_evidence else ROOM_S * rng.uniform(0.5, 1.5))
    match fault.reaction:
        case Reaction.END:
            return give_back(job, 0.0)
        case Reaction.ANSWER | Reaction.LEAVE:
            return dead(job, fault)
        case Reaction.WAIT | Reaction.WAIT_LONG | Reaction.RESTART:
            return _again(job, fault, handling, rng)
        case _:
            assert_never(fault.reaction)


def give_back(job: Job, delay_s: float) -> Outcome:
    """Return the outcome that puts the job back as if it had not been acquired."""
    return Outcome(job.id, job.attempt, JobState.AVAILABLE.value, delay_s=bounded_delay_s(delay_s), give_back=True)


def dead(job: Job, fault: Fault) -> Outcome:
    """Return the outcome by which the job is given up."""
    return Outcome(job.id, job.attempt, JobState.DEAD.value, fault=fault_record(fault))


def _again(job: Job, fault: Fault, handling: Handling, rng: random.Random) -> Outcome:
    if job.attempt >= job.attempts_max:
        return dead(job, fault)
    state = BackoffState(attempt=job.attempt - 1)
    _, delay_s = handling.backoff.next_always(state, 0.0, rng, fault.floor_s(PERMANENT_S))
    delay_s = bounded_delay_s(delay_s, handling.backoff.floor_s)
    return Outcome(job.id, job.attempt, JobState.AVAILABLE.value, fault=fault_record(fault), delay_s=delay_s)
