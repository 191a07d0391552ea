"""A server of tables as a process, collectors that write to it over HTTP, and what they were told against what its store has."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import outlast
from outlast._drill.greptime.arms.metrics_server import MetricsSettings
from outlast._drill.greptime.http.client import LOST, HttpClient
from outlast._drill.greptime.http.collectors import Collectors, lost, twice
from outlast._drill.greptime.http.points import stored_points
from outlast.testing import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from outlast._drill.greptime.http.collectors import Sent

ROOT = str(Path(next(iter(outlast.__path__))).parent)
STORED, LATER = 204, 503
LINES_MAX = 6
END_S_MAX = 60.0
"""Far beyond the deadline of any stop here, for a busy machine."""


class TablesProcess:
    """A server of its own, while the `with` block runs; killed at its end if it still runs. It may be started again."""

    def __init__(self, place: str, state: Path) -> None:
        """Keep tables in `place`, a path or a DSN; `state` is a folder for the rest."""
        self.place = place
        self.address = f"127.0.0.1:{free_port()}"
        self._settings = MetricsSettings(self.address, place, str(state))
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile("a+", encoding="utf-8")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
        self._log.close()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def start(self) -> None:
        """Start it. Clients find it a moment later."""
        command = [sys.executable, "-m", "outlast._drill.greptime.arms.outlast_http"]
        environment = {**os.environ, **self._settings.as_environment(), "PYTHONPATH": ROOT}
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log, env=environment)

    def kill(self) -> None:
        """End it as a power cut ends a process."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """Send SIGTERM; return its exit code when it has ended."""
        self.process.terminate()
        return self.process.wait(END_S_MAX)

    def log(self) -> list[str]:
        """Return the lines it has logged so far, those of processes before it on the same store too."""
        self._log.seek(0)
        return self._log.read().splitlines()


@contextlib.asynccontextmanager
async def collecting(server: TablesProcess, *, tables: int, points: int, every_s: float) -> AsyncIterator[Collectors]:
    """Let a collector write to each table while the block runs; it has begun when each has stored a body."""
    client = HttpClient(server.address, limit_s=60.0)
    # They come back soon, so that what is told to each is seen often, and how soon the server goes on.
    collectors = Collectors(client, wait_s_max=0.1)
    names = [f"table_{number}" for number in range(tables)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(collectors.collect(name, points, every_s=every_s)) for name in names]
        try:
            await until(lambda: {sent.table for sent in collectors.sent if sent.is_stored} == {*names}, collectors)
            yield collectors
        finally:
            for task in tasks:
                task.cancel()
            client.close()


async def until(condition: Callable[[], object], collectors: Collectors) -> None:
    """Wait until it holds; the limit ends a wait that would be in vain, and says what was answered last."""
    deadline_s = time.monotonic() + END_S_MAX
    while not condition():
        assert time.monotonic() < deadline_s, collectors.sent[-3:]
        await asyncio.sleep(0.01)


async def all_go_on(collectors: Collectors) -> None:
    """Wait until each collector has stored a body that it sent from now on."""
    now_s, names = time.monotonic(), {sent.table for sent in collectors.sent}
    await until(lambda: {each.table for each in since(collectors, now_s) if each.is_stored} == names, collectors)


def since(collectors: Collectors, from_s: float, until_s: float = float("inf")) -> list[Sent]:
    """Return what was sent in that time and answered."""
    return [sent for sent in collectors.sent if from_s <= sent.sent_s < until_s]


def typed(sent: list[Sent]) -> None:
    """Check that what was answered and not stored was refused as what may be sent again, with the time to do so.

    A server that stops names no time: it does not know when there will be another one.
    """
    for each in sent:
        if not each.is_stored and each.status != LOST:
            assert each.status == LATER, each
            assert each.retry_after_s or b'"code":"stopping"' in each.body, each


def nothing_lost(collectors: Collectors, server: TablesProcess) -> None:
    """Check that all that was acknowledged is there, once."""
    stored = stored_points(server.place)
    assert lost(collectors.sent, stored) == {}
    assert list(twice(stored)) == []
