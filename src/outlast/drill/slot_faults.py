"""The faults of the electric drill: what happens to a slot, and to whoever owns it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from outlast.drill.arms.stream_service import NAME
from outlast.drill.errors import DrillError
from outlast.drill.target import connect_direct

if TYPE_CHECKING:
    from outlast.drill.process import ServiceProcess
    from outlast.testing import FaultProxy, PostgresServer

TAKE_S_MAX = 20.0
POLL_S = 0.005

Pause = Callable[[float], None]


@dataclass(slots=True)
class Instance:
    """One process of an arm, behind a proxy of its own."""

    process: ServiceProcess
    proxy: FaultProxy


@dataclass(slots=True)
class Stage:
    """What a fault may break."""

    server: PostgresServer
    instances: list[Instance]
    owner: Instance
    """The one that streams when the fault begins."""
    pause: Pause


class SlotFault:
    """One way to lose the stream. `begin` breaks; `end` mends, and returns when the stream could go on."""

    name: ClassVar[str]
    summary: ClassVar[str]
    instances: ClassVar[int] = 1
    heals: ClassVar[bool] = True
    """Whether a stream is to go on afterwards."""
    takeover: ClassVar[bool] = False
    """Whether another process is to go on from the beginning of the fault, not from its end."""

    def begin(self, stage: Stage) -> None:
        """Break it."""

    def end(self, stage: Stage) -> None:
        """Mend it."""


class SlotTaken(SlotFault):
    """The link breaks for a moment, and when it is back a foreign program, `pg_recvlogical`, has the slot."""

    name = "slot-taken"
    summary = "a foreign pg_recvlogical has the slot"

    def __init__(self) -> None:
        self._foreign: subprocess.Popen[bytes] | None = None

    def begin(self, stage: Stage) -> None:
        """Cut everyone off, take the slot, let everyone in."""
        for instance in stage.instances:
            instance.proxy.mode = "refuse"
            instance.proxy.cut()
        self._take(stage)
        for instance in stage.instances:
            instance.proxy.mode = "pass"

    def _take(self, stage: Stage) -> None:
        deadline_s = time.monotonic() + TAKE_S_MAX
        while time.monotonic() < deadline_s:
            self._foreign = hold_slot(stage.server)
            while self._foreign.poll() is None and time.monotonic() < deadline_s:
                if _owner_application(stage.server) == "pg_recvlogical":
                    return
                stage.pause(POLL_S)
        self.end(stage)
        msg = f"pg_recvlogical did not get the slot within {TAKE_S_MAX:g} s"
        raise DrillError(msg)

    def end(self, stage: Stage) -> None:
        """Kill the foreign program; returns when the slot is free, or taken by somebody else."""
        if self._foreign is None:
            return
        self._foreign.send_signal(signal.SIGKILL)
        self._foreign.wait()
        while _owner_application(stage.server) == "pg_recvlogical":
            stage.pause(POLL_S)


class LockBypassed(SlotTaken):
    """Only the session that streams is ended: who holds the lock still holds it, and the slot is another's."""

    name = "lock-bypassed"
    summary = "only the streaming session ends, and pg_recvlogical is quicker"

    def begin(self, stage: Stage) -> None:
        """End the session until the foreign program has the slot."""
        deadline_s = time.monotonic() + TAKE_S_MAX
        with connect_direct(stage.server.dsn()) as conn:
            while time.monotonic() < deadline_s:
                conn.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL")
                self._foreign = hold_slot(stage.server)
                while self._foreign.poll() is None:
                    if _owner_application(stage.server) == "pg_recvlogical":
                        return
                    stage.pause(POLL_S)
        msg = f"pg_recvlogical did not get the slot within {TAKE_S_MAX:g} s"
        raise DrillError(msg)


class OwnerKilled(SlotFault):
    """The process that streams is killed with SIGKILL; another one stands by."""

    name = "owner-killed"
    summary = "SIGKILL for the process that streams; another one stands by"
    instances = 2
    takeover = True

    def begin(self, stage: Stage) -> None:
        """Kill it."""
        stage.owner.process.kill()


class OwnerCutOff(SlotFault):
    """Nothing passes any more between the server and the process that streams, and nobody is told; another one stands by.

    The proxy stands in for a network that swallows packets, and the kernel it runs on still answers TCP's own questions. So
    `wal_sender_timeout` ends the stream, but no keepalive ends the owner's other sessions before the way is open again:
    a lock that one of them holds passes later here than where a machine is really gone. That takes a packet filter to show.
    """

    name = "owner-cut-off"
    summary = "silence between the server and the process that streams; another one stands by"
    instances = 2
    takeover = True

    def begin(self, stage: Stage) -> None:
        """Keep what comes."""
        stage.owner.proxy.mode = "blackhole"

    def end(self, stage: Stage) -> None:
        """Let it through."""
        stage.owner.proxy.mode = "pass"


class SlotLost(SlotFault):
    """The stream is away while the server writes more than it keeps for a slot: nothing can bring it back."""

    name = "slot-lost"
    summary = "the server gives the slot up"
    heals = False

    def begin(self, stage: Stage) -> None:
        """Cut everyone off, fill the log beyond the limit, let everyone in."""
        for instance in stage.instances:
            instance.proxy.mode = "refuse"
            instance.proxy.cut()
        deadline_s = time.monotonic() + TAKE_S_MAX
        with connect_direct(stage.server.dsn()) as conn:
            conn.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'")
            conn.execute("SELECT pg_reload_conf()")
            while conn.execute("SELECT wal_status FROM pg_replication_slots").fetchone() != ("lost",):
                if time.monotonic() > deadline_s:
                    msg = f"the server did not give the slot up within {TAKE_S_MAX:g} s"
                    raise DrillError(msg)
                conn.execute(
                    "SELECT count(pg_logical_emit_message(false, 'filler', repeat('x', 8000))) FROM generate_series(1, 3000)"
                )
                conn.execute("CHECKPOINT")
        for instance in stage.instances:
            instance.proxy.mode = "pass"


SLOT_FAULTS: Mapping[str, type[SlotFault]] = MappingProxyType(
    {fault.name: fault for fault in (SlotTaken, LockBypassed, OwnerKilled, OwnerCutOff, SlotLost)}
)


def hold_slot(server: PostgresServer) -> subprocess.Popen[bytes]:
    """Start `pg_recvlogical`, found beside the server's own binaries, on the slot. It confirms nothing, and does not retry."""
    program = server.bin_dir / "pg_recvlogical"
    if not program.exists():
        msg = f"the drill needs pg_recvlogical, which is not in {server.bin_dir}; install PostgreSQL's client programs"
        raise DrillError(msg)
    options = ["-o", "proto_version=1", "-o", f"publication_names={NAME}", "--fsync-interval=0", "--status-interval=0"]
    command = [str(program), "-d", server.dsn(), "-S", NAME, "--start", "--no-loop", "-f", "/dev/null", *options]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _owner_application(server: PostgresServer) -> str:
    with connect_direct(server.dsn()) as conn:
        row = conn.execute(
            "SELECT application_name FROM pg_stat_activity JOIN pg_replication_slots ON pid = active_pid"
            " WHERE slot_name = 'drill'"
        ).fetchone()
    return str(row[0]) if row else ""
