"""A consumer process of the crash tests: a change stream into a PostgreSQL table, a JSON file, or nowhere.

It tells what happens in the file WORKER_TOLD, a line each with the time on the clock of all processes: `owner EPOCH`,
`first` for the first change of a session, `given` for each change when asked to, `over CODE`. SIGUSR1 cuts it off.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import outlast
from outlast import Backoff, HealthPolicy
from outlast.changes import Changes, DeliveryPolicy, JsonLinesSink, OwnerPolicy, PostgresSink, SourcePolicy
from outlast.postgres import Postgres

if TYPE_CHECKING:
    from outlast.changes import Delivery, Sink
    from outlast.changes._snapshot.model import SnapshotTarget

SO_ATTACH_FILTER = 26


def tell(*words: object) -> None:
    """One write, so that lines of several processes do not mix."""
    told = os.open(os.environ["WORKER_TOLD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(told, f"{os.getpid()} {time.clock_gettime_ns(time.CLOCK_MONOTONIC)} {' '.join(map(str, words))}\n".encode())
    os.close(told)


def cut_off() -> None:
    """Make the kernel drop every packet that comes for a connection of this process, as a cut link would."""
    give_nothing = ctypes.create_string_buffer((6).to_bytes(2, sys.byteorder) + bytes(6))  # BPF_RET | BPF_K, 0

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))

    program = Program(1, ctypes.addressof(give_nothing))
    for entry in Path("/proc/self/fd").iterdir():
        try:
            with socket.socket(fileno=os.dup(int(entry.name))) as shared:
                if shared.family == socket.AF_INET:
                    shared.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, bytes(program))
        except OSError:
            continue
    tell("cut")


def peak_kib() -> int:
    """The most memory that this program had; `ru_maxrss` counts what its parent had when it was started, too."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))


class Nowhere:
    """A sink that keeps nothing but the count."""

    def __init__(self) -> None:
        self.count = self.complete = 0

    async def open(self, stream: str, epoch: int) -> int:
        return 0

    async def write(self, delivery: Delivery) -> None:
        self.count += len(delivery.changes)
        self.complete = delivery.end_lsn or self.complete

    async def flush(self) -> int:
        return self.complete

    async def close(self) -> None:
        return


class Told:
    """Another sink, and what is told about it."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.needs = sink.needs if isinstance(sink, PostgresSink) else ()
        self.first = True
        self.count = 0

    async def open(self, stream: str, epoch: int) -> int:
        position = await self.sink.open(stream, epoch)
        tell("owner", epoch)
        self.first = True
        return position

    async def write(self, delivery: Delivery) -> None:
        await self.sink.write(delivery)
        if self.first:
            self.first = False
            tell("first")
        self.count += len(delivery.changes)
        if delivery.end_lsn is not None and self.count >= int(os.environ.get("WORKER_TELL_FROM", "1000000000")):
            tell("given", self.count, peak_kib())

    async def flush(self) -> int:
        return await self.sink.flush()

    async def close(self) -> None:
        await self.sink.close()


class ToldCopying(Told):
    """One that is given everything first."""

    def snapshot_target(self) -> SnapshotTarget:
        assert isinstance(self.sink, PostgresSink)
        return self.sink.snapshot_target()


def sink_of(environment: dict[str, str]) -> Sink:
    if "WORKER_SINK_DSN" in environment:
        return PostgresSink(Postgres(environment["WORKER_SINK_DSN"], name="warehouse", policy=QUICK))
    if "WORKER_FILE" in environment:
        return JsonLinesSink(environment["WORKER_FILE"])
    return Nowhere()


# A hundred outages a minute are no sign of a server that had better be left alone: not here.
QUICK = HealthPolicy(relapse=Backoff(base_s=0.05, cap_s=0.2, sustained_s=5.0), probe=Backoff(base_s=0.05, cap_s=0.2))


def main() -> int:
    environment = dict(os.environ)
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(levelname)s %(message)s")
    snapshot = "WORKER_SNAPSHOT" in environment
    changes = Changes(
        Postgres(environment["WORKER_DSN"], policy=QUICK),
        "shop",
        sink=ToldCopying(sink_of(environment)) if snapshot else Told(sink_of(environment)),
        source=SourcePolicy(snapshot=snapshot),
        delivery=DeliveryPolicy(streaming="WORKER_STREAMING" in environment, spool_directory=environment.get("WORKER_SPOOL")),
        owner=OwnerPolicy(backoff=Backoff(base_s=0.05, cap_s=0.5, sustained_s=5.0)),
    )
    service = outlast.Service("worker", deadline_s=5.0)
    changes.attach(service)

    @service.task(name="signals")
    async def signals(stop: outlast.Stop) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, cut_off)
        await stop.wait()

    return outlast.run(service)


if __name__ == "__main__":
    sys.exit(main())
