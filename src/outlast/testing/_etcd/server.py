"""A real etcd server for tests and drills: started in a moment, broken in every way, gone without a trace."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from outlast.testing._child_server import SAID_CHARS_MAX, START_S_MAX, STOP_S_MAX, ChildServer
from outlast.testing._etcd.binaries import etcd_version, find_etcd
from outlast.testing._network.ports import free_port
from outlast.testing._postgres.unprivileged import DIRECTORY_VARIABLE
from outlast.testing._reaper import Reaper

if TYPE_CHECKING:
    from collections.abc import Mapping

ASK_S_MAX: Final = 10.0
POLL_S: Final = 0.02
LOG_BYTES_MAX: Final = 65_536
_SETTINGS: Final = {"heartbeat-interval": "20", "election-timeout": "200"}
"""A member that is alone elects itself in a fifth of a second, and not in more than one."""
_SCRIPT: Final = """
cat >/dev/null
read -r pid <"$1/etcd.pid" 2>/dev/null || pid=none
[ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$1" ] && kill -KILL "$pid"
[ -z "$2" ] || rm -rf "$2"
"""
"""A process id in a stale file may belong to somebody else by then, so the process must also work in the directory."""


class EtcdServer(ChildServer):
    """An etcd of one's own: one member, on loopback ports that stay the same over restarts.

        with EtcdServer(quota_bytes=4 * 2**20) as server:
            etcd = Etcd(server.url)

    `settings` are given to it as `--name=value`; a change, of `quota_bytes` too, holds from the next start. A `directory` that is
    given is kept, with its data, and used again. Which program it is, `find_etcd` says. Start, stop and break it from one thread
    at a time; `port` and `url` are for every thread.
    """

    _called = "etcd"

    def __init__(
        self,
        directory: Path | None = None,
        *,
        port: int | None = None,
        quota_bytes: int | None = None,
        settings: Mapping[str, str] | None = None,
        program: Path | None = None,
    ) -> None:
        """Describe it; `start` or `with` starts it. Raises `EtcdNotFoundError` where there is none to start."""
        self.program = find_etcd(program)
        self.port = port or free_port()
        self.quota_bytes = quota_bytes
        self.settings: dict[str, str] = {**_SETTINGS, **(settings or {})}
        self._peer_port = free_port()
        self._is_temporary = directory is None
        if directory is None:
            directory = Path(tempfile.mkdtemp(prefix="outlast-etcd-", dir=os.environ.get(DIRECTORY_VARIABLE)))
        self.directory = directory.resolve()
        self._token = ""
        super().__init__()

    @property
    def url(self) -> str:
        """The endpoint that reaches it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """The file that the server writes its log to."""
        return self.directory / "server.log"

    @property
    def version(self) -> str:
        """The version of the program, such as "3.4.23"."""
        return ".".join(map(str, etcd_version(self.program)))

    @property
    def pid(self) -> int | None:
        """The process id, while it lives."""
        return self._process.pid if self._process is not None and self.running else None

    def start(self) -> None:
        """Start it and return when it serves. Raises `ServerFailedError` with the end of its log after 60 s, or when it ends."""
        if self.running:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        self._reaper = self._reaper or Reaper(_SCRIPT, str(self.directory), str(self.directory) if self._is_temporary else "")
        self._process = process = self._launch()
        (self.directory / "etcd.pid").write_text(f"{process.pid}\n", encoding="ascii")
        deadline_s = time.monotonic() + START_S_MAX
        while not self.accepts(1.0):
            if process.poll() is not None:
                self._fail(f"etcd ended while it started on port {self.port}")
            if time.monotonic() > deadline_s:
                self._fail(f"etcd did not serve on port {self.port} within {START_S_MAX:.0f} s")
            time.sleep(POLL_S)

    def accepts(self, limit_s: float = 2.0) -> bool:
        """Return whether it answers. Dials it once, past any proxy; takes `limit_s` seconds when it is frozen."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=limit_s)
        try:
            connection.request("GET", "/version")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Ask its JSON gateway, past any proxy: `ask("kv/range", {"key": ...})`. Raises `OSError`, also for a refusal."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ASK_S_MAX)
        try:
            connection.request("POST", f"/v3/{path}", json.dumps(body), {"authorization": self._token} if self._token else {})
            answer = connection.getresponse()
            told = answer.read()
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            msg = f"etcd answered {answer.status} to {path}: {told.decode(errors='replace')[:SAID_CHARS_MAX]}"
            raise OSError(msg)
        found: dict[str, Any] = json.loads(told)
        return found

    def require_login(self, user: str, password: str) -> None:
        """Let nobody in any more but `root` and this user, who has every right. Both have this password."""
        for name in {"root", user}:
            self.ask("auth/user/add", {"name": name, "password": password})
            self.ask("auth/user/grant", {"user": name, "role": "root"})
        self.ask("auth/enable", {})
        self._token = self.ask("auth/authenticate", {"name": "root", "password": password})["token"]

    def stop(self) -> None:
        """Stop it in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, as a machine that fails would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_S_MAX)
            self._process = None

    def restart(self) -> None:
        """Stop and start it, on the same data."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop it with SIGSTOP: the kernel still takes connections for it."""
        if self.running and self._process is not None:
            self._process.send_signal(signal.SIGSTOP)
            # Its threads stop one after another; this returns when all of them have.
            os.waitpid(self._process.pid, os.WUNTRACED)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        if self.running and self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def _launch(self) -> subprocess.Popen[bytes]:
        peer = f"http://127.0.0.1:{self._peer_port}"
        options = {
            "name": "one",
            "data-dir": str(self.directory / "data"),
            "listen-client-urls": self.url,
            "advertise-client-urls": self.url,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"one={peer}",
            **({"quota-backend-bytes": str(self.quota_bytes)} if self.quota_bytes is not None else {}),
            **self.settings,
        }
        # What the tester's environment says is for the tester's own server; but on some machines it does not start without this.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ETCD_") or "UNSUPPORTED_ARCH" in name}
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [self.program, *(f"--{name}={value}" for name, value in options.items())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A group of its own, so that Ctrl-C at the terminal strikes us and not the server.
                process_group=0,
                env=kept,
                cwd=self.directory,
            )

    def _end_of_log(self) -> str:
        log = self.log.read_bytes()[-LOG_BYTES_MAX:].decode(errors="replace") if self.log.exists() else ""
        # To what it does not understand it answers with all that it does.
        return log.partition("\nUsage:")[0][-SAID_CHARS_MAX:]

    def _remove_files(self) -> None:
        if self._is_temporary:
            shutil.rmtree(self.directory, ignore_errors=True)
