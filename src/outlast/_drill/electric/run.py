"""One arm of the electric drill: one process, or two where another is to take over, and a writer of twenty changes a second."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from outlast._drill.electric.faults import SLOT_FAULTS, Stage
from outlast._drill.electric.figures import StreamArm
from outlast._drill.lab.arm.figures import Course, shared_figures, throughput_percent
from outlast._drill.lab.arm.instance import Instance, ProxiedInstance, launch
from outlast._drill.lab.arm.run import ArmRun
from outlast._drill.lab.arm.service import ArmSettings
from outlast._drill.lab.target import connect_direct
from outlast.testing import FaultProxy, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import ExitStack
    from pathlib import Path

WRITE_EVERY_S = 0.05
_SETTINGS = {"wal_level": "logical", "max_wal_size": "64MB", "min_wal_size": "32MB", "wal_keep_size": "0"}


class Writer:
    """Inserts a number every 50 ms, and knows which were committed."""

    def __init__(self, dsn: str) -> None:
        self.committed: set[int] = set()
        self._dsn = dsn
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="drill-writer", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write no more; raises what it failed with, if it failed."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            with connect_direct(self._dsn) as conn:
                number = 0
                while not self._stop.wait(WRITE_EVERY_S):
                    number += 1
                    conn.execute("INSERT INTO drill_changes VALUES (%s)", (number,))
                    self.committed.add(number)
        except BaseException as exc:  # noqa: BLE001  raised again by stop()
            self._failure = exc


class StreamRun(ArmRun[StreamArm, Stage]):
    """Carries out one arm of the electric drill."""

    _server: PostgresServer
    _writer: Writer
    _owner: ProxiedInstance
    _proxied: list[ProxiedInstance]

    def set_up(self, stack: ExitStack, directory: Path) -> Mapping[str, str]:
        """Launch a server with a publication and a slot, and the processes, each behind a proxy of its own."""
        self._server = server = stack.enter_context(PostgresServer(settings=_SETTINGS))
        with connect_direct(server.dsn()) as conn:
            conn.execute("CREATE TABLE drill_changes (n bigint PRIMARY KEY)")
            conn.execute("CREATE PUBLICATION drill FOR TABLE drill_changes")
            conn.execute("SELECT pg_create_logical_replication_slot('drill', 'pgoutput')")
            version = conn.info.server_version
        self._writer = Writer(server.dsn())
        options, self._proxied = self.options, []
        for number in range(SLOT_FAULTS[options.fault].instances):
            own = directory / str(number)
            own.mkdir()
            proxy = stack.enter_context(FaultProxy("127.0.0.1", server.port))
            dsn = server.dsn(port=proxy.port)
            settings = ArmSettings(dsn, options.loops, options.work_s, own / "work.log", options.seed, own)
            self._proxied.append(launch(stack, self.kind.module, settings, proxy))
        self.instances.extend(self._proxied)
        return {"postgres": f"{version // 10_000}.{version % 10_000}"}

    def target(self) -> Stage:
        """Return the server and the processes, with the one that streams now."""
        self._owner = max(self._proxied, key=lambda instance: instance.changes)
        return Stage(self._server, self._proxied, self._owner, self.pause)

    def begin_work(self) -> None:
        """Begin to write."""
        self._writer.start()

    def end_work(self) -> None:
        """Write no more."""
        self._writer.stop()

    def readiness(self) -> str:
        """Say what is missing until one process streams and the others are up: work, or complain that they cannot."""
        if not any(instance.changes for instance in self.instances):
            return "no change was received"
        up = all(instance.jobs or instance.process.output.lines_total for instance in self.instances)
        return "" if up else "only one process was up"

    def left(self) -> int:
        """Count the changes that have not arrived."""
        return len(self._writer.committed - {record.job for each in self.instances for record in each.ends(stream=True)})

    def result(self, course: Course) -> StreamArm:
        """Count what arrived."""
        fault, outage = SLOT_FAULTS[self.options.fault], course.outage
        others = [each for each in self.instances if each is not self._owner] if fault.takeover else self.instances
        lost_s = outage.broken_s if fault.takeover else outage.accepted_s
        # An owner that was cut off may have received one more change just before: it counts only when it is let in again.
        back_s = [*_changes_s(others, lost_s), *_changes_s(self.instances, outage.accepted_s)]
        return StreamArm(
            **shared_figures(self.instances, course),
            arm=self.kind.name,
            summary=self.kind.summary,
            heals=fault.heals,
            recovery_s=min(back_s) - lost_s if fault.heals and back_s else None,
            changes=len(self._writer.committed),
            lost=self.left() if fault.heals else None,
            twice=sum(each.changes for each in self.instances)
            - len({record.job for each in self.instances for record in each.ends(stream=True)}),
            loops=self.options.loops,
            throughput_percent=throughput_percent(self._owner, others, course),
            work_s=self.options.work_s,
        )


def _changes_s(instances: Sequence[Instance], from_s: float) -> list[float]:
    """Return the times at which those processes received changes, from that time on."""
    at_s = (record.at_ns / 1e9 for instance in instances for record in instance.ends(stream=True))
    return [each_s for each_s in at_s if each_s >= from_s]
