"""The faults that the coder drill stages on a PostgreSQL server or on the way to it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

import psycopg
from psycopg import sql

from outlast._drill.lab.errors import DrillError
from outlast._drill.lab.faults import Pause, StagedFault
from outlast._drill.lab.target import HARNESS_NAME, PostgresTarget

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack
    from pathlib import Path
    from random import Random

KILL_EVERY_S = 0.5
FLAP_UP_S = (0.05, 0.5)
FLAP_DOWN_S = (0.2, 1.0)
TABLESPACE_BYTES = 4 * 2**20
"""Room for some 2,500 lines of the ledger: a minute of them, before the harness takes what is left."""
COMMAND_S_MAX = 10.0

_HARNESS = {"name": HARNESS_NAME}


class ServerFault(StagedFault[PostgresTarget]):
    """One way to lose a server."""

    needs_own_server: ClassVar[bool] = True
    harness_cut_off: ClassVar[bool] = True
    """Whether the harness's own direct connection suffers too, so that it must not be used meanwhile."""
    one_statement: ClassVar[bool] = False
    """Whether it meets one statement of the arm alone, so that all others are to go on."""
    needs_root: ClassVar[bool] = False

    def prepare(self, target: PostgresTarget, stack: ExitStack) -> None:
        """Lay what it needs before the arm starts; leaving `stack` takes it away."""

    def over(self, target: PostgresTarget) -> bool:
        """Return whether a client that comes now can work."""
        return target.answers()


class Shutdown(ServerFault):
    """The server is shut down (fast mode: sessions are told 57P01), and started again on the same port."""

    name = "stop"
    summary = "shut the server down, start it again"

    def begin(self, target: PostgresTarget) -> None:
        """Shut it down."""
        target.own_server().stop("fast")

    def end(self, target: PostgresTarget) -> None:
        """Start it again."""
        target.own_server().start()


class Freeze(ServerFault):
    """All the server's processes get SIGSTOP: connections stay open, nothing answers."""

    name = "freeze"
    summary = "SIGSTOP all server processes, then SIGCONT"

    def __init__(self) -> None:
        self._frozen = False

    def begin(self, target: PostgresTarget) -> None:
        """Freeze it."""
        self._frozen = True
        target.own_server().freeze()

    def end(self, target: PostgresTarget) -> None:
        """Let it go on."""
        target.own_server().thaw()
        self._frozen = False

    def over(self, target: PostgresTarget) -> bool:
        """Return whether it goes on and answers."""
        return not self._frozen and target.answers()


class Refuse(ServerFault):
    """The way to the server is cut: live connections are reset, new ones too."""

    name = "refuse"
    summary = "reset every connection at the proxy"
    needs_own_server = False
    harness_cut_off = False

    def begin(self, target: PostgresTarget) -> None:
        """Cut what is open, refuse what comes."""
        target.proxy.mode = "refuse"
        target.proxy.cut()

    def end(self, target: PostgresTarget) -> None:
        """Let connections through."""
        target.proxy.mode = "pass"

    def over(self, target: PostgresTarget) -> bool:
        """Return whether the way is open and the server answers."""
        return target.proxy.mode == "pass" and target.answers()


class ReadOnly(ServerFault):
    """The server accepts sessions and refuses every write (25006), as a standby does after a failover."""

    name = "readonly"
    summary = "make every transaction read-only, as after a failover"

    def begin(self, target: PostgresTarget) -> None:
        """Make writing impossible."""
        self._set(target, value="on")

    def end(self, target: PostgresTarget) -> None:
        """Allow it again."""
        self._set(target, value="off")

    def over(self, target: PostgresTarget) -> bool:
        """Return whether a new session may write."""
        with contextlib.suppress(psycopg.Error), target.connect() as conn:
            return conn.execute("SHOW default_transaction_read_only").fetchone() == ("off",)
        return False

    @staticmethod
    def _set(target: PostgresTarget, *, value: str) -> None:
        target.own_server()
        with target.connect() as conn:
            if value == "on":
                conn.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            else:
                conn.execute("ALTER SYSTEM RESET default_transaction_read_only")
            # Sessions that are already open take the new default with their next transaction.
            conn.execute("SELECT pg_reload_conf()")


