"""The jobs that a worker process has: acquired, and their outcomes not yet safe."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from outlast.jobs._model import Job

    Attempt = tuple[int, int]


class Running:
    """The set of running jobs, which the acquirer fills, the workers empty, and upkeep compares with the table.

    By id *and* attempt: a job that was taken from this process may be acquired here again while the handler of the earlier
    attempt has not ended. Bounded by the acquirer, which takes no more than there are idle workers and room in the journal.

    Called on the event loop's thread only, and no method awaits, so each of them is one step. `acquiring` is for more than
    that: it is held from the statement that acquires jobs until they are in here. Whoever holds it sees in the table none that
    is still on its way.
    """

    def __init__(self) -> None:
        self.acquiring = asyncio.Lock()
        self.acquired = 0
        """How many were taken in, since the start."""
        self._bodies: dict[Attempt, asyncio.Task[Any] | None] = {}
        self._interrupted: dict[Attempt, bool] = {}

    def __len__(self) -> int:
        return len(self._bodies)

    def attempts(self) -> set[Attempt]:
        """Return the id and attempt of each."""
        return set(self._bodies)

    def add(self, job: Job) -> None:
        """Take in a job that was acquired."""
        self._bodies[job.id, job.attempt] = None
        self.acquired += 1

    def remove(self, job: Job) -> None:
        """Let go of a job whose outcome is safe."""
        self._bodies.pop((job.id, job.attempt), None)
        self._interrupted.pop((job.id, job.attempt), None)

    def begin(self, job: Job, body: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start the body of a job as a task, which `interrupt` finds."""
        task = self._bodies[job.id, job.attempt] = asyncio.create_task(body)
        return task

    def interrupt(self, attempt: Attempt, *, requested: bool) -> None:
        """Cancel the body of a job, because somebody asked for it (`requested`) or because the job was taken from us."""
        body = self._bodies.get(attempt)
        if body is not None:
            self._interrupted[attempt] = requested
            body.cancel("cancelled by request" if requested else "the lease of the job was lost")

    def interrupted(self, job: Job) -> bool | None:
        """Return whether the interruption of this job was requested; None if there was none."""
        return self._interrupted.get((job.id, job.attempt))
