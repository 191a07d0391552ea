"""A service under test as a child process: its output counted, its processor time and memory sampled."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KEPT_LINES = 200
"""Lines of output kept from each end: enough to read what happened, bounded whatever the storm."""

KEPT_LINE_CHARS = 400
_READ_BYTES = 1 << 16
_MERGE_S = 0.02
"""Reads closer together than this are kept as one count: at most 50 entries a second of output."""


@dataclass(slots=True)
class OutputCount:
    """Lines and bytes read at about one moment."""

    at_s: float
    lines: int
    size: int


class OutputCounter:
    """Counts every line and byte of a pipe with the time it was read; keeps only the first and last lines."""

    def __init__(self) -> None:
        self.counts: list[OutputCount] = []
        self.lines_total = 0
        self.first: list[str] = []
        self.last: deque[str] = deque(maxlen=KEPT_LINES)
        self._rest = b""

    def feed(self, data: bytes, now: float) -> None:
        """Count a chunk read at `now` (monotonic seconds)."""
        lines = data.count(b"\n")
        self.lines_total += lines
        if self.counts and now - self.counts[-1].at_s < _MERGE_S:
            self.counts[-1].lines += lines
            self.counts[-1].size += len(data)
        else:
            self.counts.append(OutputCount(now, lines, len(data)))
        *whole, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:KEPT_LINE_CHARS]
        self._keep(whole)

    def _keep(self, lines: list[bytes]) -> None:
        room = KEPT_LINES - len(self.first)
        if room > 0:
            self.first.extend(_readable(line) for line in lines[:room])
            lines = lines[room:]
        # Only the tail of a large chunk can survive in `last`: the others are not even decoded.
        self.last.extend(_readable(line) for line in lines[-KEPT_LINES:])

    def between(self, from_s: float, until_s: float) -> tuple[int, int]:
        """Return the (lines, bytes) read in [from_s, until_s)."""
        inside = [count for count in list(self.counts) if from_s <= count.at_s < until_s]
        return sum(count.lines for count in inside), sum(count.size for count in inside)


def _readable(line: bytes) -> str:
    return line[:KEPT_LINE_CHARS].decode(errors="replace")


class ServiceProcess:
    """A child process of the drill, in its own process group, with stdout and stderr on one counted pipe.

    Use as a context manager: leaving it kills the group when the child still runs.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start `command` with `environment` added to our own."""
        self.output = OutputCounter()
        self.rss_bytes = 0
        """Memory in use when it was last sampled."""
        self.rss_peak_bytes = 0
        self.killed = False
        """Whether `kill` ended it."""
        self.started_at_s = time.monotonic()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        self._watched = psutil.Process(self._process.pid)
        self.ended_at_s: float | None = None
        """When it was first seen to have ended, by `sample`."""
        self._cpu_s = 0.0
        self._write_calls = 0
        self._reader = threading.Thread(target=self._read, name="drill-output", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number when a signal ended it."""
        return self._process.poll()

    def _read(self) -> None:
        pipe = self._process.stdout
        if pipe is None:
            return
        while data := os.read(pipe.fileno(), _READ_BYTES):
            self.output.feed(data, time.monotonic())

    def sample(self) -> float:
        """Return the processor seconds used so far, and record the memory in use. After the end: the last value seen."""
        if self.ended_at_s is None and self._process.poll() is not None:
            self.ended_at_s = time.monotonic()
        with contextlib.suppress(psutil.Error):
            times = self._watched.cpu_times()
            rss = self._watched.memory_info().rss
            # A zombie reports no memory and, on some systems, no time: only growth is believed.
            self._cpu_s = max(self._cpu_s, times.user + times.system)
            self.rss_bytes, self.rss_peak_bytes = rss, max(self.rss_peak_bytes, rss)
        return self._cpu_s

    def write_calls(self) -> int:
        """Return the write calls made so far, as the kernel counts them (Linux). After the end: the last count seen."""
        with contextlib.suppress(psutil.Error):
            self._write_calls = max(self._write_calls, self._watched.io_counters().write_count)
        return self._write_calls

    def stop(self, limit_s: float) -> tuple[int | None, float]:
        """Send SIGTERM, then SIGKILL after `limit_s`; return (exit code, seconds it took)."""
        began = time.monotonic()
        self.sample()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self._kill_group()
            self._process.wait()
        took_s = time.monotonic() - began
        self._reader.join(timeout=5.0)
        return self._process.returncode, took_s

    def kill(self) -> None:
        """Send SIGKILL, as a machine that fails would; return when it is gone."""
        self.sample()
        self.killed = True
        self._kill_group()
        self._process.wait()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process.poll() is None:
            self._kill_group()
            self._process.wait()
        self._reader.join(timeout=5.0)
        if self._process.stdout is not None:
            self._process.stdout.close()