class KillBackends(ServerFault):
    """An administrator's script terminates every client session twice a second; new ones are let in."""

    name = "kill-backends"
    summary = "terminate every client session twice a second"
    needs_own_server = False
    harness_cut_off = False

    def sustain(self, target: PostgresTarget, until_s: float, pause: Pause, rng: Random) -> None:
        """Terminate the sessions, again and again."""
        del rng
        with target.connect() as conn:
            while (left_s := until_s - time.monotonic()) > 0:
                conn.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND backend_type = 'client backend' AND application_name <> %(name)s",
                    _HARNESS,
                )
                pause(min(KILL_EVERY_S, left_s))


class Flap(Refuse):
    """The server is reachable for 50 to 500 ms, then cut off for 0.2 to 1 s, again and again."""

    name = "flap"
    summary = "let sessions live 50 to 500 ms, then cut them, again and again"

    def sustain(self, target: PostgresTarget, until_s: float, pause: Pause, rng: Random) -> None:
        """Open the way for a moment, cut it again."""
        while (left_s := until_s - time.monotonic()) > 0:
            pause(min(left_s, rng.uniform(*FLAP_DOWN_S)))
            self.end(target)
            pause(min(max(0.0, until_s - time.monotonic()), rng.uniform(*FLAP_UP_S)))
            self.begin(target)


class RowLock(ServerFault):
    """A session of somebody else's locks the row that the ledger's loops count in, and does nothing more."""

    name = "row-lock"
    summary = "another session locks one row that four loops update"
    needs_own_server = False
    harness_cut_off = False
    one_statement = True

    def __init__(self) -> None:
        self._holder: psycopg.Connection[tuple[object, ...]] | None = None

    def begin(self, target: PostgresTarget) -> None:
        """Lock it."""
        self._holder = target.connect()
        self._holder.execute("BEGIN")
        self._holder.execute("SELECT FROM drill_total WHERE id = 1 FOR UPDATE")

    def end(self, target: PostgresTarget) -> None:
        """Let it go."""
        del target
        if self._holder is not None:
            self._holder.close()
            self._holder = None

    def over(self, target: PostgresTarget) -> bool:
        """Return whether the row is free."""
        return self._holder is None and target.answers()


class TablespaceFull(ServerFault):
    """The ledger lies in a tablespace on a small file system of its own (tmpfs), which somebody else fills."""

    name = "tablespace-full"
    summary = "fill the file system under one tablespace, and with it one table"
    harness_cut_off = False
    one_statement = True
    needs_root = True

    def __init__(self) -> None:
        self._directory: Path | None = None

    def prepare(self, target: PostgresTarget, stack: ExitStack) -> None:
        """Mount the file system and move the ledger there."""
        server = target.own_server()
        self._directory = directory = server.directory / "small"
        directory.mkdir()
        _command("mount", "-t", "tmpfs", "-o", f"size={TABLESPACE_BYTES},mode=0777", "tmpfs", str(directory))
        # The server still has files open there when the arm is taken down before it.
        stack.callback(_command, "umount", "--lazy", str(directory))
        space, owner = directory / "space", server.data.stat()
        space.mkdir()
        os.chown(space, owner.st_uid, owner.st_gid)
        with target.connect() as conn:
            conn.execute(sql.SQL("CREATE TABLESPACE small LOCATION {}").format(str(space)))
            conn.execute("ALTER TABLE drill_ledger SET TABLESPACE small")

    def begin(self, target: PostgresTarget) -> None:
        """Take all the room that is left."""
        del target
        with contextlib.suppress(OSError), self._filler().open("wb", buffering=0) as file:
            while True:
                file.write(bytes(65_536))

    def end(self, target: PostgresTarget) -> None:
        """Make room again."""
        del target
        self._filler().unlink(missing_ok=True)

    def over(self, target: PostgresTarget) -> bool:
        """Return whether there is room again."""
        return not self._filler().exists() and target.answers()

    def _filler(self) -> Path:
        if self._directory is None:
            msg = "the file system of the tablespace was not mounted before the arm started"
            raise DrillError(msg)
        return self._directory / "filler"


def _command(*words: str) -> None:
    """Run a system command; raises DrillError with what it said."""
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=COMMAND_S_MAX)
    if done.returncode:
        msg = f"{' '.join(words)!r} failed with exit code {done.returncode}: {done.stderr.strip()}"
        raise DrillError(msg)


def may_mount() -> bool:
    """Return whether this process may mount a file system for a fault that needs one."""
    return sys.platform == "linux" and os.geteuid() == 0


FAULTS: Mapping[str, type[ServerFault]] = MappingProxyType(
    {fault.name: fault for fault in (Shutdown, Freeze, Refuse, ReadOnly, KillBackends, Flap, RowLock, TablespaceFull)}
)
