"""The coder drill: PostgreSQL goes away under many job loops, and comes back."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from outlast._drill.coder import promises as coder_promises
from outlast._drill.coder.faults import FAULTS, ServerFault, may_mount
from outlast._drill.coder.figures import COLUMNS, SERIES, JobsArm, describe
from outlast._drill.coder.run import JobsKind, JobsRun
from outlast._drill.coder.stores import OutlastStore, PlainStore, ProcrastinateStore
from outlast._drill.lab.drills import Drill
from outlast._drill.lab.errors import DrillUsageError
from outlast._drill.lab.options import DrillOptions
from outlast._drill.shown.figures import loops_and_jobs

if TYPE_CHECKING:
    from collections.abc import Mapping

WORK_S_MIN = 0.05
WORK_LOOPS_PER_S = 2000.0
"""Jobs last 50 ms, and longer beyond 100 loops, so that no more than 2,000 jobs a second are asked of the machine."""

RESCUE_GRACE_S = 45.0
"""The outlast arm may rescue a job whose acquisition was committed but never answered: after its lease of 30 s. The other
arms record a result once, or never stop trying: they have nothing to gain from a longer wait."""

_ARMS = "outlast._drill.coder.arms."

ARMS: Mapping[str, JobsKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            JobsKind("naive", "the service of the incident: no backoff that holds", _ARMS + "naive", store=PlainStore),
            JobsKind("coder-fixed", "after its fix: a backoff for each loop", _ARMS + "coder_fixed", store=PlainStore),
            JobsKind("tenacity", "tenacity around each call", _ARMS + "tenacity_idiom", "tenacity", store=PlainStore),
            JobsKind(
                "procrastinate", "a worker of it", _ARMS + "procrastinate_worker", "procrastinate", store=ProcrastinateStore
            ),
            JobsKind("outlast", "outlast.jobs", _ARMS + "outlast_jobs", grace_s=RESCUE_GRACE_S, store=OutlastStore),
        )
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoderOptions(DrillOptions):
    """Choices of the person who starts the drill."""

    drill: ClassVar[str] = "coder"
    kinds: ClassVar[Mapping[str, JobsKind]] = ARMS
    faults: ClassVar[Mapping[str, type[ServerFault]]] = FAULTS

    fault: str = "stop"
    loops: int = 50
    arms: tuple[str, ...] = tuple(ARMS)
    dsn: str | None = None

    @property
    def more(self) -> str:
        """A given DSN stands as a word: it may hold a password."""
        return " --dsn DSN" if self.dsn else ""

    @property
    def work_s(self) -> float:
        """Seconds that one job takes."""
        return max(WORK_S_MIN, self.loops / WORK_LOOPS_PER_S)

    def validate(self) -> None:
        """Raise DrillUsageError for what cannot be run."""
        DrillOptions.validate(self)
        if self.dsn is not None and FAULTS[self.fault].needs_own_server:
            allowed = ", ".join(name for name, fault in FAULTS.items() if not fault.needs_own_server)
            msg = (
                f"fault {self.fault!r} changes a whole server, which the drill does only to its own; with --dsn choose {allowed}"
            )
            raise DrillUsageError(msg)
        if FAULTS[self.fault].needs_root and not may_mount():
            msg = f"fault {self.fault!r} mounts a small file system, which only root may, on Linux; choose another fault, or sudo"
            raise DrillUsageError(msg)


CODER: Drill[CoderOptions, JobsArm] = Drill(
    arm_run=lambda options, name, observer, cancel: JobsRun(options, ARMS[name], observer, cancel),
    check=coder_promises.check,
    stormed=coder_promises.stormed,
    columns=COLUMNS,
    series=SERIES,
    describe=describe,
    load=loops_and_jobs,
)
