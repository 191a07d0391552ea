"""A scenario as a program: producers fill a small disk, push on, and go on once there is room; prints what came of it as JSON.

python full_disk.py KIND SIZE_MIB SECONDS
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streams_ledger import Client, Ledger

from outlast import State
from outlast.streams import StreamOptions, Streams
from outlast.testing import SmallDisk

if TYPE_CHECKING:
    from outlast.streams import Record, Stream

MIB = 1 << 20
PRODUCERS = 8
STREAMS = 2
WAIT_S_MAX = 60.0
NEIGHBOUR_SHARE = 4
"""One part of so many of the disk is a neighbour's file, which is removed at the end."""


class Lines(logging.Handler):
    """Keeps what is logged from INFO on."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.name}: {record.getMessage()}")


class Reader:
    """Reads a stream from its beginning again and again."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.chunks = 0
        self.failed: list[str] = []

    async def run(self) -> None:
        while True:
            try:
                async for _ in self.stream.chunks(self.stream.oldest):
                    self.chunks += 1
                    await asyncio.sleep(0.02)
            except Exception as exc:  # noqa: BLE001 - it is counted
                self.failed.append(repr(exc))
            await asyncio.sleep(0.02)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def wait_until(condition: Any) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while not condition():
            await asyncio.sleep(0.01)


async def fill_and_push(disk: SmallDisk, seconds: float) -> dict[str, Any]:
    """Fill the disk, push on, let go of some room; return the counts."""
    clock = time.monotonic
    ledger, lines = Ledger(), Lines()
    logging.getLogger("outlast").addHandler(lines)
    logging.getLogger("outlast").setLevel(logging.INFO)
    disk.fill(disk.available_bytes - disk.available_bytes // NEIGHBOUR_SHARE)
    options = StreamOptions(segment_bytes=MIB)
    async with Streams(disk.path) as streams:
        guard = streams.disks[0]
        used = [await streams.create(f"used {number}", options) for number in range(STREAMS)]
        spare = [await streams.create(f"spare {number}", options) for number in range(2)]
        for each in spare:
            await each.append([b"x" * 1024] * 1024)
        clients = [Client(f"p{number}", used[number % STREAMS], ledger) for number in range(PRODUCERS)]
        reader = Reader(used[0])
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each.run()) for each in (*clients, reader)]
            await wait_until(lambda: ledger.errors)
            resident, before, chunks, errors = resident_bytes(), len(ledger.acknowledged), reader.chunks, ledger.errors.copy()
            for each in clients:
                each.took_s.clear()
            await asyncio.sleep(seconds)
            grown = resident_bytes() - resident
            while_full = len(ledger.acknowledged) - before
            states = guard.state is not State.UP
            chunks = reader.chunks - chunks
            # What lets go of room works on a full disk, and what it lets go of is there for writers at once.
            await spare[0].trim(512)
            await spare[1].delete()
            took_s = sorted(took for each in clients for took in each.took_s)
            errors = ledger.errors - errors
            stored = len(ledger.acknowledged)
            freed_at = clock()
            disk.free()
            await wait_until(lambda: len(ledger.acknowledged) > stored)
            resumed_s = clock() - freed_at
            sequences = [each.sequence for each in clients]
            await wait_until(lambda: all(each.sequence > before for each, before in zip(clients, sequences, strict=True)))
            for task in tasks:
                task.cancel()
    async with Streams(disk.path) as streams:
        names = streams.names()
        found: list[Record] = []
        for number in range(STREAMS):
            stream = await streams.open(f"used {number}")
            found += [record async for record in stream.read(stream.oldest)]
        trimmed = (await streams.open("spare 0")).oldest
    return {
        **{name: len(which) for name, which in ledger.compare(found).items()},
        "acknowledged": len(ledger.acknowledged),
        "refused": len(ledger.refused),
        "unknown": len(ledger.unknown),
        "stored_while_full": while_full,
        "down_while_full": states,
        "errors": ledger.errors,
        "errors_while_full": errors,
        "log_lines": lines.lines,
        "read_while_full": chunks,
        "reads_failed": reader.failed,
        "names": names,
        "trimmed": trimmed,
        "resident_grown": grown,
        "refusal_s_p99": took_s[len(took_s) * 99 // 100] if took_s else 0.0,
        "resumed_s": resumed_s,
    }


def main() -> None:
    """Make the disk and run the scenario on it."""
    kind, size_mib, seconds = sys.argv[1:4]
    with SmallDisk(int(size_mib) * MIB, kind) as disk:  # type: ignore[arg-type]
        sys.stdout.write(json.dumps(asyncio.run(fill_and_push(disk, float(seconds)))))


if __name__ == "__main__":
    main()
