"""A slot that a foreign program reads past the lock, and what it costs a service to stand by for it.

The service has another loop, and its stream in one of three ways: as it is attached; in a loop that crashes at each attempt in
vain, and is restarted by the service; in one that crashes every half second, and is restarted at once by a supervisor of its
own. Beside it, in the same seconds, a process with the other loop alone is the baseline: `python held_slot.py SECONDS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from changes_source import Memory, ask, insert, streams, until

import outlast
from outlast._runtime.service.link import LinkState
from outlast.changes import Changes
from outlast.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from outlast.testing import PostgresServer

SETTINGS: Final = {"log_connections": "on"}
"""What the server needs beyond logical replication: attempts are counted in its log, as it saw them."""
CRASH_S: Final = 0.5
BEGIN_S: Final = 2.0
"""Before the measured seconds: what is done once, such as loading modules, is no part of standing by."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What standing by cost, from the start of the service to the release of the slot, and how soon it streamed again."""

    connections: int
    """That the service opened, of every kind: each attempt has one for the lock and one for the stream, looks have one in all."""
    sessions: int
    """Those for the stream."""
    refused: int
    """Claims that the server refused (55006): one session may make several."""
    crashes: int
    lines: tuple[str, ...]
    cpu_percent: float
    """Of a core, beyond the baseline."""
    slower_percent: float
    """Turns of the other loop, less than those of the baseline."""
    again_s: float | None
    """From the release to the first change; None where it was not waited for."""

    @property
    def attempts(self) -> int:
        """At the slot."""
        return max(self.sessions, self.refused)


class Busy:
    """The other loop, and what it and the process get done."""

    def __init__(self, service: outlast.Service) -> None:
        self.turns = 0
        service.loop(name="other")(self.turn)

    async def turn(self, stop: outlast.Stop) -> None:
        self.turns += 1
        await stop.sleep(0.005)

    async def measured(self, seconds: float) -> tuple[float, float]:
        """Turns a second, and CPU of the process in per cent of a core."""
        turns_before, cpu_before, began = self.turns, time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        took_s = time.monotonic() - began
        return (self.turns - turns_before) / took_s, 100 * (time.process_time() - cpu_before) / took_s


# The ways to run the stream.


class Attached:
    """As a user does who has a sink."""

    crashes = 0

    def __init__(self, service: outlast.Service, db: Postgres) -> None:
        self.sink = Memory()
        Changes(db, "shop", sink=self.sink).attach(service)

    @property
    def received(self) -> int:
        return len(self.sink.given)


class Restarted:
    """Iterates in a loop of the service, which crashes whenever an attempt was in vain."""

    def __init__(self, service: outlast.Service, db: Postgres) -> None:
        self.crashes = self.received = 0
        self.changes = Changes(db, "shop")
        service.loop(needs=db, name="consumer")(self.consume)

    async def consume(self, stop: outlast.Stop) -> None:
        attempts = self.changes.epoch
        iteration = asyncio.create_task(self.iterate(stop))
        try:
            while not iteration.done() and not self.crash_is_due(attempts):
                await asyncio.sleep(0.05)
            await asyncio.wait({iteration}, timeout=CRASH_S)
            if not iteration.done() and self.changes.link.state is not LinkState.SERVING:
                self.crashes += 1
                raise ConnectionResetError(104, "whatever")
            await iteration
        finally:
            iteration.cancel()
            await asyncio.wait({iteration})

    def crash_is_due(self, attempts: int) -> bool:
        """Each taking of the lock raises the epoch, and leads to an attempt."""
        return self.changes.epoch > attempts

    async def iterate(self, stop: outlast.Stop) -> None:
        async with contextlib.aclosing(self.changes.stream(stop)) as transactions:
            async for _ in transactions:
                self.received += 1


class RestartedAtOnce(Restarted):
    """Crashes whatever it is doing, unless it streams, and has a supervisor that knows no backoff."""

    def crash_is_due(self, attempts: int) -> bool:
        del attempts
        return True

    async def consume(self, stop: outlast.Stop) -> None:
        while not stop.requested:
            with contextlib.suppress(ConnectionResetError):
                await super().consume(stop)


