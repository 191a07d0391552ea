"""A telnet door without sockets: connections whose client reads or not, on tables in memory whose writes may wait."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from memory_tables import MemoryTables

from outlast import Gate, Stop
from outlast.tables._telnet.connection import PutConnection
from outlast.tables._telnet.door import Door
from outlast.tables._telnet.limits import PutLimits

if TYPE_CHECKING:
    from outlast.tables._model import Parsed, Written


class HeldTables(MemoryTables):
    """Tables whose writes wait for an event."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def write_parsed(self, parsed: Parsed, *, client: str = "", deadline_s: float | None = None) -> Written:
        await self.gate.wait()
        return await super().write_parsed(parsed, client=client)


class Wire(asyncio.Transport):
    """A transport whose client reads what it is sent, or not."""

    def __init__(self) -> None:
        super().__init__()
        self.said = b""
        self.is_reading_now = True
        self.client_reads = True
        self.high = 0
        self.ended = ""
        self.protocol: PutConnection | None = None

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high or 0

    def write(self, data: Any) -> None:
        self.said += data
        if not self.client_reads and len(self.said) > self.high:
            cast("PutConnection", self.protocol).pause_writing()

    def read_all(self) -> None:
        """Let the client read what it was told."""
        self.client_reads, self.said = True, b""
        cast("PutConnection", self.protocol).resume_writing()

    def pause_reading(self) -> None:
        self.is_reading_now = False

    def resume_reading(self) -> None:
        self.is_reading_now = True

    def is_closing(self) -> bool:
        return bool(self.ended)

    def close(self) -> None:
        self._end("closed")

    def abort(self) -> None:
        self._end("aborted")

    def _end(self, how: str) -> None:
        if not self.ended:
            self.ended = how
            asyncio.get_running_loop().call_soon(cast("PutConnection", self.protocol).connection_lost, None)


class Rig:
    """A door on tables in memory, and connections to it."""

    def __init__(self, tables: MemoryTables | None = None, **limits: Any) -> None:
        self.tables = tables or MemoryTables()
        self.gate = Gate("put")
        self.stop = Stop()
        self.door = Door("127.0.0.1:4242", self.tables.as_tables, PutLimits(**limits), self.gate, self.stop)

    def connect(self, client: str = "192.0.2.1") -> tuple[PutConnection, Wire]:
        connection, wire = PutConnection(self.door, client), Wire()
        wire.protocol = connection
        self.door.seated(client)
        connection.connection_made(wire)
        return connection, wire

    def send(self, connection: PutConnection, data: bytes) -> None:
        """Pass bytes on in pieces of the buffer, as the event loop does."""
        buffer = connection.get_buffer(-1)
        for begin in range(0, len(data), len(buffer)):
            piece = data[begin : begin + len(buffer)]
            buffer[: len(piece)] = piece
            connection.buffer_updated(len(piece))

    @property
    def times(self) -> list[int]:
        """The seconds of all points that are stored."""
        return sorted(at_ns // 10**9 for stored in self.tables.stored.values() for _, at_ns in stored)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def put(number: int, metric: str = "cpu") -> bytes:
    return b"put %s %d 1 host=a\n" % (metric.encode(), number)
