"""A job, the states it goes through, and the outcome of one attempt at it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from outlast import OutlastError

if TYPE_CHECKING:
    from datetime import datetime


class JobState(enum.Enum):
    """The state of a job. It is kept in PostgreSQL and outlives every process."""

    AVAILABLE = "available"
    """It waits for `run_at` and for a worker. Set by enqueue, retry, release and rescue."""
    RUNNING = "running"
    """A worker has it. Set by acquire."""
    DONE = "done"
    """Its result is recorded. Set by the recorder."""
    DEAD = "dead"
    """Given up, with first and last fault: the dead letters. Set by the recorder, and by rescue."""
    CANCELLED = "cancelled"
    """Set by `cancel`, and by the recorder for a job that ran."""
    EXPIRED = "expired"
    """Its deadline could not be met any more. Set by upkeep; such a job never ran, or ran before in vain."""


FINAL: Final = (JobState.DONE, JobState.DEAD, JobState.CANCELLED, JobState.EXPIRED)
TRANSITIONS: Final[dict[JobState, frozenset[JobState]]] = {
    JobState.AVAILABLE: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.EXPIRED, JobState.DONE, JobState.DEAD}),
    JobState.RUNNING: frozenset({JobState.AVAILABLE, JobState.DONE, JobState.DEAD, JobState.CANCELLED}),
    JobState.DONE: frozenset(),
    JobState.DEAD: frozenset({JobState.AVAILABLE}),
    JobState.CANCELLED: frozenset({JobState.AVAILABLE}),
    JobState.EXPIRED: frozenset({JobState.AVAILABLE}),
}
"""From a state to those that can follow. AVAILABLE leads to DONE and DEAD too: a job that was rescued from a worker which
then reports after all. The last three lead back by `retry`, which a person asks for."""


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at a job, as its handler receives it."""

    id: int
    kind: str
    payload: Any
    attempt: int
    """1 for the first."""
    attempts_max: int
    queue: str = "default"
    priority: int = 0
    unique_key: str | None = None
    enqueued_at: datetime | None = None
    deadline_at: datetime | None = None
    worker: int = 0
    """The number of the worker loop that runs it, from 0."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as the queue keeps it.

    Other programs may have stored values that Python does not have. A time outside the years 1 to 9999, infinity too, is shown as
    the nearest of them; JSON that cannot be read, as its text.
    """

    id: int
    kind: str
    queue: str
    state: JobState
    payload: Any
    priority: int
    attempt: int
    attempts_max: int
    run_at: datetime
    enqueued_at: datetime
    deadline_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    unique_key: str | None
    result: Any
    first_fault: dict[str, Any] | None
    last_fault: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class EnqueueResult:
    """The job's id, and whether this call made it: False if one with the same unique key is still to be done."""

    id: int
    created: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one attempt. It is written to the journal as it is, so every field is plain.

    The result is text already: made once, when the handler returned it, since the value itself may change afterwards.
    """

    id: int
    attempt: int
    state: str
    """The state that follows: done, dead, cancelled, or available for another attempt."""
    result_json: str | None = None
    fault: dict[str, Any] | None = None
    delay_s: float = 0.0
    """Seconds until the next attempt, for `available`."""
    give_back: bool = False
    """Whether the attempt does not count."""

    @property
    def end(self) -> str:
        """The end of the attempt, for figures: done, dead, cancelled, failed (another one follows), or given_back."""
        if self.give_back:
            return "given_back"
        return "failed" if self.state == JobState.AVAILABLE.value else self.state


class OutcomeUnknownError(OutlastError):
    """The connection broke while a job was being enqueued: it may or may not be there.

    Enqueue again with the same `unique_key`, or with `wait_s`, which finds out.
    """


class PayloadTooLargeError(OutlastError):
    """A payload is larger than the limit."""


class InvalidJobError(OutlastError, ValueError):
    """A job, or a setting of the queue, is out of its limits: what, the value seen, the limit. Nothing was enqueued."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be enqueued; see `Jobs.enqueue` for the fields."""

    kind: str
    payload: Any = None
    queue: str = "default"
    priority: int = 0
    run_at: datetime | None = None
    delay_s: float | None = None
    unique_key: str | None = None
    deadline_at: datetime | None = None
    deadline_s: float | None = None
    attempts_max: int | None = None
    token: str = field(default="", repr=False)
