"""A job queue in PostgreSQL that outlasts the outages of its database. See `Jobs`."""

from __future__ import annotations

from outlast.jobs._decide import Handling
from outlast.jobs._model import (
    EnqueueResult,
    InvalidJobError,
    Job,
    JobRecord,
    JobState,
    NewJob,
    OutcomeUnknownError,
    PayloadTooLargeError,
)
from outlast.jobs._queue import Jobs

__all__ = [
    "EnqueueResult",
    "Handling",
    "InvalidJobError",
    "Job",
    "JobRecord",
    "JobState",
    "Jobs",
    "NewJob",
    "OutcomeUnknownError",
    "PayloadTooLargeError",
]
