"""A handler of a queue that has a rule of its own for what it raises."""

from __future__ import annotations

import process_handlers

import outlast
from outlast.jobs import Job, Jobs
from outlast.postgres import Postgres


def rule(exc: BaseException, phase: str) -> outlast.Fault | None:
    """Know that an order may not be there."""
    return outlast.Fault(outlast.Kind.REJECTED, "no order", str(exc)) if isinstance(exc, LookupError) else None


jobs = Jobs(Postgres("dbname=nowhere"), classifiers=outlast.Classifiers([rule]))


@jobs.handler("shop", process=True)
def shop(job: Job) -> None:
    """Fail as the payload says."""
    process_handlers.fail(job)
