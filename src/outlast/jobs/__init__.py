"""A job queue in PostgreSQL that outlasts the outages of its database. See `Jobs`."""

from __future__ import annotations

from outlast.jobs.decide import Handling
from outlast.jobs.model import (
    EnqueueResult,
    InvalidJobError,
    Job,
    JobRecord,
    JobState,
    NewJob,
    OutcomeUnknownError,
    PayloadTooLargeError,
)
from outlast.jobs.queue import Jobs

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
