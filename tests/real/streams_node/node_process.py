"""`outlast streams serve` as a process: where it listens, what it has logged, how it ended."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Self

import outlast

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ROOT = str(next(iter(outlast.__path__)).removesuffix("/outlast"))
QUIET = re.compile(r"\S+ \S+ (?:DEBUG|INFO) ")
END_S_MAX = 60.0
"""Far beyond the deadline of any stop here, for a busy machine."""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class NodeProcess:
    """A node of its own, while the `with` block runs; killed at its end if it still runs."""

    def __init__(self, *folders: Path, options: Sequence[str] = ()) -> None:
        self.folders = folders
        self._command = [sys.executable, "-m", "outlast", "streams", "serve", *map(str, folders)]
        self._command += ["--json", *options]
        self._process: subprocess.Popen[str] | None = None
        self._log = tempfile.TemporaryFile("a+", encoding="utf-8")  # noqa: SIM115 - closed by __exit__
        # To be appended to: the process and the reader of its log share the place in it.
        self.port = 0

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        process = self.process
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        self._log.close()

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it serves."""
        environment = {**os.environ, "PYTHONPATH": ROOT}
        # Its clients know the port: it has the same when it is started again.
        command = [*self._command, "--listen", f"127.0.0.1:{self.port}"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"it did not start: {self.log()}"
        said: dict[str, Any] = json.loads(line)
        self.port = said["port"]

    def kill(self) -> None:
        """End it as a power cut ends a process."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def wait(self) -> int:
        """Return its exit code when it has ended."""
        return self.process.wait(END_S_MAX)

    def log(self) -> list[str]:
        """Return the lines it has logged so far, those of processes before it on the same data too."""
        self._log.seek(0)
        return self._log.read().splitlines()

    def loud(self) -> list[str]:
        """Return the lines above INFO, and what is no line of a log."""
        return [line for line in self.log() if not QUIET.match(line)]

    def of_disks(self) -> list[str]:
        """Return the lines about a disk."""
        return [line for line in self.log() if " disk " in line]

    def outages(self) -> int:
        """Return how often it has said that a disk is down. Beside that it may have said that it still is, and nothing else."""
        loud = self.loud()
        assert all(re.search(r"disk \S+ (is|still) down", line) for line in loud), loud
        return sum("is down" in line for line in loud)
