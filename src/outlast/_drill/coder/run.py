"""One arm of the coder drill: a service that works off a queue, kept full past the proxy, and an audit of its jobs."""

from __future__ import annotations

import math
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from outlast._drill.coder.arms import ledger
from outlast._drill.coder.faults import ServerFault
from outlast._drill.coder.feeder import Feeder
from outlast._drill.coder.figures import JobsArm
from outlast._drill.coder.payments import Payments
from outlast._drill.coder.stores import PAYMENTS_FROM, OutlastStore
from outlast._drill.lab import measure
from outlast._drill.lab.arm.figures import Course, shared_figures, throughput_percent
from outlast._drill.lab.arm.instance import launch
from outlast._drill.lab.arm.run import ArmRun
from outlast._drill.lab.arm.service import ArmSettings
from outlast._drill.lab.options import ArmKind
from outlast._drill.lab.sessions import SessionCount
from outlast._drill.lab.target import PostgresTarget, given_target, launched_target

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from outlast._drill.coder.drill import CoderOptions
    from outlast._drill.coder.stores import JobStore
    from outlast._drill.lab.faults import Outage
    from outlast._drill.lab.observer import Observer

PAYMENTS_PER_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsKind(ArmKind):
    """One way to write the job service, and how it keeps its jobs."""

    store: type[JobStore]


class JobsRun(ArmRun[JobsArm, PostgresTarget]):
    """Carries out one arm of the coder drill."""

    _target: PostgresTarget
    _feeder: Feeder
    _payments: Payments
    _sessions: SessionCount | None = None

    def __init__(self, options: CoderOptions, kind: JobsKind, observer: Observer, cancel: threading.Event) -> None:
        super().__init__(options, kind, observer, cancel)
        self._dsn = options.dsn
        self._store = kind.store()
        run_s = options.warmup_s + options.outage_s + options.cooldown_s
        self._run_s = run_s
        self._payments_count = math.ceil(PAYMENTS_PER_S * run_s) if isinstance(self._store, OutlastStore) else 0

    def set_up(self, stack: ExitStack, directory: Path) -> Mapping[str, str]:
        """Launch or use a server, make the tables, start the service."""
        self._target = stack.enter_context(given_target(self._dsn) if self._dsn else launched_target())
        self._payments = stack.enter_context(Payments(self._run_s))
        self._store.create(self._target.direct_dsn)
        with closing(self._target.connect()) as conn:
            conn.execute(ledger.CREATE)
        self._server_fault.prepare(self._target, stack)
        options = self.options
        settings = ArmSettings(
            dsn=self._target.proxied_dsn,
            loops=options.loops,
            work_s=options.work_s,
            work_log=directory / "work.log",
            seed=options.seed,
            state=directory,
            payments_port=self._payments.port,
        )
        instance = launch(stack, self.kind.module, settings, self._target.proxy)
        self.instances.append(instance)
        self._feeder = Feeder(self._store, self._target, options.loops, lambda: instance.jobs)
        return {"postgres": self._target.version}

    def target(self) -> PostgresTarget:
        """Return the server and the proxy before it."""
        return self._target

    @property
    def _server_fault(self) -> ServerFault:
        assert isinstance(self.fault, ServerFault)  # noqa: S101  the options of this drill have no others
        return self.fault

    def begin_work(self) -> None:
        """Fill the queue and keep it full; what needs the second service is due bit by bit."""
        if isinstance(self._store, OutlastStore):
            with closing(self._target.connect()) as conn:
                self._store.enqueue_payments(conn, self._payments_count, self._run_s)
        self._feeder.start()
        self._payments.begin()

    def end_work(self) -> None:
        """Enqueue no more."""
        self._feeder.stop()

    def readiness(self) -> str:
        """Say how many loops have done a job; empty when all have."""
        seen = len(self.instances[0].loops_seen)
        return "" if seen >= self.options.loops else f"{seen} of {self.options.loops} loops did a job"

    def stage_fault(self) -> Outage:
        """Keep the feeder off a server that the harness cannot reach either; count sessions on one that it can."""
        if self._server_fault.harness_cut_off:
            self._feeder.pause()
            outage = super().stage_fault()
            self._feeder.resume()
            return outage
        with SessionCount(self._target) as self._sessions:
            return super().stage_fault()

    def left(self) -> int:
        """Count the jobs that are not recorded as done."""
        with closing(self._target.connect()) as conn:
            return self._store.unfinished(conn)

    def result(self, course: Course) -> JobsArm:
        """Audit the table and count."""
        with closing(self._target.connect()) as conn:
            audit = self._store.audit(conn)
        (instance,), loops, outage = self.instances, self.options.loops, course.outage
        recovered = measure.recovery(instance.records, outage.accepted_ns, loops)
        jobs = measure.account(self._feeder.enqueued, instance.records, audit.done, audit.waiting)
        payments = measure.account(self._payments_count, instance.records, audit.done, audit.waiting, PAYMENTS_FROM)
        cancels_s = tuple(self._target.cancels.times_s)
        ends_s = [record.at_ns / 1e9 for record in instance.ends(stream=False)]
        arm = JobsArm(
            **shared_figures(self.instances, course, cancels_s),
            arm=self.kind.name,
            summary=self.kind.summary,
            recovery_s_p50=recovered.p50_s,
            recovery_s_max=recovered.max_s,
            lost=jobs.lost,
            twice=jobs.twice,
            loops=loops,
            loops_recovered=recovered.loops_recovered,
            loops_dead=loops if course.stop_s is None else loops - recovered.loops_recovered,
            jobs_before=measure.count_between(ends_s, 0.0, outage.began_s),
            jobs_during=measure.count_between(ends_s, outage.began_s, outage.accepted_s),
            jobs_after=measure.count_between(ends_s, outage.accepted_s, float("inf")),
            jobs_enqueued=self._feeder.enqueued,
            throughput_percent=throughput_percent(instance, self.instances, course),
            cancels=len(cancels_s),
            sessions_max=None if self._sessions is None else self._sessions.peak,
            payments=self._payments_count,
            payments_lost=payments.lost,
            payments_twice=payments.twice,
            payments_in_vain=measure.in_vain(instance.records, PAYMENTS_FROM),
            work_s=self.options.work_s,
        )
        return replace(arm, notes=(*arm.notes, *_notes(jobs)))


def _notes(jobs: measure.Account) -> Iterator[str]:
    if jobs.lost_results:
        yield f"{jobs.lost_results} of the lost jobs were worked to their end, but the result was never recorded"
    if jobs.waiting:
        yield f"{jobs.waiting} jobs were still waiting to be taken at the end; they are not counted as lost"
