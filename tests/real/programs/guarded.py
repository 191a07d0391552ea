"""Running `outlast guard` as its users do, and finding what it might leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import outlast

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_S = 60.0


def until(condition: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)


class Guarded:
    """One `outlast guard`; every process below it carries a mark in its environment."""

    def __init__(self, *words: str, **popen: Any) -> None:
        self.mark = f"OUTLAST_TEST_MARK={uuid.uuid4()}"
        name, _, value = self.mark.partition("=")
        popen = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **popen}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "outlast", "guard", *words],
            env={**os.environ, "PYTHONPATH": str(Path(outlast.__file__).parents[1]), "PYTHONUNBUFFERED": "1", name: value},
            **popen,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for pid in {*self.alive(), *([self.process.pid] if self.process.poll() is None else [])}:
            os.kill(pid, signal.SIGKILL)
        self.process.communicate(timeout=LIMIT_S)

    def alive(self) -> list[int]:
        """The processes with our mark, zombies left out."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if (
                    entry.name.isdigit()
                    and self.mark.encode() in (entry / "environ").read_bytes().split(b"\0")
                    and (entry / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
                ):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def line(self) -> str:
        """The next line on stdout."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().rstrip("\n")

    def send(self, number: int) -> None:
        """Send a signal to the guard."""
        self.process.send_signal(number)

    def finish(self, data: bytes | None = None) -> tuple[int, str, str]:
        """Wait for the end; gives (exit code, stdout, stderr)."""
        out, err = self.process.communicate(data, timeout=LIMIT_S)
        return self.process.returncode, (out or b"").decode(), (err or b"").decode()


def guard(*words: str, data: bytes | None = None) -> tuple[int, str, str]:
    """Run it to its end; gives (exit code, stdout, stderr). Fails when it leaves anything behind."""
    with Guarded(*words, **({"stdin": subprocess.PIPE} if data is not None else {})) as guarded:
        result = guarded.finish(data)
        assert guarded.alive() == []
        return result


def python(program: str) -> list[str]:
    """The words that run a Python program."""
    return ["--", sys.executable, "-c", program]
