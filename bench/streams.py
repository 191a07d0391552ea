"""Durable records a second, on a disk that is named: Outlast against raw writes, SQLite and NATS JetStream, in one run.

    python bench/streams.py                          # all of it, some three minutes, below the temporary directory
    python bench/streams.py --directory /mnt/data    # on that disk
    python bench/streams.py --only reads --json

**appends**: batches of 10,000 records of 1 KiB, with two under way (promised) and one by one (printed: what is done before and
after the disk is then not hidden by it), one appender of single records, 64 appenders. Outlast, a raw write with
`fdatasync` of the same bytes and SQLite take turns in 20 rounds (`--pairs`; 8 batches with two under way, one alone, and eight
times 25 single records in each), so that what disturbs one disturbs all; a ratio is the median of the pairs, and a promise is
compared with the lower end of its 95 % interval. NATS is measured in fewer rounds, with `sync_interval: always` and with its
default, by which nothing is synced before it is acknowledged.
**framing**: processor time of the function that makes a frame, a record, and of a whole append less that of a raw write;
that of a single record, which a quick disk makes the most of what it takes.
**reads**: a stream of 256 MiB read by chunks and record by record, against reading its files by the MiB. Cold: the files are
synced and dropped from the page cache (posix_fadvise DONTNEED) before each read, which the disk of a virtual machine may still
have in the memory of its host. Warm: from the page cache; printed, not promised.
**many**: 10,000 streams in a process of their own: the most descriptors that it has open while each is written and read, and how
long a start takes, after a clean stop and after kill -9: until all names are known and any stream can be used (promised: 2 s),
and until the tails of all are known (10 s after kill -9). Imports are not counted.

The exit code is 1 when a promise is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import _streams_many as many
from _medians import median_interval
from _streams_peers import Nats, Outlast, Raw, Sqlite

from outlast.streams._format.batches import encode_batch
from outlast.streams._model import Entry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from _streams_peers import Peer

RECORD_BYTES = 1024
BATCH = 10_000
SINGLES = 25
TURNS = 8
"""So often one appender of each takes turns in a round, with 25 records: a disk that others use changes from second to second."""
APPENDERS = 64
EACH = 20
"""Records that each of many appenders stores in a round."""
PEER_ROUNDS = 3
BATCHES = 8
"""Batches in one turn of those that are stored two at a time: so many that its beginning and its end are a small part of it."""
KINDS_OF_BATCHES = ("batch", "lone")
READ_MIB = 256
READ_ROUNDS = 20
PROMISES = {"batch": 0.8, "single": 0.6, "crowd": 8.0, "cold": 0.5, "framing_us": 1.5}


def disk_of(path: Path) -> str:
    """Return the device, the file system and the options that a path lies on, by /proc/self/mountinfo."""
    status, best = path.stat(), ""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, rest = line.partition(" - ")
        device, _, mounted_at = fields.split()[2:5]
        if device == f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}" and str(path).startswith(mounted_at):
            kind, source, options = rest.split()[:3]
            best = f"{source} ({device}), {kind} ({options}), mounted at {mounted_at}"
    return best or f"device {status.st_dev}, unknown to mountinfo"


Times = dict[str, dict[str, list[float]]]
"""Seconds a record, by kind and peer."""


class Report:
    """Figures and promises as they come."""

    def __init__(self) -> None:
        self.figures: dict[str, object] = {}
        self.missed: list[str] = []

    def figure(self, name: str, text: str, value: object) -> None:
        """Print one and keep it."""
        self.figures[name] = value
        print(f"  {name:<42} {text}", flush=True)

    def promise(self, name: str, text: str, *, holds: bool) -> None:
        """Print a promise, and whether it holds."""
        print(f"  {name:<42} {text}{'' if holds else '   MISSED'}", flush=True)
        self.figures[f"promise: {name}"] = {"text": text, "holds": holds}
        if not holds:
            self.missed.append(name)


async def seconds(work: Callable[[], Awaitable[object]]) -> float:
    begun_s = time.perf_counter()
    await work()
    return time.perf_counter() - begun_s


async def one_by_one(peer: Peer, records: Sequence[bytes]) -> None:
    for record in records:
        await peer.single(record)


async def batches(peer: Peer, batch: Sequence[bytes]) -> None:
    """Store some batches with two under way at a time, as a producer does that wants throughput; raw and SQLite have one."""

    async def some() -> None:
        for _ in range(BATCHES // 2):
            await peer.batch(batch)

    await asyncio.gather(some(), some())


async def crowd(peer: Peer, records: Sequence[bytes]) -> None:
    await asyncio.gather(*(one_by_one(peer, records) for _ in range(APPENDERS)))


def ratio(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Return how many times as fast ours is: the median over the pairs and the ends of its 95 % interval."""
    return median_interval([other / our for our, other in zip(ours, theirs, strict=True)])


