"""The faults of the electric drill: what happens to a slot, and to whoever owns it."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from psycopg.conninfo import make_conninfo

from outlast._drill.electric.arms.stream_service import NAME
from outlast._drill.lab.errors import DrillError
from outlast._drill.lab.faults import Pause, StagedFault
from outlast._drill.lab.target import connect_direct

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast._drill.lab.arm.instance import ProxiedInstance
    from outlast.testing import PostgresServer

TAKE_S_MAX = 20.0
POLL_S = 0.005


@dataclass(slots=True)
class Stage:
    """The server and the processes that a fault may break."""

    server: PostgresServer
    instances: list[ProxiedInstance]
    owner: ProxiedInstance
    """The one that streams when the fault begins."""
    pause: Pause


def _cut_off(stage: Stage) -> None:
    """Cut every process off, and let none in."""
    for instance in stage.instances:
        instance.proxy.mode = "refuse"
        instance.proxy.cut()


def _let_in(stage: Stage) -> None:
    for instance in stage.instances:
        instance.proxy.mode = "pass"


class SlotFault(StagedFault[Stage]):
    """One way to lose the stream."""

    instances: ClassVar[int] = 1
    takeover: ClassVar[bool] = False
    """Whether another process is to go on from the beginning of the fault, not from its end."""


class SlotTaken(SlotFault):
    """The link breaks for a moment, and when it is back a foreign program, `pg_recvlogical`, has the slot."""

    name = "slot-taken"
    summary = "a foreign pg_recvlogical has the slot"

    def __init__(self) -> None:
        self._foreign: subprocess.Popen[bytes] | None = None

    def begin(self, stage: Stage) -> None:
        """Cut everyone off, take the slot, let everyone in."""
        _cut_off(stage)
        self._take(stage)
        _let_in(stage)

    def _take(self, stage: Stage) -> None:
        deadline_s = time.monotonic() + TAKE_S_MAX
        while time.monotonic() < deadline_s:
            self._make_way(stage)
            self._foreign = hold_slot(stage.server)
            while self._foreign.poll() is None and time.monotonic() < deadline_s:
                if _owner_application(stage.server) == "pg_recvlogical":
                    return
                stage.pause(POLL_S)
        msg = f"pg_recvlogical did not get the slot within {TAKE_S_MAX:g} s"
        raise DrillError(msg)

    def _make_way(self, stage: Stage) -> None:
        """Do what is needed before each try to take the slot."""

    def end(self, stage: Stage) -> None:
        """Kill the foreign program, and let everyone in where taking the slot failed."""
        if self._foreign is not None:
            self._foreign.kill()
            self._foreign.wait()
        _let_in(stage)

    def over(self, stage: Stage) -> bool:
        """Return whether the slot is free, or taken by somebody else."""
        return _owner_application(stage.server) != "pg_recvlogical"


class LockBypassed(SlotTaken):
    """Only the session that streams is ended: who holds the lock still holds it, and the slot is another's."""

    name = "lock-bypassed"
    summary = "only the streaming session ends, and pg_recvlogical is quicker"

    def begin(self, stage: Stage) -> None:
        """Take the slot."""
        self._take(stage)

    def _make_way(self, stage: Stage) -> None:
        with connect_direct(stage.server.dsn()) as conn:
            conn.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL")


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

    The proxy stands in for a network that swallows packets, and the kernel it runs on still answers TCP's own questions: the
    harder case, since no keepalive of TCP finds anything.
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
    summary = "the server removes what the slot needs"
    heals = False

    def begin(self, stage: Stage) -> None:
        """Cut everyone off, fill the log beyond the limit, let everyone in."""
        _cut_off(stage)
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
        _let_in(stage)

    def end(self, stage: Stage) -> None:
        """Let everyone in where losing the slot failed; nothing brings it back."""
        _let_in(stage)


SLOT_FAULTS: Mapping[str, type[SlotFault]] = MappingProxyType(
    {fault.name: fault for fault in (SlotTaken, LockBypassed, OwnerKilled, OwnerCutOff, SlotLost)}
)


def hold_slot(server: PostgresServer) -> subprocess.Popen[bytes]:
    """Start `pg_recvlogical`, found beside the server's own binaries, on the slot. It confirms nothing, and does not retry.

    Without a `wal_sender_timeout` the server never asks it for an answer: an answer that was asked for confirms all it has read.
    """
    program = server.bin_dir / "pg_recvlogical"
    if not program.exists():
        msg = f"the drill needs pg_recvlogical, which is not in {server.bin_dir}; install PostgreSQL's client programs"
        raise DrillError(msg)
    options = ["-o", "proto_version=1", "-o", f"publication_names={NAME}", "--fsync-interval=0", "--status-interval=0"]
    dsn = make_conninfo(server.dsn(), options="-c wal_sender_timeout=0")
    command = [str(program), "-d", dsn, "-S", NAME, "--start", "--no-loop", "-f", "/dev/null", *options]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _owner_application(server: PostgresServer) -> str:
    with connect_direct(server.dsn()) as conn:
        row = conn.execute(
            "SELECT application_name FROM pg_stat_activity JOIN pg_replication_slots ON pid = active_pid"
            " WHERE slot_name = 'drill'"
        ).fetchone()
    return str(row[0]) if row else ""
