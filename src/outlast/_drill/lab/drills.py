"""A drill: the same service in several arms, each with what it depends on for itself alone, under one fault.

The arms run one after another unless asked otherwise: on a small machine the storm of one would take the processor
from the others, and their recovery would be measured wrong.
"""

from __future__ import annotations

import os
import platform
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from outlast._drill.lab.observer import ArmState, Observer
from outlast._drill.lab.options import DrillOptions
from outlast._drill.lab.result import PROVEN_ARM, A, DrillResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from outlast._drill.lab.arm.run import ArmRun
    from outlast._drill.lab.result import Promise
    from outlast._drill.shown.figures import Column, Series

Options = TypeVar("Options", bound=DrillOptions)
STORMING_ARM = "naive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill(Generic[Options, A]):
    """One kind of drill: how an arm is run, what is promised of it, and how people read it."""

    arm_run: Callable[[Options, str, Observer, threading.Event], ArmRun[A, Any]]
    check: Callable[[A, str], tuple[Promise, ...]]
    """Holds a proven arm against the promises of a fault."""
    stormed: Callable[[A, str], bool | None]
    """Whether the arm *naive* stormed; None under a fault that need not make it storm."""
    columns: Sequence[Column[A]]
    series: Sequence[Series]
    describe: Callable[[A], str]
    load: Callable[[DrillResult[A]], tuple[str, str]]
    """The work of each arm, as (name, value)."""
    compare: Callable[[A, A, str], tuple[Promise, ...]] = lambda proven, storming, fault: ()
    """Holds a proven arm against the arm *naive*, when both ran."""
    proven: tuple[str, ...] = (PROVEN_ARM,)
    """The arms that are held to the promises."""
    measured: str = "its output pipe, a counting proxy before its server, the system's accounts, and a work log"

    def run(self, options: Options, observer: Observer, cancel: threading.Event | None = None) -> DrillResult[A]:
        """Run it; takes minutes. Raises DrillError when it cannot be carried out, after cleaning up.

        Setting `cancel` from another thread ends it with DrillCancelled within a fraction of a second plus the clean-up.
        """
        options.validate()
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        for name in options.arms:
            observer.arm_state(name, ArmState.WAITING)
        outcomes = self._run_arms(options, observer, cancel or threading.Event())
        by_name = {arm.arm: arm for arm, _ in outcomes}
        proven = [by_name[name] for name in self.proven if name in by_name]
        storming = by_name.get(STORMING_ARM)
        return DrillResult(
            drill=options.drill,
            fault=options.fault,
            summary=options.faults[options.fault].summary,
            seed=options.seed,
            outage_s=options.outage_s,
            loops=options.loops,
            started_at=started_at,
            command=options.command,
            # Arms of one drill may have different servers.
            machine=_machine() | {name: value for _, depends_on in outcomes for name, value in depends_on.items()},
            arms=tuple(by_name.values()),
            promises=tuple(promise for arm in proven for promise in self._promises(arm, storming, options.fault)),
            stormed=self.stormed(storming, options.fault) if storming else None,
        )

    def _promises(self, proven: A, storming: A | None, fault: str) -> Iterator[Promise]:
        for promise in (*self.check(proven, fault), *(self.compare(proven, storming, fault) if storming else ())):
            yield replace(promise, arm=proven.arm)

    def _run_arms(self, options: Options, observer: Observer, cancel: threading.Event) -> Sequence[tuple[A, Mapping[str, str]]]:
        def run(name: str) -> tuple[A, Mapping[str, str]]:
            arm, depends_on = self.arm_run(options, name, observer, cancel).run()
            observer.arm_state(name, ArmState.DONE)
            observer.arm_done(name, self.describe(arm))
            return arm, depends_on

        # Also a single arm runs in a thread, so that Ctrl-C reaches the caller, who sets `cancel`, and the arm cleans up.
        with ThreadPoolExecutor(len(options.arms) if options.parallel else 1, thread_name_prefix="drill-arm") as pool:
            futures = [pool.submit(run, name) for name in options.arms]
            try:
                return [future.result() for future in futures]
            except BaseException:
                cancel.set()
                for future in futures:
                    future.cancel()
                raise


def _machine() -> dict[str, str]:
    """Return what the figures depend on: processors, system, Python."""
    return {
        "processors": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
    }
