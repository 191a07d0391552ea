"""A real PostgreSQL server for tests and drills: started in a moment, broken in every way, gone without a trace."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import TYPE_CHECKING, Final, Literal

from outlast.testing._child_server import START_S_MAX, STOP_S_MAX, ChildServer
from outlast.testing._network.ports import free_port
from outlast.testing._postgres.binaries import directories_of_process, find_postgres_bin, reachable_bin
from outlast.testing._postgres.files import ServerFiles
from outlast.testing._postgres.process_tree import children_of, signal_each
from outlast.testing._postgres.reaper import reap_server
from outlast.testing._postgres.unprivileged import account_for_server

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

POLL_S: Final = 0.005
RETRY_S: Final = 0.1
ORPHANS_S_MAX: Final = 10.0
"""Seconds for which a start is repeated because processes of a killed server still hold its memory; some 100 ms is usual."""
_SETTINGS: Final = {"fsync": "off", "authentication_timeout": "5s", "dynamic_shared_memory_type": "mmap"}
"""A client that connected and said nothing, to a frozen server for one, holds a stop up for so long; 60 s by default. What a
killed server shared with its workers goes with its directory, not left behind in /dev/shm."""
_ORPHANS: Final = ("shared memory block", "lock file", "could not bind")
"""A start that dies of what the last server left behind says one of these; in another lc_messages any death counts."""
_SIGNALS: Final = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

Mode = Literal["smart", "fast", "immediate"]


class PostgresServer(ChildServer):
    """A PostgreSQL server of one's own, on a loopback port that stays the same over restarts.

        with PostgresServer() as server:
            psycopg.connect(server.dsn())

    It trusts every local login, so it listens on 127.0.0.1 and on a socket of its own only. As root it runs as the user
    `postgres` or `nobody`. `settings` are given to it as `-c name=value`; a change holds from the next start. Crashes of the
    process lose nothing, but `fsync` is off: set it to measure what durable commits cost; `authentication_timeout` is 5 s. A
    `directory` that is given is kept, with its data, and used again. `major` asks for one of the versions that
    `find_postgres_majors` names. Start, stop and break it from one thread at a time;
    `port` and `dsn()` are for every thread.
    """

    _called = "PostgreSQL"

    def __init__(
        self,
        directory: Path | None = None,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        bin_dir: Path | None = None,
        major: int | None = None,
    ) -> None:
        """Describe it; `start` or `with` starts it. Raises `PostgresNotFoundError` where there is none to start."""
        account = account_for_server()
        self.bin_dir = reachable_bin(find_postgres_bin(bin_dir, major=major), account)
        self._files = ServerFiles(directory, account)
        self.port = port or free_port()
        self.settings: dict[str, str] = {**_SETTINGS, **(settings or {})}
        super().__init__()

    @property
    def directory(self) -> Path:
        """The directory of its data, its log and its socket."""
        return self._files.directory

    @property
    def data(self) -> Path:
        """The data directory."""
        return self._files.data

    @property
    def log(self) -> Path:
        """The file that the server writes its log to."""
        return self._files.log

    @property
    def version(self) -> str:
        """The version of the binaries, such as "15.18"."""
        out = subprocess.run([self.bin_dir / "postgres", "-V"], capture_output=True, text=True, check=True, timeout=30)
        return out.stdout.split()[2]

    def dsn(self, dbname: str = "postgres", *, port: int | None = None, user: str = "postgres") -> str:
        """Return the DSN that reaches it; with the port of a proxy, through that."""
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{dbname}"

    def start(self) -> None:
        """Start it and return when it accepts. Initialises the data directory at the first start.

        Raises `ServerFailedError` with the end of its log when it ends, or does not accept within 60 s.
        """
        if self.running:
            return
        self._files.initialise(self.bin_dir)
        self._reaper = self._reaper or reap_server(self.data, [*self._files.made(), *directories_of_process])
        began_s = time.monotonic()
        while not self._accepts_once_launched():
            said = self._files.end_of_log()
            left_behind = "lc_messages" in self.settings or any(words in said for words in _ORPHANS)
            if not left_behind or time.monotonic() - began_s > ORPHANS_S_MAX:
                self._fail(f"PostgreSQL ended while it started on port {self.port}")
            time.sleep(RETRY_S)

    def accepts(self) -> bool:
        """Return whether it would let a client in now. Dials it once, past any proxy; takes 2 s when frozen."""
        program: list[str | Path] = [self.bin_dir / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "2"]
        try:
            from psycopg import pq  # noqa: PLC0415 - twenty times cheaper where it is installed
        except ImportError:
            return subprocess.run(program, check=False, timeout=30).returncode == 0
        return pq.PGconn.ping(f"{self.dsn()}?connect_timeout=2".encode()) == pq.Ping.OK

    def stop(self, mode: Mode = "fast") -> None:
        """Stop it: "fast" ends the sessions, "smart" waits for them, "immediate" is a crash with manners."""
        self._end(_SIGNALS[mode], f" ({mode})")

    def kill(self, *, backends: bool = True) -> None:
        """Send SIGKILL to the postmaster and to all its children, as a machine that fails would.

        Without `backends` to the postmaster alone: its children notice, and end by themselves a moment later.
        """
        if self._process is None:
            return
        children: list[int] = []
        if backends:
            # One that is stopped makes no more children while they are listed.
            signal_each([self._process.pid], signal.SIGSTOP)
            children = children_of(self._process.pid)
        self._process.kill()
        signal_each(children, signal.SIGKILL)
        self._process.wait(STOP_S_MAX)
        self._process = None

    def restart(self, mode: Mode = "fast") -> None:
        """Stop and start it."""
        self.stop(mode)
        self.start()

    def freeze(self) -> None:
        """Stop the postmaster and all its children with SIGSTOP: the kernel still takes connections for them."""
        if self._process is not None and self.running:
            signal_each([self._process.pid], signal.SIGSTOP)
            signal_each(children_of(self._process.pid), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        if self._process is not None and self.running:
            signal_each([*children_of(self._process.pid), self._process.pid], signal.SIGCONT)

    def write_access_rules(self, *rules: str) -> None:
        """Replace pg_hba.conf by these lines, the first that matches wins; they hold when this returns.

        With `"host all all 127.0.0.1/32 scram-sha-256"` every login needs its password from then on.
        """
        self._files.write_access_rules(rules)
        if self._process is not None and self.running:
            seen = self._files.reloads()
            self._process.send_signal(signal.SIGHUP)
            deadline_s = time.monotonic() + STOP_S_MAX
            while self._files.reloads() == seen:
                if time.monotonic() > deadline_s:
                    self._fail("PostgreSQL did not take over new access rules")
                time.sleep(POLL_S)

    def _accepts_once_launched(self) -> bool:
        """Launch it and wait; return whether it accepts, False when it ended first."""
        deadline_s = time.monotonic() + START_S_MAX
        self._process = process = self._files.launch(self.bin_dir, self.port, self.settings)
        while process.poll() is None:
            if self._files.ready(process.pid):
                return True
            if time.monotonic() > deadline_s:
                self._fail(f"PostgreSQL did not accept on port {self.port} within {START_S_MAX:.0f} s")
            time.sleep(POLL_S)
        return False

    def _end_of_log(self) -> str:
        return self._files.end_of_log()

    def _remove_files(self) -> None:
        self._files.remove()
