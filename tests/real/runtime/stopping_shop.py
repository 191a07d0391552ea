"""A service under load that the tests of the stop run as a process of its own. `SHOP` holds what it is to do, as JSON."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import random
import sys
import threading
import time

import outlast
from outlast._runtime.service.clock import Clock

WANTED = json.loads(os.environ.get("SHOP", "{}"))
RNG = random.Random(WANTED.get("seed", 0))
STEPS = ("fire", "refuse", "drain", "cancel", "flush", "close", "report", "hook")

peer = outlast.Dependency("peer")
stopping = threading.Event()


def say(text: str) -> None:
    """Tell the test something, in one write."""
    os.write(1, f"{text}\n".encode())


# What takes half a second longer, between any two steps of the stop.

chosen = RNG.choice(STEPS)


class Delaying(Clock):
    """The clock of the process, which takes its time before the chosen step."""

    def __init__(self, clock: Clock) -> None:
        self.now = clock.now  # type: ignore[method-assign]

    async def before(self, path: str, step: str) -> None:
        if WANTED.get("delay") and (step == chosen or (chosen == "hook" and " " in step)):
            await asyncio.sleep(0.5)


class Shop(outlast.Service):
    async def run(self, stop: outlast.Stop | None = None, *, clock: Clock | None = None) -> int:
        assert stop is not None
        assert clock is not None
        if WANTED.get("delay") and chosen == "fire":
            # In the very step that fires the stop, between two of those that are told.
            stop.on_fire(lambda _: time.sleep(0.5))
        return await super().run(stop, clock=Delaying(clock))


service = Shop("shop", deadline_s=WANTED.get("deadline_s", 6.0))
timeline = outlast.Service("timeline", deadline_s=5.0)
service.add(timeline)


# The load: loops, a child that is worked in, and threads.


@service.loop(needs=peer, workers=10)
async def ingest(stop: outlast.Stop) -> None:
    """Put one record into the child, whose gate closes in the step that fires the stop."""
    async with peer.use(), timeline.gate.enter("record"):
        await asyncio.sleep(RNG.uniform(0.0, 0.02))


@service.loop(workers=4)
async def tick(stop: outlast.Stop) -> None:
    async with stop.timeout(5.0):
        await asyncio.sleep(RNG.uniform(0.0, 0.05))


@service.loop(workers=2)
async def threads(stop: outlast.Stop) -> None:
    def work() -> None:
        try:
            with timeline.gate.enter("thread"):
                time.sleep(0.01)
        except outlast.Stopping:
            return

    await asyncio.to_thread(work)


@timeline.task()
async def compact(stop: outlast.Stop) -> None:
    """Work in steps until the stop; the last one is cut off by the cancel."""
    stop.on_fire(lambda _: stopping.set())
    while not stop.requested:
        await stop.sleep(RNG.uniform(0.001, 0.1))


@service.on_stop
async def flush() -> None:
    if WANTED.get("full"):
        with open(WANTED["full"], "wb", buffering=0) as file:  # noqa: ASYNC230, PTH123
            while file.write(bytes(1 << 20)) == 1 << 20:
                pass
            raise OSError(errno.ENOSPC, "No space left on device")
    await asyncio.sleep(0.01)
    say("flushed")


# What the tests ask for.


if WANTED.get("corrupt"):

    @timeline.loop()
    async def check(stop: outlast.Stop) -> None:
        """Find a corruption in the window of the stop: outright, in a clean-up, behind a wait that the stop ends."""
        where = RNG.choice(["raised", "finally", "hidden", "from"])
        await stop.wait()
        await asyncio.sleep(RNG.uniform(0.0, 0.2))
        broken = OSError(errno.EIO, "page 7 is corrupt")
        if where == "raised":
            raise broken
        if where == "from":
            raise RuntimeError("cannot compact") from broken
        if where == "hidden":
            try:
                raise broken
            finally:
                await stop.sleep(1.0)
        try:
            raise broken
        finally:
            # Cancelled here when the drain time is over, or ended by the stop.
            async with stop.timeout(60.0):
                await asyncio.sleep(60.0)


if WANTED.get("hang") == "deaf":

    @timeline.task()
    async def deaf(stop: outlast.Stop) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue


if WANTED.get("hang") == "blocking":

    @timeline.loop()
    async def blocking(stop: outlast.Stop) -> None:
        await stop.wait()
        time.sleep(3600)  # noqa: ASYNC251 - that is what is wrong with it


if WANTED.get("hang") == "thread":

    @timeline.loop()
    async def in_a_thread(stop: outlast.Stop) -> None:
        def stuck() -> None:
            time.sleep(3600)

        await asyncio.to_thread(stuck)


if WANTED.get("hang") == "flush":

    @timeline.on_stop
    async def never_flushed() -> None:
        await asyncio.Event().wait()


if WANTED.get("long_s"):

    @service.loop()
    async def long_work(stop: outlast.Stop) -> None:
        """Take as long as the test wants, stop or no stop."""
        say("working")
        await asyncio.sleep(WANTED["long_s"])
        say("worked")


if WANTED.get("offspring"):

    @service.on_start
    async def spawn() -> None:
        ignoring = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(3600)"
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", ignoring, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        await process.stdout.readline()
        say(f"child {process.pid}")


if WANTED.get("slow_start_s"):

    @service.on_start
    async def slow() -> None:
        say("starting")
        await asyncio.sleep(WANTED["slow_start_s"])


for number in range(WANTED.get("children", 0)):
    service.add(outlast.Service(f"child-{number}"))


def main() -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    return outlast.run(service, listen=WANTED.get("listen"), report=WANTED.get("report"))


if __name__ == "__main__":
    sys.exit(main())
