"""kill -9 at random while the disk is full, and starts while it is still full."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from small_disks import MIB, NOTHING_WRONG, compared, small_disk
from streams_ledger import Attempt, Ledger

import outlast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast.testing import DiskKind, SmallDisk

pytestmark = pytest.mark.expected_logs(r"disk .* is (down|unavailable)")

HERE = Path(__file__).parent
PATHS = os.pathsep.join(str(path) for path in (HERE, Path(outlast.__file__).parents[1]))
CLIENTS = tuple(f"p{number}" for number in range(4))


class Listener:
    """Keeps the accounts of a program that tells its answers on a pipe, also of what it told before it was killed."""

    def __init__(self, ledger: Ledger, process: subprocess.Popen[bytes]) -> None:
        self.ledger = ledger
        self.process = process
        self.heard = 0
        self.refused = 0
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if not line.endswith(b"\n"):
                break
            sign, producer, *numbers = line.decode().split()
            sequence, number, position = map(int, numbers)
            attempt = Attempt(producer, sequence, number)
            if sign == "+":
                self.ledger.answered(attempt, position)
                self.heard += 1
            elif sign == "-":
                self.ledger.was_refused(attempt)
                self.refused += 1
            else:
                self.ledger.unknown.add(attempt)

    def wait_for(self, name: str, more: int) -> None:
        """Wait until it has told so many more answers of a kind."""
        wanted, deadline_s = getattr(self, name) + more, time.monotonic() + 60
        while getattr(self, name) < wanted:
            assert self.process.poll() is None, "it ended by itself"
            assert time.monotonic() < deadline_s, f"it told {getattr(self, name)} of {wanted} {name}"
            time.sleep(0.002)

    def end(self) -> None:
        """Hear the rest."""
        self._thread.join()


@contextlib.contextmanager
def store(folder: Path, ledger: Ledger) -> Iterator[Listener]:
    """Run the program until the end of the block, where it is killed."""
    command = [sys.executable, str(HERE / "killed_store.py"), str(folder), json.dumps(next_attempts(ledger))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": PATHS}) as process:
        listener = Listener(ledger, process)
        try:
            yield listener
        finally:
            process.kill()
            listener.end()
            # One of each client was on its way, or would have been the next.
            ledger.unknown.update(Attempt(name, *numbers) for name, numbers in next_attempts(ledger).items())


def next_attempts(ledger: Ledger) -> dict[str, tuple[int, int]]:
    """Return the attempt of each client that was on its way, or that would have been the next."""
    found = {}
    for name in CLIENTS:
        sequence = max((each.sequence + 1 for each in ledger.acknowledged if each.producer == name), default=0)
        refused = [each.number for each in ledger.refused if (each.producer, each.sequence) == (name, sequence)]
        unknown = [each.number for each in ledger.unknown if (each.producer, each.sequence) == (name, sequence)]
        found[name] = (sequence, max(unknown, default=max(refused, default=-1) + 1))
    return found


def digest(volume: Path) -> dict[str, str]:
    """Return what every file of the streams holds. The file beside them that is locked notes when the store was in use."""
    folder = volume / "streams"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
@pytest.mark.parametrize(("rounds", "seed"), [(3, 12), pytest.param(50, 1, marks=pytest.mark.long)])
@pytest.mark.timeout(600)
def test_a_store_that_is_killed_while_its_disk_is_full_has_all_that_it_acknowledged(
    rounds: int, seed: int, kind: DiskKind
) -> None:
    rng, ledger = random.Random(seed), Ledger()
    with small_disk(32 * MIB, kind) as disk:
        for number in range(rounds):
            one_round(disk, ledger, rng, number)
    assert len(ledger.acknowledged) > rounds * 4
    assert ledger.refused


def one_round(disk: SmallDisk, ledger: Ledger, rng: random.Random, number: int) -> None:
    # Room for some: the rest is the neighbour's. Each round leaves a little less of the disk.
    disk.fill(leave_bytes=10 * MIB - number % 8 * MIB // 4)
    with store(disk.path, ledger) as running:
        running.wait_for("heard", rng.randrange(4, 300))
        disk.fill(leave_bytes=rng.choice([0, 0, MIB, 3 * MIB]))
        if rng.random() < 0.6:
            running.wait_for("refused", rng.randrange(1, 20))
        time.sleep(rng.random() * 0.02)
    disk.fill(leave_bytes=0)
    # A start, and a second one, while it is full.
    assert asyncio.run(compared(disk.path, ledger)) == NOTHING_WRONG
    first = digest(disk.path)
    assert asyncio.run(compared(disk.path, ledger)) == NOTHING_WRONG
    assert digest(disk.path) == first
    if rng.random() < 0.5:
        # Killed again, this time while it starts, or refuses everything.
        with store(disk.path, ledger) as running:
            if rng.random() < 0.5:
                running.wait_for("refused", 1)
            else:
                time.sleep(rng.random() * 0.4)
        assert asyncio.run(compared(disk.path, ledger)) == NOTHING_WRONG
        assert digest(disk.path) == first
