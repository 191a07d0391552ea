"""An etcd of one arm, started in a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from outlast._drill.lab.errors import DrillSkipped
from outlast.testing import free_port

if TYPE_CHECKING:
    from types import TracebackType

_START_S_MAX: Final = 20.0


class EtcdServer:
    """A context manager: launches it, and ends it."""

    def __init__(self, *, quota_bytes: int) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._quota_bytes = quota_bytes
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        program = shutil.which("etcd")
        if program is None:
            msg = "there is no program etcd on this machine's PATH"
            raise DrillSkipped(msg)
        self._folder = tempfile.TemporaryDirectory(prefix="outlast-etcd-")
        peer = f"http://127.0.0.1:{free_port()}"
        words = {
            "data-dir": str(Path(self._folder.name) / "data"),
            "listen-client-urls": self.url,
            "advertise-client-urls": self.url,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "quota-backend-bytes": str(self._quota_bytes),
        }
        command = [program, *(f"--{name}={value}" for name, value in words.items())]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline_s = time.monotonic() + _START_S_MAX
        while not self._answers():
            if time.monotonic() > deadline_s or self._process.poll() is not None:
                self.__exit__(None, None, None)
                msg = f"etcd did not answer on {self.url} within {_START_S_MAX:g} s"
                raise DrillSkipped(msg)
            time.sleep(0.05)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._folder is not None:
            self._folder.cleanup()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=1.0) as answer:  # noqa: S310  our own server
                return b"true" in answer.read()
        except (urllib.error.URLError, OSError):
            return False
