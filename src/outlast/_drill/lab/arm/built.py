"""The run of an arm that is built on Outlast."""

from __future__ import annotations

from typing import TYPE_CHECKING

import outlast
from outlast._drill.lab.arm.service import ArmSettings
from outlast._drill.lab.worklog import WorkLog

if TYPE_CHECKING:
    from collections.abc import Callable


def run_built(build: Callable[[ArmSettings, WorkLog], outlast.Service]) -> int:
    """Run the service until SIGTERM; return its exit code."""
    settings = ArmSettings.from_environment()
    with WorkLog(settings.work_log, "outlast") as work_log:
        return outlast.run(build(settings, work_log))
