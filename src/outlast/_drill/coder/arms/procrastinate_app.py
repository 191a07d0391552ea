"""The procrastinate app of its arm, in a module of its own as its documentation asks for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import procrastinate

from outlast._drill.lab.arm.service import ArmSettings, Slots

if TYPE_CHECKING:
    from outlast._drill.lab.worklog import WorkLog

TASK_NAME = "drill_job"
QUEUE_NAME = "drill"


def build_app(settings: ArmSettings, work_log: WorkLog) -> procrastinate.App:
    """Return the app with its one task.

    A worker has one fetching loop and as many jobs at once as its concurrency says, so a job's loop number is the slot
    longest unused.
    """
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=settings.dsn))
    slots = Slots(settings.loops)

    @app.task(queue=QUEUE_NAME, name=TASK_NAME)
    async def drill_job(job: int) -> None:
        slot = slots.take()
        try:
            work_log.start(slot, job)
            await asyncio.sleep(settings.work_s)
            work_log.end(slot, job)
        finally:
            slots.give_back(slot)

    return app
