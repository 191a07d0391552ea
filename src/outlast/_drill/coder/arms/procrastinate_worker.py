"""The arm *procrastinate*: a worker as its documentation starts one, with its default settings.

Its own log is set to WARNING: at INFO every job writes two lines, which is not what the drill compares.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from outlast._drill.coder.arms.procrastinate_app import QUEUE_NAME, build_app
from outlast._drill.lab.arm.service import ArmSettings
from outlast._drill.lab.worklog import WorkLog


async def main() -> None:
    """Run the worker until SIGTERM, which it handles itself."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = ArmSettings.from_environment()
    with WorkLog(settings.work_log, "procrastinate") as work_log:
        app = build_app(settings, work_log)
        async with app.open_async():
            await app.run_worker_async(queues=[QUEUE_NAME], concurrency=settings.loops)


if __name__ == "__main__":
    asyncio.run(main())