def make_memory_alike(folder: Path) -> None:
    """Let the page cache go of all files below, and have free pages at hand that the host of a virtual machine has backed.

    It takes pages back that a guest has let go of, and backs them again when they are used: that costs three times what the disk
    does, and hits whoever comes first.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                # Not synced before, as `drop_from_cache` does: where that frees more, the host takes pages back all the same.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    # It is removed before any of it is on the disk.
    with tempfile.TemporaryFile(dir=folder) as scratch:
        for _ in range(BATCHES + 1):
            scratch.write(bytes(BATCH * RECORD_BYTES))


async def round_of(peer: Peer, batch: list[bytes], kinds: Sequence[str]) -> dict[str, float]:
    """Measure the seconds of each kind, by record."""
    found: dict[str, float] = {}
    if "batch" in kinds:
        found["batch"] = await seconds(lambda: batches(peer, batch)) / (len(batch) * BATCHES)
    if "lone" in kinds:
        found["lone"] = await seconds(lambda: peer.batch(batch)) / len(batch)
    if "single" in kinds:
        found["single"] = await seconds(lambda: one_by_one(peer, batch[:SINGLES])) / SINGLES
    if "crowd" in kinds:
        found["crowd"] = await seconds(lambda: crowd(peer, batch[:EACH])) / (EACH * APPENDERS)
    return found


def note(times: Times, peer: Peer, found: dict[str, float]) -> None:
    """Add the seconds of a round to those that there are."""
    for kind, value in found.items():
        times.setdefault(kind, {}).setdefault(peer.name, []).append(value)


async def appends(folder: Path, pairs: int, report: Report) -> None:
    print("\nappends of 1 KiB records")
    batch = [bytes([number % 251]) * RECORD_BYTES for number in range(BATCH)]
    times: Times = {}
    ours, raw, sqlite = Outlast(folder), Raw(folder), Sqlite(folder)
    async with ours, raw, sqlite:
        # Before the clock runs, and once: memory that was let go of just before it speeds up the next write.
        raw.join(batch)
        for peer in (ours, raw, sqlite):
            await round_of(peer, batch, ("batch", "single"))
        # Nothing is removed, and all three grow to 2 GB: where a host is told of freed blocks, it has to make them again.
        for number in range(pairs):
            for turn in range(TURNS + len(KINDS_OF_BATCHES)):
                kind = "single" if turn < TURNS else KINDS_OF_BATCHES[turn - TURNS]
                for peer in ((ours, raw, sqlite), (raw, ours, sqlite))[(number + turn) % 2]:
                    if kind != "single":
                        make_memory_alike(folder)
                    note(times, peer, await round_of(peer, batch, [kind]))
            note(times, ours, await round_of(ours, batch, ["crowd"]))
    for nats in (Nats(folder, "always"), Nats(folder, None)):
        async with nats:
            for _ in range(PEER_ROUNDS):
                note(times, nats, await round_of(nats, batch, ("lone", "single", "crowd")))
    titles = {
        "batch": f"batches of {BATCH:,}, two under way",
        "lone": f"batches of {BATCH:,}, one by one",
        "single": "one appender, one by one",
        "crowd": f"{APPENDERS} appenders, one by one",
    }
    for kind, title in titles.items():
        for name, values in times[kind].items():
            middle = statistics.median(values)
            report.figure(f"{title}, {name}", f"{1 / middle:>11,.0f} records/s   {1e6 * middle:8.2f} µs a record", 1 / middle)
    for kind in ("batch", "lone", "single"):
        title, limit = titles[kind], PROMISES.get(kind)
        middle, low, high = ratio(times[kind][ours.name], times[kind][raw.name])
        text = f"{middle:.2f} × raw ({low:.2f} to {high:.2f})"
        if limit is None:
            report.figure(f"{title}, against raw", text, middle)
        else:
            report.promise(title, f"{text}, at least {limit}", holds=low >= limit)
        middle, low, high = ratio(times[kind][ours.name], times[kind][sqlite.name])
        report.figure(f"{title}, against SQLite", f"{middle:.2f} × ({low:.2f} to {high:.2f})", middle)
    one = times["single"][ours.name]
    one = [statistics.fmean(one[at : at + TURNS]) for at in range(0, len(one), TURNS)]
    middle, low, high = ratio(times["crowd"][ours.name], one)
    text = f"{middle:.1f} × one ({low:.1f} to {high:.1f}), at least {PROMISES['crowd']:.0f}"
    report.promise(titles["crowd"], text, holds=low >= PROMISES["crowd"])


async def framing(folder: Path, pairs: int, report: Report) -> None:
    print("\nprocessor time of a record of 1 KiB in a batch of 10,000")
    batch = [bytes([number % 251]) * RECORD_BYTES for number in range(BATCH)]
    frames, ours_s, raw_s = [], [], []
    singles: dict[str, list[float]] = {}
    async with Outlast(folder) as ours, Raw(folder) as raw:
        raw.join(batch)
        await ours.batch(batch)
        for _ in range(pairs):
            begun_s = time.process_time()
            encode_batch([Entry(batch)], salt=1, offset=0, durable_to=0, first=0, time_us=0)
            frames.append(time.process_time() - begun_s)
            for peer, found in ((ours, ours_s), (raw, raw_s)):
                begun_s = time.process_time()
                await peer.batch(batch)
                found.append(time.process_time() - begun_s)
                begun_s = time.process_time()
                await one_by_one(peer, batch[:SINGLES])
                singles.setdefault(peer.name, []).append(time.process_time() - begun_s)
    frame_us, ours_us, raw_us = (1e6 * statistics.median(values) / BATCH for values in (frames, ours_s, raw_s))
    report.figure("the frame alone", f"{frame_us:.3f} µs", frame_us)
    report.figure("a raw write", f"{raw_us:.3f} µs", raw_us)
    extra_us, limit = ours_us - raw_us, PROMISES["framing_us"]
    report.promise("an append, less a raw write", f"{extra_us:.3f} µs, at most {limit}", holds=extra_us <= limit)
    for name, values in singles.items():
        single_us = 1e6 * statistics.median(values) / SINGLES
        report.figure(f"a single record, {name}", f"{single_us:.0f} µs", single_us)


def drop_from_cache(paths: list[Path]) -> None:
    """Sync files and let the page cache go of them."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


