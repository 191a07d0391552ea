"""Seconds that streams promise of a disk that is full, that hangs, and that was full when the process was killed.

    python bench/streams_full.py                     # three minutes; needs root, and libfuse for the disk that hangs
    python bench/streams_full.py --seconds 3         # a short one

**full**: 8 producers fill a disk of 64 MiB (tmpfs, ext4, and a tmpfs in a user namespace) and push on for `--seconds`: the 99th
percentile of a refusal, what the process grows by, the lines it logs, and how soon it goes on once there is room.
**killed**: kill -9 while it is full; how long a start takes until every record is read, while it is still full.
**hangs**: 50,000 appends with a deadline of 5 s wait for a disk that hangs; how soon the first fresh one is stored once it is
back, and how an append to another volume fares meanwhile, against before. Python's cyclic collector is off there: over the
50,000 tasks of the bench itself one collection takes up to a second.

The scenarios are those of tests/real/streams, which assert what is lost and what is not: so does this. The exit code is 1 when a
promise is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outlast import Unavailable
from outlast.disk import Disk
from outlast.streams import ExpiredError, OutcomeUnknownError, Streams
from outlast.testing import SmallDisk, SmallDiskError

if TYPE_CHECKING:
    from outlast.streams import Stream

SCENARIOS = Path(__file__).resolve().parents[1] / "tests" / "real" / "streams"
MIB = 1 << 20
REFUSAL_S_MAX = 0.05
RESUME_S_MAX = 2.0
GROWTH_BYTES_MAX = 32 * MIB
LINES_MAX = 6
READABLE_S_MAX = 3.0
QUEUED = 50_000
DEADLINE_S = 5.0
FRESH_S_MAX = 1.0
missed: list[str] = []


def promise(name: str, text: str, *, holds: bool) -> None:
    """Print a promise, and whether it holds."""
    print(f"  {name:<46} {text}{'' if holds else '   MISSED'}", flush=True)
    if not holds:
        missed.append(name)


def full(seconds: float) -> None:
    for place in ("tmpfs", "ext4", "tmpfs in a namespace"):
        print(f"\n8 producers on a full disk of 64 MiB for {seconds:g} s: {place}")
        command = [sys.executable, str(SCENARIOS / "full_disk.py"), place.split()[0], "64", str(seconds)]
        try:
            command = SmallDisk.command(command) if "namespace" in place else command
        except SmallDiskError as exc:
            print(f"  skipped: {exc}")
            continue
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=600)
        found: dict[str, Any] = json.loads(done.stdout)
        wrong = {name: found[name] for name in ("lost", "phantom", "twice", "moved")}
        counts = f"{found['acknowledged']:,} stored, {found['refused']:,} refused: {wrong}"
        promise("nothing lost, refused and there, twice, moved", counts, holds=not any(wrong.values()))
        errors = found["errors_while_full"]
        promise("errors while full", ", ".join(errors), holds=len(errors) == 1)
        p99_s, resumed_s, grown = found["refusal_s_p99"], found["resumed_s"], found["resident_grown"]
        promise("99th percentile of a refusal", f"{1e3 * p99_s:.2f} ms, at most 50", holds=p99_s <= REFUSAL_S_MAX)
        promise("goes on after room was made", f"{resumed_s:.2f} s, at most 2", holds=resumed_s <= RESUME_S_MAX)
        promise("resident memory grows by", f"{grown / MIB:.1f} MiB, at most 32", holds=grown <= GROWTH_BYTES_MAX)
        promise("log lines, from INFO on", f"{len(found['log_lines'])}, at most 6", holds=len(found["log_lines"]) <= LINES_MAX)


async def read_all(folder: Path) -> tuple[float, int]:
    """Return how long it takes until every record of every stream is read, and how many there are."""
    begun_s, count = time.perf_counter(), 0
    async with Streams(folder) as streams:
        for name in streams.names():
            stream = await streams.open(name)
            async for chunk in stream.chunks(stream.oldest):
                count += len(chunk.records)
        return time.perf_counter() - begun_s, count


def killed() -> None:
    print("\nkill -9 while the disk is full, and a start while it still is")
    for kind in ("tmpfs", "ext4"):
        with SmallDisk(64 * MIB, kind) as disk:  # type: ignore[arg-type]
            command = [sys.executable, str(SCENARIOS / "killed_store.py"), str(disk.path)]
            command.append(json.dumps({f"p{number}": [0, 0] for number in range(8)}))
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                acknowledged = 0
                for line in process.stdout:
                    if line.startswith(b"-"):
                        break
                    acknowledged += line.startswith(b"+")
                disk.fill(leave_bytes=0)
                process.kill()
            took_s, count = asyncio.run(read_all(disk.path))
            assert count >= acknowledged, f"{acknowledged} were acknowledged, and {count} are there"
            text = f"{took_s:.2f} s for {count:,} records, at most 3"
            promise(f"all of it read after a start, {kind}", text, holds=took_s <= READABLE_S_MAX)


async def append_for(stream: Stream, until: asyncio.Event) -> list[float]:
    """Append one by one until the event; return the seconds of each."""
    found = []
    while not until.is_set():
        begun_s = time.perf_counter()
        await stream.append(b"x" * 1024)
        found.append(time.perf_counter() - begun_s)
        await asyncio.sleep(0.002)
    return found


async def hangs(disk: SmallDisk, well: Path, hang_s: float) -> None:
    print(f"\n{QUEUED:,} appends with a deadline of {DEADLINE_S:g} s wait for a disk that hangs for {hang_s:g} s")
    volumes = [Disk(disk.path, name="hangs"), Disk(well, name="well")]
    async with Streams(volumes) as streams:
        stream = await streams.create("hangs", volume="hangs")
        other = await streams.create("well", volume="well")
        quiet, over = asyncio.Event(), asyncio.Event()
        asyncio.get_running_loop().call_later(2.0, quiet.set)
        before = await append_for(other, quiet)
        answers = {"expired": 0, "refused": 0, "unknown": 0, "stored": 0}

        async def queued() -> None:
            try:
                await stream.append(b"queued", deadline_s=DEADLINE_S)
                answers["stored"] += 1
            except ExpiredError:
                answers["expired"] += 1
            except Unavailable:
                answers["refused"] += 1
            except OutcomeUnknownError:
                answers["unknown"] += 1

        disk.hang("fsync")
        begun_s = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            appending = group.create_task(append_for(other, over))
            async with asyncio.TaskGroup() as crowd:
                for number in range(QUEUED):
                    crowd.create_task(queued())
                    if number % 500 == 0:
                        await asyncio.sleep(0)
            await asyncio.sleep(max(0.0, begun_s + hang_s - time.perf_counter()))
            over.set()
        disk.heal()
        healed_s = time.perf_counter()
        while True:
            try:
                fresh = await stream.append(b"fresh")
                break
            except Unavailable:
                await asyncio.sleep(0.01)
        fresh_s = time.perf_counter() - healed_s
        found = [record async for record in stream.read()]
        late = sum(record.data == b"queued" for record in found)
        text = f"{answers}; {late} of them stored later"
        promise("appends that waited", text, holds=late <= answers["unknown"] + answers["stored"] and fresh.first == late)
        promise("the first fresh one after its return", f"{fresh_s:.2f} s, at most 1", holds=fresh_s <= FRESH_S_MAX)
        middle = [1e3 * statistics.median(each) for each in (before, appending.result())]
        worst = [1e3 * max(each) for each in (before, appending.result())]
        print(f"  {'an append to another volume, before':<46} median {middle[0]:.2f} ms, worst {worst[0]:.0f} ms")
        print(
            f"  {'and while the disk hangs':<46} median {middle[1]:.2f} ms, worst {worst[1]:.0f} ms, while {QUEUED:,} tasks end"
        )


def main() -> int:
    """Run what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long a disk is full, and how long it hangs (at least 6)")
    parser.add_argument("--only", choices=["full", "killed", "hangs"], help="one part")
    options = parser.parse_args()
    logging.getLogger("outlast").addHandler(logging.NullHandler())
    print(f"Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    if options.only in (None, "full"):
        full(options.seconds)
    if options.only in (None, "killed"):
        killed()
    if options.only in (None, "hangs"):
        if (reason := SmallDisk.available("faulty")) is not None:
            print(f"\nthe disk that hangs is skipped: {reason}")
        else:
            with SmallDisk(64 * MIB, "faulty") as disk, SmallDisk(64 * MIB) as well:
                gc.disable()
                try:
                    asyncio.run(hangs(disk, well.path, max(DEADLINE_S + 1, options.seconds)))
                finally:
                    # A process in a call that hangs does not end.
                    disk.heal()
    print(f"\n{'every promise holds' if not missed else 'missed: ' + '; '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
