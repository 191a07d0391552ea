"""The electric drill: a change stream loses its slot, its lock or its owner, beside other loops of the same service.

Each arm has a server of its own and runs as one process, or two where another one is to take over, each behind a counting
proxy of its own. A writer makes twenty changes a second all the time. Everything is measured from outside.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import psycopg

import outlast
from outlast.drill.arms.service import ArmSettings
from outlast.drill.arms.stream_service import STREAM_LOOP
from outlast.drill.coder import machine
from outlast.drill.electric_result import ElectricArm, ElectricResult, check, stormed
from outlast.drill.errors import DrillCancelled, DrillError, DrillUsageError
from outlast.drill.process import ServiceProcess
from outlast.drill.slot_faults import SLOT_FAULTS, Instance, Stage
from outlast.drill.target import connect_direct
from outlast.drill.worklog import WorkLogReader
from outlast.testing import FaultProxy, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outlast.drill.worklog import WorkRecord

WORK_S = 0.05
WRITE_EVERY_S = 0.05
START_S_MAX = 30.0
DRAIN_S_MAX = 10.0
STOP_S_MAX = 30.0
_SETTINGS = {"wal_level": "logical", "max_wal_size": "64MB", "min_wal_size": "32MB", "wal_keep_size": "0"}
_ARMS = "outlast.drill.arms."

ELECTRIC_ARMS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "naive": (_ARMS + "electric_naive", "the server of the incident: restarted at once, for ever"),
        "backoff": (_ARMS + "electric_backoff", "the stream alone, after 2, 4, 8, 10 s, reset by each login"),
        "outlast": (_ARMS + "electric_outlast", "outlast.changes"),
    }
)
"""Module and summary of each arm."""


@dataclass(frozen=True, slots=True)
class ElectricOptions:
    """What the person who starts the drill may choose."""

    outage_s: float = 20.0
    fault: str = "slot-taken"
    loops: int = 20
    arms: tuple[str, ...] = tuple(ELECTRIC_ARMS)
    seed: int = 1
    warmup_s: float = 5.0
    cooldown_s: float = 10.0

    @property
    def command(self) -> str:
        """The command that repeats this drill."""
        times = f"--outage {self.outage_s:g}s --warmup {self.warmup_s:g}s --cooldown {self.cooldown_s:g}s"
        return (
            f"outlast drill electric {times} --fault {self.fault} --loops {self.loops} --arms {','.join(self.arms)}"
            f" --seed {self.seed}"
        )

    def validate(self) -> None:
        """Raise DrillUsageError for what cannot be run."""
        if self.fault not in SLOT_FAULTS:
            msg = f"unknown fault {self.fault!r}; choose one of {', '.join(SLOT_FAULTS)}"
            raise DrillUsageError(msg)
        if not self.arms or len(set(self.arms)) < len(self.arms) or not set(self.arms) <= set(ELECTRIC_ARMS):
            msg = f"arms {','.join(self.arms)!r}: name each of {', '.join(ELECTRIC_ARMS)} at most once, separated by commas"
            raise DrillUsageError(msg)
        if self.outage_s <= 0 or self.warmup_s <= 0 or self.cooldown_s < 0 or self.loops < 1:
            msg = "outage, warm-up and loops must be above 0, the cool-down not below"
            raise DrillUsageError(msg)


def run_electric_drill(options: ElectricOptions, cancel: threading.Event | None = None) -> ElectricResult:
    """Run the drill; takes minutes. Raises DrillError when it cannot be carried out, after cleaning up.

    Setting `cancel` from another thread ends it with DrillCancelled.
    """
    options.validate()
    cancel = cancel or threading.Event()
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    arms: list[ElectricArm] = []
    version = ""
    for name in options.arms:
        arm, version = _ArmRun(options, name, cancel).run()
        arms.append(arm)
    by_name = {arm.arm: arm for arm in arms}
    proven, storming = by_name.get("outlast"), by_name.get("naive")
    return ElectricResult(
        fault=options.fault,
        seed=options.seed,
        outage_s=options.outage_s,
        loops=options.loops,
        started_at=started_at,
        command=options.command,
        machine=machine() | {"postgres": version},
        arms=tuple(arms),
        promises=check(proven, options.fault) if proven else (),
        stormed=stormed(storming, options.fault) if storming else None,
    )


class _Writer:
    """Inserts a number every 50 ms, and knows when each was committed."""

    def __init__(self, dsn: str) -> None:
        self.committed: dict[int, float] = {}
        self._dsn = dsn
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drill-writer", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write no more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with connect_direct(self._dsn) as conn:
            number = 0
            while not self._stop.wait(WRITE_EVERY_S):
                number += 1
                conn.execute("INSERT INTO drill_changes VALUES (%s)", (number,))
                self.committed[number] = time.monotonic()


class _ArmRun:
    """One arm, from launching its server to counting its changes."""

    def __init__(self, options: ElectricOptions, arm: str, cancel: threading.Event) -> None:
        self._options = options
        self._arm = arm
        self._cancel = cancel
        self._logs: list[WorkLogReader] = []
        self._records: list[list[WorkRecord]] = []

    def run(self) -> tuple[ElectricArm, str]:
        """Carry it out; returns the result and the server's version. Nothing it started is left behind."""
        fault = SLOT_FAULTS[self._options.fault]()
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outlast-drill-")))
            server = stack.enter_context(PostgresServer(settings=_SETTINGS))
            with connect_direct(server.dsn()) as conn:
                conn.execute("CREATE TABLE drill_changes (n bigint PRIMARY KEY)")
                conn.execute("CREATE PUBLICATION drill FOR TABLE drill_changes")
                conn.execute("SELECT pg_create_logical_replication_slot('drill', 'pgoutput')")
            writer = _Writer(server.dsn())
            instances = [self._launch(stack, server, directory / str(number)) for number in range(fault.instances)]
            writer.start()
            stack.callback(writer.stop)
            owner = self._await_owner(instances)
            stage = Stage(server, instances, instances[owner], self._pause)
            healthy, warm_s = self._totals(instances), time.monotonic()
            self._pause(self._options.warmup_s)
            before, began_s = self._totals(instances), time.monotonic()
            try:
                fault.begin(stage)
                broken_s = time.monotonic()
                self._pause(self._options.outage_s)
                after = self._totals(instances)
            finally:
                fault.end(stage)
            ended_s = time.monotonic()
            self._pause(self._options.cooldown_s)
            writer.stop()
            self._drain(writer, heals=fault.heals)
            codes = [instance.process.stop(STOP_S_MAX)[0] for instance in instances]
            self._read()
            from_s = (broken_s if fault.name == "owner-killed" else began_s) if fault.takeover else ended_s
            others = [number for number in range(len(instances)) if number != owner] if fault.takeover else [owner]
            seen = [record for log in self._records for record in log if record.loop == STREAM_LOOP]
            jobs = {record.job for record in seen}
            measured = [instance for instance in instances if not fault.takeover or instance is not stage.owner]
            return ElectricArm(
                arm=self._arm,
                attempts=after[0] - before[0],
                log_lines=after[1] - before[1],
                log_bytes=sum(each.process.output.between(began_s, ended_s)[1] for each in instances),
                cpu_percent=100.0 * (after[2] - before[2]) / max(0.001, ended_s - began_s),
                cpu_before_percent=100.0 * (before[2] - healthy[2]) / (began_s - warm_s),
                throughput_percent=self._throughput(others, warm_s, began_s, ended_s),
                recovery_s=self._recovery(others, from_s) if fault.heals else None,
                changes=len(writer.committed),
                lost=len(writer.committed.keys() - jobs) if fault.heals else None,
                twice=len(seen) - len(jobs),
                outage_s=ended_s - began_s,
                exit_codes=tuple(code for code, each in zip(codes, instances, strict=True) if each in measured),
                log_first=tuple(line for each in instances for line in each.process.output.first),
            ), _version(server)

    def _launch(self, stack: ExitStack, server: PostgresServer, directory: Path) -> Instance:
        directory.mkdir()
        proxy = FaultProxy("127.0.0.1", server.port)
        port = proxy.start()
        stack.callback(proxy.stop)
        options = self._options
        settings = ArmSettings(server.dsn(port=port), options.loops, WORK_S, directory / "work.log", options.seed, directory)
        source = str(Path(outlast.__file__).resolve().parent.parent)
        environment = {
            **settings.as_environment(),
            "PYTHONPATH": os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH")))),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._logs.append(WorkLogReader(settings.work_log))
        self._records.append([])
        process = ServiceProcess([sys.executable, "-m", ELECTRIC_ARMS[self._arm][0]], environment)
        return Instance(stack.enter_context(process), proxy)

    def _await_owner(self, instances: Sequence[Instance]) -> int:
        deadline_s = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline_s:
            self._read()
            streaming = [number for number, log in enumerate(self._records) if any(each.loop == STREAM_LOOP for each in log)]
            ticking = all(any(each.loop != STREAM_LOOP for each in log) for log in self._records)
            if streaming and (ticking or len(instances) == 1):
                return streaming[0]
            self._pause(0.02)
        last = " | ".join(line for each in instances for line in list(each.process.output.last)[-2:]) or "no output"
        msg = f"arm {self._arm}: no change was received within {START_S_MAX:g} s of the start; its last lines: {last}"
        raise DrillError(msg)

    def _drain(self, writer: _Writer, *, heals: bool) -> None:
        """Let what was committed arrive: all of it, or nothing more for a while."""
        deadline_s = time.monotonic() + (DRAIN_S_MAX if heals else 0.0)
        while time.monotonic() < deadline_s:
            self._read()
            if writer.committed.keys() <= {each.job for log in self._records for each in log if each.loop == STREAM_LOOP}:
                return
            self._pause(0.1)

    def _read(self) -> None:
        for reader, records in zip(self._logs, self._records, strict=True):
            records.extend(reader.read_new())

    def _totals(self, instances: Sequence[Instance]) -> tuple[int, int, float]:
        """Connection attempts, lines and processor seconds so far."""
        return (
            sum(each.proxy.attempt_count for each in instances),
            sum(each.process.output.lines_total for each in instances),
            sum(each.process.sample() for each in instances),
        )

    def _throughput(self, numbers: Sequence[int], warm_s: float, began_s: float, ended_s: float) -> float:
        """What the other loops did during the fault, in percent of what they did before it."""
        ends_s = [each.at_ns / 1e9 for number in numbers for each in self._records[number] if each.loop != STREAM_LOOP]
        before = sum(warm_s <= at_s < began_s for at_s in ends_s) / (began_s - warm_s)
        during = sum(began_s <= at_s < ended_s for at_s in ends_s) / (ended_s - began_s)
        return 100.0 * during / before if before else 0.0

    def _recovery(self, numbers: Sequence[int], from_s: float) -> float | None:
        """Seconds from there to the first change received by those processes."""
        at_s = [each.at_ns / 1e9 for number in numbers for each in self._records[number] if each.loop == STREAM_LOOP]
        return min((each - from_s for each in at_s if each >= from_s), default=None)

    def _pause(self, seconds: float) -> None:
        if self._cancel.wait(seconds):
            msg = "the drill was cancelled"
            raise DrillCancelled(msg)


def _version(server: PostgresServer) -> str:
    with psycopg.connect(server.dsn()) as conn:
        return f"{conn.info.server_version // 10_000}.{conn.info.server_version % 10_000}"
