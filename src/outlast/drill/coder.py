"""The coder drill: PostgreSQL goes away under many job loops, and comes back.

The same job service runs in several arms, each a process of its own with a server and a counting proxy of its own.
The arms run one after another unless asked otherwise: on a small machine the storm of one would take the processor
from the others, and their recovery would be measured wrong.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from outlast.drill import promises
from outlast.drill.arm_plan import ArmPlan
from outlast.drill.arm_run import ArmRun
from outlast.drill.errors import DrillUsageError
from outlast.drill.faults import FAULTS
from outlast.drill.observer import Observer, Phase
from outlast.drill.result import ArmResult, DrillResult
from outlast.drill.stores import JobStore, OutlastStore, PlainStore, ProcrastinateStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WORK_S_MIN = 0.05
WORK_LOOPS_PER_S = 2000.0
"""Jobs last 50 ms, and longer beyond 100 loops, so that no more than 2,000 jobs a second are asked of the machine."""

SETUP_S = 6.0
"""Launching a server, starting an arm, draining and stopping it take about this long."""

NO_RESCUE_GRACE_S = 5.0
"""Arms that record a result once, or never stop trying, have nothing to gain from a longer wait."""

RESCUE_GRACE_S = 45.0
"""The outlast arm may rescue a job whose acquisition was committed but never answered: after its lease of 30 s."""


@dataclass(frozen=True, slots=True)
class ArmKind:
    """One way to write the job service."""

    name: str
    summary: str
    module: str
    store: type[JobStore]
    needs: str | None = None
    grace_s: float = NO_RESCUE_GRACE_S


_ARMS = "outlast.drill.arms."

ARMS: Mapping[str, ArmKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            ArmKind("naive", "the service of the incident: no backoff that holds", _ARMS + "naive", PlainStore),
            ArmKind("coder-fixed", "after its fix: a backoff for each loop", _ARMS + "coder_fixed", PlainStore),
            ArmKind("tenacity", "tenacity around each call", _ARMS + "tenacity_idiom", PlainStore, "tenacity"),
            ArmKind("procrastinate", "a worker of it", _ARMS + "procrastinate_worker", ProcrastinateStore, "procrastinate"),
            ArmKind("outlast", "outlast.jobs", _ARMS + "outlast_jobs", OutlastStore, grace_s=RESCUE_GRACE_S),
        )
    }
)

PROVEN_ARM = "outlast"
STORMING_ARM = "naive"


@dataclass(frozen=True, slots=True)
class CoderOptions:
    """What the person who starts the drill may choose."""

    outage_s: float = 20.0
    fault: str = "stop"
    loops: int = 50
    arms: tuple[str, ...] = tuple(ARMS)
    seed: int = 1
    warmup_s: float = 5.0
    cooldown_s: float = 10.0
    parallel: bool = False
    dsn: str | None = None

    @property
    def command(self) -> str:
        """The command that repeats this drill. A given DSN stands as a word: it may hold a password."""
        times = f"--outage {self.outage_s:g}s --warmup {self.warmup_s:g}s --cooldown {self.cooldown_s:g}s"
        what = f"--fault {self.fault} --loops {self.loops} --arms {','.join(self.arms)} --seed {self.seed}"
        rest = (" --parallel" if self.parallel else "") + (" --dsn DSN" if self.dsn else "")
        return f"outlast drill coder {times} {what}{rest}"

    @property
    def work_s(self) -> float:
        """How long one job takes."""
        return max(WORK_S_MIN, self.loops / WORK_LOOPS_PER_S)

    @property
    def planned_s(self) -> float:
        """About how long the drill takes."""
        each_s = self.warmup_s + self.outage_s + self.cooldown_s + SETUP_S
        return each_s * (1 if self.parallel else len(self.arms))

    def validate(self) -> None:
        """Raise DrillUsageError for what cannot be run."""
        if self.fault not in FAULTS:
            msg = f"unknown fault {self.fault!r}; choose one of {', '.join(FAULTS)}"
            raise DrillUsageError(msg)
        unknown = [arm for arm in self.arms if arm not in ARMS]
        if unknown or not self.arms or len(set(self.arms)) < len(self.arms):
            msg = f"arms {','.join(self.arms)!r}: name each of {', '.join(ARMS)} at most once, separated by commas"
            raise DrillUsageError(msg)
        if self.outage_s <= 0 or self.warmup_s < 0 or self.cooldown_s < 0 or self.loops < 1:
            msg = "outage and loops must be above 0, warm-up and cool-down not below"
            raise DrillUsageError(msg)
        if self.dsn is not None and FAULTS[self.fault].needs_own_server:
            allowed = ", ".join(name for name, fault in FAULTS.items() if not fault.needs_own_server)
            msg = (
                f"fault {self.fault!r} changes a whole server, which the drill does only to its own; with --dsn choose {allowed}"
            )
            raise DrillUsageError(msg)
        for name in self.arms:
            needs = ARMS[name].needs
            if needs is not None and importlib.util.find_spec(needs) is None:
                msg = f"arm {name!r} needs the package {needs}: pip install 'outlast[drill]', or leave it out with --arms"
                raise DrillUsageError(msg)

    def plan(self, name: str) -> ArmPlan:
        """What to run for one arm."""
        kind = ARMS[name]
        return ArmPlan(
            arm=kind.name,
            module=kind.module,
            store=kind.store(),
            grace_s=kind.grace_s,
            fault=self.fault,
            loops=self.loops,
            work_s=self.work_s,
            warmup_s=self.warmup_s,
            outage_s=self.outage_s,
            cooldown_s=self.cooldown_s,
            seed=self.seed,
            dsn=self.dsn,
        )


def run_coder_drill(options: CoderOptions, observer: Observer, cancel: threading.Event | None = None) -> DrillResult:
    """Run the drill; takes minutes. Raises DrillError when it cannot be carried out, after cleaning up.

    Setting `cancel` from another thread ends it with DrillCancelled within a fraction of a second plus the clean-up.
    """
    options.validate()
    cancel = cancel or threading.Event()
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    for name in options.arms:
        observer.arm_phase(name, Phase.WAITING)
    outcomes = _run_arms(options, observer, cancel)
    arms = tuple(result for result, _ in outcomes)
    by_name = {arm.arm: arm for arm in arms}
    proven, storming = by_name.get(PROVEN_ARM), by_name.get(STORMING_ARM)
    return DrillResult(
        drill="coder",
        fault=options.fault,
        seed=options.seed,
        outage_s=options.outage_s,
        loops=options.loops,
        started_at=started_at,
        command=options.command,
        machine=machine() | {"postgres": outcomes[0][1]},
        arms=arms,
        promises=promises.check(proven, options.fault) if proven else (),
        stormed=promises.stormed(storming, options.fault) if storming else None,
    )


def machine() -> dict[str, str]:
    """What the figures depend on: processors, system, Python."""
    return {
        "processors": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _run_arms(options: CoderOptions, observer: Observer, cancel: threading.Event) -> Sequence[tuple[ArmResult, str]]:
    runs = [ArmRun(options.plan(name), observer, cancel) for name in options.arms]
    # Also a single arm runs in a thread, so that Ctrl-C reaches the caller, who sets `cancel`, and the arm cleans up.
    with ThreadPoolExecutor(len(runs) if options.parallel else 1, thread_name_prefix="drill-arm") as pool:
        futures = [pool.submit(run.run) for run in runs]
        try:
            return [future.result() for future in futures]
        except BaseException:
            cancel.set()
            for future in futures:
                future.cancel()
            raise
