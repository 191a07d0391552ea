"""The work log: the one thing an arm writes for the harness, a line when a job starts and a line when it ends.

Lines are short, written with one unbuffered `write` on a descriptor opened O_APPEND, so they are whole and in order
even when the process is killed between two of them. Times are the monotonic clock, which all processes of one
machine share on Linux and macOS.
"""

from __future__ import annotations

import os
import time
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType


STREAM_LOOP = -1
"""The loop under which the changes that a stream received stand; the loops that do jobs count from 0."""


class Step(Enum):
    """The end of a job that a line stands for."""

    START = "start"
    END = "end"


class WorkRecord(NamedTuple):
    """One line of the work log."""

    arm: str
    loop: int
    job: int
    step: Step
    at_ns: int


class WorkLog:
    """The arm's end: appends a line at once, and never buffers."""

    def __init__(self, path: Path, arm: str) -> None:
        """Open `path` for appending, creating it when it is missing."""
        self._arm = arm
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def start(self, loop: int, job: int) -> None:
        """Record that `loop` begins to work on `job`."""
        self._append(loop, job, "start")

    def end(self, loop: int, job: int) -> None:
        """Record that `loop` has done the work of `job`; its result is not recorded yet."""
        self._append(loop, job, "end")

    def _append(self, loop: int, job: int, step: str) -> None:
        os.write(self._descriptor, f"{self._arm} {loop} {job} {step} {time.monotonic_ns()}\n".encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def parse_line(line: str) -> WorkRecord:
    """Read one line; raises ValueError naming the line when it is not of the log's shape."""
    try:
        arm, loop, job, step, at_ns = line.split()
        return WorkRecord(arm, int(loop), int(job), Step(step), int(at_ns))
    except ValueError as exc:
        msg = f"work log line {line[:100]!r} is not 'arm loop job start|end nanoseconds'"
        raise ValueError(msg) from exc


class WorkLogReader:
    """The harness's end: reads what was appended since the last call, and keeps an unfinished last line for later."""

    def __init__(self, path: Path) -> None:
        """Read from `path`, which need not exist yet."""
        self._path = path
        self._offset = 0
        self._rest = b""

    def read_new(self) -> Iterator[WorkRecord]:
        """Yield the records appended since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield parse_line(line.decode())
