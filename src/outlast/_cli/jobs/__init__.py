"""`outlast jobs`: look at a job queue, and act on it."""

from __future__ import annotations

from outlast._cli.jobs.commands import jobs

__all__ = ["jobs"]
