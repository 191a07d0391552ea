"""The part `many` of bench/streams.py: how a store of very many streams starts, and how many files it has open.

    python bench/_streams_many.py FOLDER NUMBER make|start

The process makes or opens the streams, prints a line of JSON, and waits for a line on its input before it stops.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outlast.streams import Streams

if TYPE_CHECKING:
    from streams import Report

AT_A_TIME = 64
DESCRIPTORS_MAX = 256
START_S_MAX = {
    ("clean stop", "any stream usable"): 2.0,
    ("kill -9", "any stream usable"): 2.0,
    ("kill -9", "all tails known"): 10.0,
}
"""Usable: all names are known, and one stream in their middle was opened, appended to and read. The others are recovered when
they are used, or soon; all tails are known when each was opened once.
"""


class Descriptors:
    """Looks at the open files of this process, in a thread of its own, and keeps the most that it saw."""

    def __init__(self) -> None:
        self.most = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._end.wait(0.01):
            self.look()

    def look(self) -> None:
        """Count them now."""
        self.most = max(self.most, sum(1 for _ in Path("/proc/self/fd").iterdir()))

    def stop(self) -> int:
        """Return the most that were open, the one of the look itself included."""
        self._end.set()
        self._thread.join()
        return self.most


async def each(names: list[str], work: Any) -> None:  # noqa: ANN401 - a coroutine function of a name
    """Do the work of all names, 64 at a time."""
    left = iter(names)

    async def worker() -> None:
        for name in left:
            await work(name)

    await asyncio.gather(*(worker() for _ in range(AT_A_TIME)))


async def serve(folder: Path, number: int, way: str) -> None:
    """Make or open the streams, write to and read from each, and say what that took."""
    names = [f"stream-{each:06d}" for each in range(number)]
    descriptors, begun_s = Descriptors(), time.perf_counter()
    async with Streams(folder) as streams:

        async def make(name: str) -> None:
            await (await streams.create(name)).append(b"first")

        async def tail(name: str) -> None:
            assert (await streams.open(name)).tail > 0

        async def use(name: str) -> None:
            stream = await streams.open(name)
            await stream.append(b"another")
            assert (await stream.fetch(0)).records[0] == b"first"

        if way == "make":
            await each(names, make)
            made_s = time.perf_counter() - begun_s
            await each(names, use)
            print(json.dumps({"made_s": made_s, "descriptors": descriptors.stop()}), flush=True)
        else:
            assert streams.names() == names
            await use(names[number // 2])
            usable_s = time.perf_counter() - begun_s
            await each(names, tail)
            tails_s = time.perf_counter() - begun_s
            await each(names, use)
            print(json.dumps({"usable_s": usable_s, "tails_s": tails_s, "descriptors": descriptors.stop()}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def run(folder: Path, number: int, way: str, end: str) -> dict[str, float]:
    """Run one process; end it by a clean stop or by kill -9; return what it said."""
    command = [sys.executable, __file__, str(folder), str(number), way]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        if end == "kill -9":
            process.kill()
        else:
            process.communicate("\n")
            assert process.returncode == 0
    return dict(said)


async def measure(folder: Path, number: int, report: Report) -> None:
    """Measure it all, and compare it with what is promised."""
    print(f"\n{number:,} streams")
    said = run(folder, number, "make", "clean stop")
    report.figure("made, with one record each", f"{said['made_s']:.1f} s, {number / said['made_s']:,.0f}/s", said["made_s"])
    most = [said["descriptors"]]
    for end, following in (("clean stop", "kill -9"), ("kill -9", "clean stop")):
        said = run(folder, number, "start", following)
        most.append(said["descriptors"])
        for what, value in (("any stream usable", said["usable_s"]), ("all tails known", said["tails_s"])):
            name, text, limit = f"start after {end}: {what}", f"{value:.2f} s", START_S_MAX.get((end, what))
            if limit is None:
                report.figure(name, text, value)
            else:
                report.promise(name, f"{text}, at most {limit:.0f}", holds=value <= limit)
    holds = max(most) <= DESCRIPTORS_MAX
    report.promise("descriptors of the process, at most", f"{max(most)}, at most {DESCRIPTORS_MAX}", holds=holds)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
