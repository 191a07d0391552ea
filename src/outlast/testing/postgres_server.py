"""A real PostgreSQL server for tests and drills: started in a moment, broken in every way, gone without a trace."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from outlast.core.faults import OutlastError
from outlast.testing.ports import free_port
from outlast.testing.postgres_binaries import find_postgres_bin, reachable_bin
from outlast.testing.process_tree import children_of, signal_each
from outlast.testing.unprivileged import account_for_server, fresh_directory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

START_S_MAX: Final = 60.0
STOP_S_MAX: Final = 60.0
POLL_S: Final = 0.005
_STARTS: Final = 40
"""After a kill the orphaned backends hold the shared memory for some 100 ms, and the next start dies at once."""
_SIGNALS: Final = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

Mode = Literal["smart", "fast", "immediate"]


class ServerFailedError(OutlastError):
    """PostgreSQL could not be initialised, started or stopped; the message ends with what it said itself."""


class PostgresServer:
    """A PostgreSQL server of one's own, on a loopback port that stays the same over restarts.

        with PostgresServer() as server:
            psycopg.connect(server.dsn())

    It trusts every local login, so it listens on 127.0.0.1 and on a socket in its own directory only. As root it runs as the user
    `postgres` or `nobody`. `settings` are given to it as `-c name=value`. Methods are not safe for several threads at once.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        bin_dir: Path | None = None,
    ) -> None:
        """Describe it; `start` or `with` starts it. Raises `PostgresNotFoundError` where there is none to start."""
        self._account = account_for_server()
        self.bin_dir = reachable_bin(find_postgres_bin(bin_dir), self._account)
        self._own_directory = directory is None
        self.directory = directory or fresh_directory(self._account, "outlast-pg-")
        self.port = port or free_port()
        self.settings = {"fsync": "off", **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        atexit.register(self._at_exit)

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove it."""
        self.remove()

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    @property
    def log(self) -> Path:
        """What the server writes."""
        return self.directory / "server.log"

    @property
    def version(self) -> str:
        """The version of the binaries, such as "15.18"."""
        out = subprocess.run([self.bin_dir / "postgres", "-V"], capture_output=True, text=True, check=True, timeout=30)
        return out.stdout.split()[2]

    @property
    def running(self) -> bool:
        """Whether the postmaster lives."""
        return self._process is not None and self._process.poll() is None

    def dsn(self, dbname: str = "postgres", *, port: int | None = None, user: str = "postgres") -> str:
        """How to reach it; give the port of a proxy to go through that."""
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{dbname}"

    def start(self) -> None:
        """Start it and return when it accepts. Initialises the data directory at the first start."""
        if self.running:
            return
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        deadline = time.monotonic() + START_S_MAX
        for _ in range(_STARTS):
            self._process = self._launch()
            while self._process.poll() is None:
                if self.accepts():
                    return
                if time.monotonic() > deadline:
                    self._fail(f"PostgreSQL did not accept on port {self.port} within {START_S_MAX:.0f} s")
                time.sleep(POLL_S)
            time.sleep(0.1)
        self._fail(f"PostgreSQL ended {_STARTS} times while starting on port {self.port}")

    def accepts(self) -> bool:
        """Whether it would let a client in now. Dials it once: do not ask through a counting proxy."""
        program = [self.bin_dir / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "1"]
        try:
            from psycopg import pq  # noqa: PLC0415 - twenty times cheaper where it is installed
        except ImportError:
            return subprocess.run(program, check=False, timeout=30).returncode == 0
        return pq.PGconn.ping(f"{self.dsn()}?connect_timeout=2".encode()) == pq.Ping.OK

    def stop(self, mode: Mode = "fast") -> None:
        """Stop it: "fast" ends the sessions, "smart" waits for them, "immediate" is a crash with manners."""
        if self._process is None:
            return
        self.thaw()
        if self.running:
            self._process.send_signal(_SIGNALS[mode])
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._fail(f"PostgreSQL did not stop ({mode}) within {STOP_S_MAX:.0f} s")
        self._process = None

    def kill(self) -> None:
        """Send SIGKILL to the postmaster and to all its children, as a machine that fails would."""
        if self._process is None:
            return
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
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._signal_all(signal.SIGCONT)

    def remove(self) -> None:
        """End it at once and remove its files."""
        self.kill()
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self._at_exit)

    def _signal_all(self, number: signal.Signals) -> None:
        if self._process is not None and self.running:
            # The postmaster first, so that it makes no more children, and last when it goes on.
            signal_each([self._process.pid, *children_of(self._process.pid)], number)

    def _initialise(self) -> None:
        program = [self.bin_dir / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8"]
        done = subprocess.run(
            [*program, "--locale=C"], capture_output=True, text=True, check=False, timeout=120, **self._as_account()
        )
        if done.returncode != 0:
            msg = f"initdb failed in {self.directory}: {done.stderr.strip()[-500:]}"
            raise ServerFailedError(msg)

    def _launch(self) -> subprocess.Popen[bytes]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.directory),
            "wal_level": "logical",
            **self.settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [self.bin_dir / "postgres", "-D", self.data, "-p", str(self.port), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A group of its own, so that Ctrl-C at the terminal strikes us and not the server.
                process_group=0,
                **self._as_account(),
            )

    def _as_account(self) -> dict[str, Any]:
        if self._account is None:
            return {}
        # The server must not start in a directory that its account cannot enter.
        groups = sorted(self._account.groups)
        return {"user": self._account.uid, "group": self._account.gid, "extra_groups": groups, "cwd": self.directory}

    def _fail(self, what: str) -> None:
        said = self.log.read_text(encoding="utf-8", errors="replace")[-500:] if self.log.exists() else ""
        self.kill()
        msg = f"{what}; its log ends: {said.strip()}"
        raise ServerFailedError(msg)

    def _at_exit(self) -> None:
        if os.getpid() == self._owner:
            self.remove()
