"""Nobody reads standard error: the work goes on, the process ends when it should, and what was lost is told exactly."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
LIMIT_S = 60.0
PIPE_BYTES = 4096
ALWAYS = 10**9
TARGET = "unread_shop:service"


class Unread:
    """`outlast up` of the shop; its standard error, and its standard output, are a small pipe that is not read."""

    def __init__(self, count: Path, *options: str, units: int = ALWAYS, target: str = TARGET, **env: str) -> None:
        count.write_bytes(b"0")
        self.count = count
        self._read, write = os.pipe()
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        os.write(write, bytes(int(env.get("FILL", "0"))))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "outlast", "up", target, "--no-fold-logs", *options],
            cwd=HERE,
            env={**os.environ, "COUNT": str(count), "UNITS": str(units), **env},
            stdout=write,
            stderr=write,
        )
        os.close(write)

    def units(self) -> int:
        """How many units it has done."""
        return int(self.count.read_bytes() or b"0")

    def until(self, units: int) -> int:
        """Wait until it has done so many units, and return how many it has; no test of how quickly."""
        over_at = time.monotonic() + LIMIT_S
        while (done := self.units()) < units:
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < over_at, f"only {done} of {units} units"
            time.sleep(0.01)
        return done

    def end(self, *numbers: signal.Signals) -> int:
        """Send signals; return the exit code."""
        for number in numbers:
            self.process.send_signal(number)
        return self.process.wait(LIMIT_S)

    def until_full(self) -> None:
        """Wait until nothing more goes into the pipe, which has no room for another line."""
        over_at, held, before = time.monotonic() + LIMIT_S, 0, -1
        while held < PIPE_BYTES / 2 or held != before:
            assert time.monotonic() < over_at
            time.sleep(1.0)
            before, held = held, int.from_bytes(fcntl.ioctl(self._read, termios.FIONREAD, bytes(4)), sys.byteorder)

    def text(self, then: Callable[[str], object] = lambda line: None) -> list[str]:
        """Read it all, to the end; `then` is called with each line as it comes."""
        lines: list[str] = []
        with os.fdopen(os.dup(self._read)) as stream:
            for line in stream:
                lines.append(line.rstrip("\n"))
                then(line)
        return lines

    def close(self) -> None:
        """Let go, whatever the test has met."""
        self.process.kill()
        self.process.wait()
        os.close(self._read)


@pytest.fixture
def unread(tmp_path: Path) -> Iterator[type[Unread]]:
    """Make one of these; it is ended after the test."""
    made: list[Unread] = []

    class Made(Unread):
        def __init__(self, *options: str, units: int = ALWAYS, target: str = TARGET, **env: str) -> None:
            super().__init__(tmp_path / "count", *options, units=units, target=target, **env)  # type: ignore[arg-type,misc]
            made.append(self)

    yield Made
    for each in made:
        each.close()


FORMATS = pytest.mark.parametrize("options", [(), ("--log-format", "json")], ids=["text", "json"])
FULL = 300
"""Units whose lines are many times what the pipe holds."""


@pytest.mark.short
@FORMATS
def test_the_work_goes_on_and_sigterm_ends_it_with_its_own_code(options: tuple[str, ...], unread: type[Unread]) -> None:
    shop = unread(*options, HOOK="1")
    shop.until(shop.until(FULL) + FULL)
    assert shop.end(signal.SIGTERM) == 0
    assert shop.count.read_bytes() == b"the hook has run", "the interpreter has ended as it always does"


@FORMATS
def test_sigquit_ends_it(options: tuple[str, ...], unread: type[Unread]) -> None:
    shop = unread(*options)
    shop.until(FULL)
    assert shop.end(signal.SIGQUIT) == 131


def test_a_second_signal_while_it_waits_for_its_reader_at_the_end_changes_nothing(unread: type[Unread]) -> None:
    shop = unread()
    shop.until(FULL)
    shop.process.send_signal(signal.SIGTERM)
    done = -1
    while done != (done := shop.units()):
        time.sleep(0.3)
    assert shop.end(signal.SIGINT, signal.SIGTERM) == 0


@FORMATS
def test_who_reads_again_is_told_exactly_what_was_lost_and_that_is_progress(
    options: tuple[str, ...], unread: type[Unread]
) -> None:
    units = 12_000
    shop = unread(*options, units=units)
    shop.until(units)
    lines = shop.text(lambda line: shop.process.send_signal(signal.SIGTERM) if "log lines" in line else None)
    assert shop.process.wait(LIMIT_S) == 0
    if options:
        found = [json.loads(line) for line in lines]
        messages = [f"{entry['level']} {entry['logger']}: {entry['message']}" for entry in found]
        gaps = [entry["outlast.lost_levels"] for entry in found if "outlast.lost_levels" in entry]
        told = sum(gap["INFO"] for gap in gaps)
        assert [set(gap) for gap in gaps] == [{"INFO"}] * len(gaps)
    else:
        messages = [re.sub(r"^\S+ \S+ ", "", line) for line in lines]
        gaps = [line for line in messages if "log lines" in line]
        told = sum(int(re.search(r"; (\d+) INFO\) lost in", line)[1]) for line in gaps)  # type: ignore[index]
    slow = [message for message in messages if message.startswith("WARNING shop: slow unit ")]
    assert slow == [f"WARNING shop: slow unit {number}" for number in range(10, units + 1, 10)], "no warning was lost"
    numbers = [int(message.removeprefix("INFO shop: unit ")) for message in messages if message.startswith("INFO shop: unit ")]
    assert numbers == sorted(numbers)
    # The lines of the runtime itself are not among them: they come before the pipe is full, and when it is read again.
    assert told == units - len(numbers) > 0
    assert "INFO outlast: shop stopped in" in messages[-1]


@pytest.mark.parametrize("command", ["nosuch:service", "unread_shop:log"])
def test_a_mistake_is_no_reason_to_wait_for_a_reader(command: str, unread: type[Unread]) -> None:
    assert unread(target=command, FILL=str(PIPE_BYTES)).end() == 78


def test_a_log_of_the_modules_own_that_blocks_does_not_keep_the_last_resort(unread: type[Unread]) -> None:
    shop = unread(BASIC="1")
    shop.until_full()
    assert shop.end(signal.SIGTERM) == 75, "the main thread stands in a write"


def test_a_log_of_the_modules_own_that_blocks_does_not_keep_sigquit(unread: type[Unread]) -> None:
    shop = unread(BASIC="1")
    shop.until_full()
    assert shop.end(signal.SIGQUIT) == 131


def test_a_print_that_blocks_does_not_keep_the_last_resort(unread: type[Unread]) -> None:
    shop = unread(PRINTS="1", PYTHONUNBUFFERED="1")
    shop.until_full()
    assert shop.end(signal.SIGTERM) == 75
