"""The directory of a server under test: its data, its log, its socket, and how a server is started on them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

from outlast.testing._child_server import SAID_CHARS_MAX, ServerFailedError
from outlast.testing._postgres.unprivileged import Account, UnprivilegedError, fresh_directory, hand_over

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

INITDB_S_MAX: Final = 120.0
_SOCKET_PATH_BYTES_MAX: Final = 103
"""sun_path of a Unix socket: 108 bytes on Linux, 104 elsewhere, less the closing zero."""
_READY_LINE: Final = 7
"""The line of postmaster.pid with the state, counted from 0; pg_ctl reads it too."""
_SHARED_MEMORY_LINE: Final = 6
"""The line with the key and the id of its System V shared memory."""
_IPC_RMID: Final = 0
"""Of sys/ipc.h."""
_RELOADED: Final = b"received SIGHUP"


class ServerFiles:
    """The directories and files of one server, and the account that owns them."""

    def __init__(self, directory: Path | None, account: Account | None) -> None:
        """Make a directory of our own, or take the given one. Raises UnprivilegedError when the account cannot reach it."""
        self.account = account
        self.temporary = directory is None
        self._socket_directory: Path | None = None
        if directory is None:
            self.directory = fresh_directory(account, "outlast-pg-")
            return
        self.directory = directory.absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        if account is not None and not account.may_traverse(self.directory / "data"):
            msg = (
                f"the server runs as the user {account.name}, who cannot enter {self.directory}; "
                "choose another directory, or open this one and those above it (chmod o+x)"
            )
            raise UnprivilegedError(msg)

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    @property
    def log(self) -> Path:
        """The file that the server writes its log to."""
        return self.directory / "server.log"

    def initialise(self, bin_dir: Path) -> None:
        """Make the data directory, unless there is one. Raises ServerFailedError."""
        if (self.data / "PG_VERSION").exists():
            return
        self.data.mkdir(mode=0o700, exist_ok=True)
        hand_over(self.data, self.account)
        program: list[str | Path] = [
            bin_dir / "initdb",
            "-D",
            self.data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-N",
            "-E",
            "UTF8",
            "--locale=C",
        ]
        done = subprocess.run(
            program,
            capture_output=True,
            text=True,
            check=False,
            timeout=INITDB_S_MAX,
            env=_environment(),
            # A program must not start in a directory that its account cannot enter.
            cwd=self.data,
            user=self._user,
            group=self._group,
            extra_groups=self._groups,
        )
        if done.returncode != 0:
            msg = f"initdb failed in {self.directory}: {done.stderr.strip()[-SAID_CHARS_MAX:]}"
            raise ServerFailedError(msg)

    def launch(self, bin_dir: Path, port: int, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a server on these files."""
        merged = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self._sockets(port)),
            "wal_level": "logical",
            **settings,
        }
        options = [part for name, value in merged.items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [bin_dir / "postgres", "-D", self.data, "-p", str(port), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A group of its own, so that Ctrl-C at the terminal strikes us and not the server.
                process_group=0,
                env=_environment(),
                cwd=self.data,
                user=self._user,
                group=self._group,
                extra_groups=self._groups,
            )

    def ready(self, pid: int) -> bool:
        """Return whether the server with that process id says that it accepts connections.

        Its own word needs no connection, which would show in its log, and cannot be another server's on the same port.
        """
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        return len(lines) > _READY_LINE and lines[0] == str(pid) and lines[_READY_LINE].strip() == "ready"

    def write_access_rules(self, rules: Iterable[str]) -> None:
        """Replace pg_hba.conf."""
        (self.data / "pg_hba.conf").write_text("".join(f"{rule}\n" for rule in rules), encoding="utf-8")

    def reloads(self) -> int:
        """Return how often the server has read its configuration again, by its log."""
        return self.log.read_bytes().count(_RELOADED) if self.log.exists() else 0

    def end_of_log(self) -> str:
        """Return the last 500 bytes of the log."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - SAID_CHARS_MAX))
            return log.read().decode(errors="replace")

    def made(self) -> list[Path]:
        """Return the directories that this object has made and has to remove."""
        return [path for path in (self.directory if self.temporary else None, self._socket_directory) if path is not None]

    def remove(self) -> None:
        """Remove the directories that this object has made; a given one stays."""
        if self.temporary:
            self._remove_shared_memory()
        for directory in self.made():
            shutil.rmtree(directory, ignore_errors=True)

    def _remove_shared_memory(self) -> None:
        """Remove the segment that a server which was killed leaves behind: its next start would, and there is none.

        Each is of 56 bytes only, but the kernel has no more than 4,096 of them: then no server starts any more.
        """
        try:
            segment = int((self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[_SHARED_MEMORY_LINE].split()[1])
        except (OSError, ValueError, IndexError):
            # It stopped in good order, and has seen to that itself.
            return
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).shmctl(segment, _IPC_RMID, None)

    def _sockets(self, port: int) -> Path:
        if len(os.fsencode(self.directory / f".s.PGSQL.{port}")) <= _SOCKET_PATH_BYTES_MAX and (
            self.account is None or self.account.may(self.directory, 3)
        ):
            return self.directory
        if self._socket_directory is None:
            self._socket_directory = fresh_directory(self.account, "outlast-pg-")
        return self._socket_directory

    @property
    def _user(self) -> int | None:
        return self.account.uid if self.account else None

    @property
    def _group(self) -> int | None:
        return self.account.gid if self.account else None

    @property
    def _groups(self) -> list[int] | None:
        return sorted(self.account.groups) if self.account else None


def _environment() -> dict[str, str]:
    """Return our environment without PGDATA, PGPORT and their like: they are meant for the tester's own server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
