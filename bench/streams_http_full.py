"""Seconds that a node of streams promises its clients while a disk is full, while one hangs, and while it stops.

    python bench/streams_http_full.py                     # five minutes; needs root, and libfuse for the disk that hangs
    python bench/streams_http_full.py --seconds 3         # a short one

`outlast streams serve` is a process of its own; the clients are those of tests/real/streams_node, on connections of their own.

**full**: 8 producers send a record every 20 ms each to a disk of 64 MiB (tmpfs, ext4) that runs full, push on for `--seconds`,
and come back when they are told to, without making up for what they have missed. What they are told, the 99th percentile of a
refusal, what the process grows by, the lines it logs, how soon each of them stores again once there is room, and the most
requests within 100 ms from then on, against the median before.
**killed**: kill -9 while it is full; how long a start takes until every record is read over HTTP, while it is still full.
**hangs**: 2,000 requests with a deadline of 5 s over a disk that hangs; how soon the first fresh one is stored once it is back.
**stop**: SIGTERM with 16 producers, 200 long polls and 200 event streams; how soon it is not ready, and how soon it is over.

The exit code is 1 when a promise is missed, or when anything acknowledged is lost or anything refused is there.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "real" / "http"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "real" / "streams"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "real" / "streams_node"))

from http_producers import LOST, STREAM, Producer, all_go_on, ask, cause, make, running, until  # the same clients as in the tests
from node_process import NodeProcess, free_port
from queued_requests import Queued
from served import get
from small_disks import MIB, NOTHING_WRONG, compared
from streams_ledger import Ledger
from waiting_readers import Readers, gather

from outlast.testing import SmallDisk

if TYPE_CHECKING:
    from collections.abc import Iterable

PRODUCERS = 8
REFUSAL_S_MAX = 0.05
GROWTH_BYTES_MAX = 32 * MIB
LINES_MAX = 6
WAITS_MAX = 2.0
PEAK_MAX = 3.0
BIN_S = 0.1
EVERY_S = 0.02
STEADY_S = 3.0
READABLE_S_MAX = 3.0
REQUESTS, DEADLINE_S, FRESH_S_MAX = 2_000, 5.0, 1.0
UNREADY_S_MAX = 0.1
STOP_S = 10.0
STOPS = 3
clock = time.perf_counter
missed: list[str] = []


def promise(name: str, text: str, *, holds: bool) -> None:
    """Print a promise, and whether it holds."""
    print(f"  {name:<46} {text}{'' if holds else '   MISSED'}", flush=True)
    if not holds:
        missed.append(name)


async def right(folder: Path, ledger: Ledger) -> None:
    """Say what is wrong with what was told, now that the node has ended."""
    found = {name: len(which) for name, which in (await compared(folder, ledger)).items()}
    text = f"{len(ledger.acknowledged):,} stored, {len(ledger.refused):,} refused: {found}"
    promise("nothing lost, refused and there, twice, moved", text, holds=found == dict.fromkeys(NOTHING_WRONG, 0))


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Timed(Producer):
    """A producer that comes back when it is told to, and notes when it sent and when it was answered."""

    def __init__(self, number: int, port: int, ledger: Ledger) -> None:
        hooks = {"on_send": self._sent, "on_answer": self._answered}
        super().__init__(f"p{number}", port, f"s{number % 2}", ledger, obeys=True, every_s=EVERY_S, **hooks)
        self.sent_at: list[float] = []
        self.stored_at: list[float] = []
        self.refused_s: list[float] = []

    def _sent(self) -> None:
        self.sent_at.append(clock())

    def _answered(self, status: int) -> None:
        if status < 300:
            self.stored_at.append(clock())
        else:
            self.refused_s.append(clock() - self.sent_at[-1])


def bins(times: Iterable[float], begun_s: float) -> list[int]:
    """Count what happened in each tenth of a second, whole ones only."""
    counts = Counter(int((each - begun_s) / BIN_S) for each in times if each >= begun_s)
    return [counts[number] for number in range(max(counts, default=0))]


def full(seconds: float) -> None:
    for kind in ("tmpfs", "ext4"):
        print(f"\n8 producers over HTTP on a full disk of 64 MiB for {seconds:g} s: {kind}")
        with SmallDisk(64 * MIB, kind) as disk, NodeProcess(disk.path) as node:  # type: ignore[arg-type]
            asyncio.run(fill_and_push(disk, node, seconds))


async def fill_and_push(disk: SmallDisk, node: NodeProcess, seconds: float) -> None:
    ledger = Ledger()
    await make(node.port, "s0", "s1")
    clients = [Timed(number, node.port, ledger) for number in range(PRODUCERS)]
    async with running(clients):
        await all_go_on(clients)
        begun_s = clock()
        await asyncio.sleep(STEADY_S)
        steady = statistics.median(bins((at for each in clients for at in each.sent_at), begun_s))
        disk.fill(leave_bytes=MIB)
        await until(lambda: all(each.problems for each in clients))
        resident, stored = resident_bytes(node.process.pid), len(ledger.acknowledged)
        await asyncio.sleep(seconds)
        grown, late = resident_bytes(node.process.pid) - resident, len(ledger.acknowledged) - stored
        freed_s = clock()
        disk.free()
        await all_go_on(clients)
        await asyncio.sleep(STEADY_S)
    told = {(each["status"], each["code"], cause(each)) for client in clients for each in client.problems}
    longest_s = max(wait for each in clients for wait in each.waits_s)
    resumed_s = max(next(at for at in each.stored_at if at > freed_s) - freed_s for each in clients)
    peak = max(bins((at for each in clients for at in each.sent_at), freed_s))
    refused_s = sorted(took for each in clients for took in each.refused_s)
    p99_s = refused_s[len(refused_s) * 99 // 100]
    node.process.terminate()
    code = node.wait()
    await right(disk.path, ledger)
    promise("what they were told", "; ".join(f"{status} {name}: {text}" for status, name, text in told), holds=len(told) == 1)
    promise("stored while it was full", f"{late}", holds=late == 0)
    promise("99th percentile of a refusal", f"{1e3 * p99_s:.2f} ms of {len(refused_s)}, at most 50", holds=p99_s <= REFUSAL_S_MAX)
    text = f"{resumed_s:.2f} s; the longest wait they were told is {longest_s:.2f} s, at most twice that"
    promise("all of them go on after room was made", text, holds=resumed_s <= WAITS_MAX * longest_s)
    text = f"{peak} in 100 ms, {peak / steady:.2f} times the {steady:g} before, at most 3"
    promise("most requests from then on", text, holds=peak <= PEAK_MAX * steady)
    promise("resident memory grows by", f"{grown / MIB:.1f} MiB, at most 32", holds=grown <= GROWTH_BYTES_MAX)
    lines = node.of_disks()
    promise("log lines, and the exit code", f"{len(lines)}, at most 6; {code}", holds=len(lines) <= LINES_MAX and not code)


def killed() -> None:
    print("\nkill -9 while the disk is full, and a start while it still is")
    for kind in ("tmpfs", "ext4"):
        with SmallDisk(64 * MIB, kind) as disk, NodeProcess(disk.path) as node:  # type: ignore[arg-type]
            asyncio.run(kill_and_read(disk, node, kind))


async def kill_and_read(disk: SmallDisk, node: NodeProcess, kind: str) -> None:
    ledger = Ledger()
    await make(node.port, "s0", "s1")
    clients = [Producer(f"p{number}", node.port, f"s{number % 2}", ledger, every_s=0.0) for number in range(PRODUCERS)]
    async with running(clients):
        await until(lambda: all(each.problems for each in clients))
        disk.fill(leave_bytes=0)
        node.kill()
    begun_s, count = clock(), 0
    node.start()
    for name in ("s0", "s1"):
        offset, current = "-1", False
        while not current:
            answer = await ask(node.port, get(f"{STREAM}{name}?offset={offset}", "Connection: close"))
            offset, current = answer.headers["stream-next-offset"], "stream-up-to-date" in answer.headers
        count += int(offset)
    took_s = clock() - begun_s
    node.process.terminate()
    node.wait()
    await right(disk.path, ledger)
    text = f"{took_s:.2f} s for {count:,} records, at most 3"
    promise(f"all of it read over HTTP after a start, {kind}", text, holds=took_s <= READABLE_S_MAX)


def hangs(hang_s: float) -> None:
    print(f"\n{REQUESTS:,} requests with a deadline of {DEADLINE_S:g} s over a disk that hangs for {hang_s:g} s")
    if (reason := SmallDisk.available("faulty")) is not None:
        print(f"  skipped: {reason}")
        return
    options = ("--connections-per-client", str(2 * REQUESTS))
    with SmallDisk(64 * MIB, "faulty") as disk, NodeProcess(disk.path, options=options) as node:
        try:
            asyncio.run(hang(disk, node, hang_s))
        finally:
            # A process in a call that hangs does not end.
            disk.heal()


async def hang(disk: SmallDisk, node: NodeProcess, hang_s: float) -> None:
    ledger = Ledger()
    await make(node.port, "s")
    queued = Queued(node.port, "s", DEADLINE_S, ledger)
    disk.hang("fsync")
    begun_s = clock()
    async with asyncio.TaskGroup() as group:
        for number in range(REQUESTS):
            group.create_task(queued.send(number))
            if number % 100 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(max(0.0, begun_s + hang_s - clock()))
        answered = queued.answers.copy()
        disk.heal()
        healed_s = clock()
        fresh = Producer("fresh", node.port, "s", ledger)
        async with running([fresh]):
            await all_go_on([fresh])
            fresh_s = clock() - healed_s
    node.process.terminate()
    node.wait()
    await right(disk.path, ledger)
    late = {f"{status} {code}".strip(): count for (status, code), count in (queued.answers - answered).items()}
    told = {f"{status} {code}": count for (status, code), count in answered.items()}
    text = f"{told}; once it was back: {late}"
    promise("what they were told", text, holds=answered.keys() <= {(503, "expired"), (503, "hangs"), (504, "outcome unknown")})
    promise("the first fresh one after its return", f"{fresh_s:.2f} s, at most 1", holds=fresh_s <= FRESH_S_MAX)


def stop() -> None:
    print(f"\n{STOPS} stops with 16 producers, 200 long polls and 200 event streams, within {STOP_S:g} s")
    for _ in range(STOPS):
        admin = free_port()
        options = ("--admin", f"127.0.0.1:{admin}", "--stop-within", f"{STOP_S:g}s")
        with tempfile.TemporaryDirectory() as folder, NodeProcess(Path(folder), options=options) as node:
            asyncio.run(stop_under_load(Path(folder), node, admin))


async def unready(port: int) -> float:
    """Return when it was first not ready."""
    while True:
        try:
            if (await ask(port, get("/readyz", "Connection: close"))).status != 200:
                return clock()
        except LOST:
            return clock()
        await asyncio.sleep(0.005)


async def stop_under_load(folder: Path, node: NodeProcess, admin: int) -> None:
    ledger = Ledger()
    await make(node.port, "quiet", "s0", "s1")
    readers = Readers(node.port, "quiet")
    clients = [Producer(f"p{number}", node.port, f"s{number % 2}", ledger, every_s=0.0) for number in range(2 * PRODUCERS)]
    async with asyncio.TaskGroup() as group:
        await gather(group, readers, 200, 200)
        await until(lambda: readers.there == 400)
        async with running(clients):
            await all_go_on(clients)
            asked = group.create_task(unready(admin))
            await asyncio.sleep(0.5)
            begun_s = clock()
            node.process.terminate()
            code = await asyncio.to_thread(node.wait)
            took_s = clock() - begun_s
        unready_s = await asked - begun_s
    await right(folder, ledger)
    ends = Counter(readers.polls) + Counter(readers.events)
    promise("readers", f"{dict(ends)}", holds=readers.events == ["last chunk, then the end"] * 200 and "cut" not in ends)
    codes = Counter(each["code"] for client in clients for each in client.problems)
    promise(
        "not ready, and how newcomers were told",
        f"{1e3 * unready_s:.0f} ms, at most 100; {dict(codes)}",
        holds=unready_s <= UNREADY_S_MAX,
    )
    promise("over", f"{took_s:.2f} s, at most {STOP_S:g}; exit code {code}", holds=took_s <= STOP_S and code == 0)


def main() -> int:
    """Run what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long a disk is full, and how long it hangs (at least 6)")
    parser.add_argument("--only", choices=["full", "killed", "hangs", "stop"], help="one part")
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    if options.only in (None, "full"):
        full(options.seconds)
    if options.only in (None, "killed"):
        killed()
    if options.only in (None, "hangs"):
        hangs(max(DEADLINE_S + 1, options.seconds))
    if options.only in (None, "stop"):
        stop()
    print(f"\n{'every promise holds' if not missed else 'missed: ' + '; '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