async def read_files(paths: list[Path]) -> int:
    """Read files by the MiB, as the engine reads them, and return how many bytes they have."""
    total = 0
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        while piece := os.pread(descriptor, 1 << 20, os.lseek(descriptor, 0, os.SEEK_CUR)):
            total += len(piece)
            os.lseek(descriptor, len(piece), os.SEEK_CUR)
        os.close(descriptor)
    return total


async def read_in_turns(folder: Path) -> dict[str, list[float]]:
    """Return the seconds of each way to read, cold and warm."""
    batch = [os.urandom(RECORD_BYTES) for _ in range(1024)]
    times: dict[str, list[float]] = {}
    async with Outlast(folder) as ours:
        for _ in range(READ_MIB):
            await ours.batch(batch)
        paths = sorted(ours.folder.rglob("*.log"))

        async def by_chunks() -> int:
            total = 0
            async for chunk in ours.stream.chunks():
                total += len(chunk.records)
            return total

        async def by_records() -> int:
            total = 0
            async for _ in ours.stream.read():
                total += 1
            return total

        ways = {"the files": lambda: read_files(paths), "by chunks": by_chunks, "record by record": by_records}
        assert await by_chunks() == await by_records() == READ_MIB * len(batch)
        for state in ("cold", "warm"):
            for number in range(READ_ROUNDS):
                for name, way in list(ways.items())[:: 1 if number % 2 else -1]:
                    if state == "cold":
                        drop_from_cache(paths)
                    spent_s = time.process_time()
                    times.setdefault(f"{state}, {name}", []).append(await seconds(way))
                    times.setdefault(f"processor, {name}", []).append(time.process_time() - spent_s)
    return times


async def reads(folder: Path, report: Report) -> None:
    print(f"\ncatch-up reads of {READ_MIB} MiB in records of 1 KiB")
    times = await read_in_turns(folder)
    for name, values in times.items():
        middle = statistics.median(values)
        record_us = 1e6 * middle / (READ_MIB * 1024)
        figure = f"{READ_MIB / middle:>8,.0f} MiB/s"
        report.figure(name, f"{record_us:>8.3f} µs a record" if name.startswith("processor") else figure, middle)
    for state in ("cold", "warm"):
        middle, low, high = ratio(times[f"{state}, by chunks"], times[f"{state}, the files"])
        text = f"{middle:.2f} × reading the files ({low:.2f} to {high:.2f})"
        if state == "cold":
            limit = PROMISES["cold"]
            report.promise("catch-up from a cold cache", f"{text}, at least {limit}", holds=low >= limit)
        else:
            report.figure("catch-up from a warm cache", text, middle)


def main() -> int:
    """Run what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--directory", type=Path, default=Path(tempfile.gettempdir()), help="where the files are, and so the disk"
    )
    parser.add_argument("--pairs", type=int, default=20, help="rounds in which Outlast and its peers take turns")
    parser.add_argument("--streams", type=int, default=10_000, help="how many streams there are for `many`")
    parser.add_argument("--only", choices=["appends", "framing", "reads", "many"], help="one part")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON at the end")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    report = Report()
    with tempfile.TemporaryDirectory(prefix="outlast-bench-", dir=options.directory) as directory:
        root = Path(directory).resolve()
        print(f"disk: {disk_of(root)}\nPython {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
        parts: dict[str, Callable[[Path], Awaitable[None]]] = {
            "appends": lambda folder: appends(folder, options.pairs, report),
            "framing": lambda folder: framing(folder, options.pairs, report),
            "reads": lambda folder: reads(folder, report),
            "many": lambda folder: many.measure(folder, options.streams, report),
        }
        for name, part in parts.items():
            if options.only in (None, name):
                folder = root / name
                folder.mkdir()
                asyncio.run(part(folder))  # type: ignore[arg-type]
    print(f"\n{'every promise holds' if not report.missed else 'missed: ' + '; '.join(report.missed)}")
    if options.json:
        print(json.dumps(report.figures))
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