WAYS: Final[dict[str, Callable[[outlast.Service, Postgres], Attached | Restarted]]] = {
    "attached": Attached,
    "restarted": Restarted,
    "restarted at once": RestartedAtOnce,
}


# The slot.


@contextlib.asynccontextmanager
async def held(server: PostgresServer, dsn: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Make publication and slot, and have pg_recvlogical read it."""
    ask(dsn, "CREATE PUBLICATION shop FOR ALL TABLES")
    ask(dsn, "SELECT pg_create_logical_replication_slot('shop', 'pgoutput')")
    options = ("-o", "proto_version=1", "-o", "publication_names=shop", "--start", "-f", os.devnull)
    holder = await asyncio.create_subprocess_exec(server.bin_dir / "pg_recvlogical", "-d", dsn, "-S", "shop", *options)
    try:
        await streams(dsn)
        yield holder
    finally:
        if holder.returncode is None:
            holder.kill()
        await holder.wait()


def hide_readers(dsn: str) -> None:
    """Make looks at a slot in this database show no reader: only a claim finds out."""
    ((definition,),) = ask(dsn, "SELECT pg_get_viewdef('pg_catalog.pg_replication_slots'::regclass)")
    hidden = re.sub(r"\bl\.active_pid\b", "NULL::integer AS active_pid", definition)
    ask(dsn, f"SET allow_system_table_mods = on; CREATE OR REPLACE VIEW pg_catalog.pg_replication_slots AS {hidden}")


class Lines(logging.Handler):
    """What the service says."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


async def stand_by(server: PostgresServer, dsn: str, way: str, held_s: float, *, hidden: bool = False) -> Cost:
    """Run the service for so long beside a slot that is held, then release it. `hidden`: no look shows who reads it."""
    logger, lines = logging.getLogger("outlast"), Lines()
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    async with held(server, dsn) as holder:
        if hidden:
            await asyncio.to_thread(hide_readers, dsn)
        log_from = server.log.stat().st_size
        service, stop = outlast.Service("shop", deadline_s=5.0), outlast.Stop()
        busy, stream = Busy(service), WAYS[way](service, Postgres(dsn))
        life = asyncio.create_task(service.run(stop))
        try:
            await asyncio.sleep(BEGIN_S)
            alone = await asyncio.create_subprocess_exec(sys.executable, __file__, str(held_s), stdout=asyncio.subprocess.PIPE)
            turns_s, cpu = await busy.measured(held_s)
            alone_turns_s, alone_cpu = json.loads((await alone.communicate())[0])
            # That the service started is no line about the slot.
            said, crashes = tuple(line for line in lines.said if not line.startswith("shop started")), stream.crashes
            with server.log.open("rb") as log:
                log.seek(log_from)
                log_text = log.read().decode(errors="replace")
            holder.kill()
            released = time.monotonic()
            await holder.wait()
            again_s = None
            if not hidden:
                await insert(dsn, 1)
                await until(lambda: stream.received, 120.0)
                again_s = time.monotonic() - released
        finally:
            stop.fire("done")
            logger.removeHandler(lines)
            await life
    return Cost(
        connections=len(re.findall(r"connection authorized: .*application_name=outlast", log_text)),
        sessions=len(re.findall(r"connection authorized: .*application_name=outlast changes", log_text)),
        refused=log_text.count('replication slot "shop" is active for PID'),
        crashes=crashes,
        lines=said,
        cpu_percent=cpu - alone_cpu,
        slower_percent=100 * (1 - turns_s / alone_turns_s),
        again_s=again_s,
    )


async def baseline(seconds: float) -> None:
    """The service without a stream."""
    service, stop = outlast.Service("alone"), outlast.Stop()
    busy = Busy(service)
    life = asyncio.create_task(service.run(stop))
    await asyncio.sleep(0.2)
    sys.stdout.write(json.dumps(await busy.measured(seconds)))
    stop.fire("done")
    await life


if __name__ == "__main__":
    asyncio.run(baseline(float(sys.argv[1])))
