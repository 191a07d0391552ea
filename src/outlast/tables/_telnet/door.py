"""The shared part of all connections of the telnet door: bounds, counts, the way to the tables, the state of the stop."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from outlast import OutlastError, Stop, Stopping, Unavailable
from outlast.extend import Once
from outlast.tables._telnet.connection import PutConnection
from outlast.tables._telnet.lines import COMMANDS, Lines

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from outlast import Gate
    from outlast.tables._model import Written
    from outlast.tables._tables import Tables
    from outlast.tables._telnet.limits import PutLimits
    from outlast.tables._telnet.lines import Batch

BUFFER_BYTES: Final = 65_536
CLIENT: Final = "telnet"
"""The name whose quota it is: a telnet client shows no token, so that all of them share one."""
NOT_COUNTED: Final = "stored"
VERSION: Final = "net.opentsdb.tools 2.4.0 built at revision outlast (MINT)\nBuilt for outlast.tables, which speaks as it does\n"
FULL: Final = b"put: Please throttle writes: too many connections; use one for many lines, or come back later\n"
logger = logging.getLogger("outlast.tables")


class Door:
    """The shared part of connections. On the event loop's thread only, but for the counts, which are read from any."""

    def __init__(self, name: str, tables: Tables, limits: PutLimits, gate: Gate, stop: Stop) -> None:
        self.name: Final = name
        self.limits: Final = limits
        self.gate: Final = gate
        self.lines: Final = Lines(tables)
        self.buffer: Final = memoryview(bytearray(BUFFER_BYTES))
        self.connections: Final = set[PutConnection]()
        self.workers: Final = set[asyncio.Task[None]]()
        """The tasks that write batches, also of connections that have ended."""
        self.points = 0
        self.refused: Final[dict[str, int]] = {"never": 0, "later": 0, "person": 0}
        """Points that were refused, by outcome."""
        self.halves = 0
        """Lines that a client did not end."""
        self.cuts: Final[dict[str, int]] = {}
        """Connections that were refused or ended from here, by the reason."""
        self._tables: Final = tables
        self._stop: Final = stop
        self._clients: Final[dict[str, int]] = {}
        """Connections by address; as many keys as connections at most."""
        self._arriving: Final = set[asyncio.Task[None]]()
        self._once: Final = Once()
        self._refused_since: float | None = None
        """The time since which the store has taken no batch."""

    def now(self) -> float:
        """Return the time on the clock of the event loop."""
        return asyncio.get_running_loop().time()

    @property
    def is_stopping(self) -> bool:
        """Whether no line is taken in any more."""
        return self._stop.reason is not None

    @property
    def open(self) -> int:
        """The connections that are open."""
        return sum(dict(self._clients).values())

    # Connections.

    def take(self, sock: socket.socket, client: str) -> None:
        """Make a connection of a socket that was accepted, if there is room."""
        limits = self.limits
        if self.open >= limits.connections_max or self._clients.get(client, 0) >= limits.connections_per_client_max:
            self.count("too many")
            with sock:
                try:
                    sock.send(FULL)
                except OSError:
                    return
            return
        self.seated(client)
        task = asyncio.get_running_loop().create_task(self._connect(sock, client))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    def seated(self, client: str) -> None:
        """Count one more."""
        self._clients[client] = self._clients.get(client, 0) + 1

    async def _connect(self, sock: socket.socket, client: str) -> None:
        connection = PutConnection(self, client)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, sock)
        except OSError:
            self.count("gone")
        finally:
            if not connection.made:
                self.left(connection, client)
                sock.close()

    def left(self, connection: PutConnection, client: str) -> None:
        """Count one less."""
        self.connections.discard(connection)
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]

    def close_idle(self) -> None:
        """Close connections that have sent nothing for too long."""
        now = self.now()
        for connection in tuple(self.connections):
            if now - connection.heard_at >= self.limits.idle_s:
                connection.cut("idle")

    def refuse(self) -> None:
        """Take no more lines."""
        for connection in tuple(self.connections):
            connection.refuse()

    async def end(self) -> None:
        """End every connection."""
        for task in (*self._arriving, *self.workers):
            task.cancel()
        for connection in tuple(self.connections):
            connection.give_up()
        # The transports report their end in the next turns of the loop.
        for _ in range(3):
            await asyncio.sleep(0)
        for connection in tuple(self.connections):
            connection.cut("stopped")
        await asyncio.sleep(0)

    # Lines.

    async def written(self, batch: Batch, again: Callable[[], Batch]) -> Written | OutlastError:
        """Return what came of a batch; the error, if none of it could be taken.

        While the store takes none it is held and tried again, for `hold_s` since the first refusal.
        """
        while True:
            try:
                written = await self._tables.write_parsed(batch.parsed, client=CLIENT)
            except Unavailable as error:
                now = self.now()
                self._refused_since = now if self._refused_since is None else self._refused_since
                left_s = self._refused_since + self.limits.hold_s - now
                if left_s <= 0 or self.is_stopping:
                    return error
                try:
                    await self._stop.sleep(min(max(error.retry_after_s, 0.01), left_s))
                except Stopping:
                    return error
                batch = again()
            except OutlastError as error:
                return error
            else:
                self._refused_since = None
                return written

    def answer(self, command: str) -> str:
        """Return what answers a command that is no `put`."""
        if command == "version":
            return VERSION
        if command == "help":
            return f"available commands: {' '.join(COMMANDS)} \n"
        at = int(time.time())
        figures = {
            "tsd.connectionmgr.connections": {"type=open": self.open},
            "tsd.rpc.received": {"type=put": self.points},
            "tsd.rpc.errors": {f"type={outcome}": count for outcome, count in self.refused.items()},
        }
        return "".join(f"{name} {at} {count} {tag}\n" for name, by_tag in figures.items() for tag, count in by_tag.items())

    # Counts.

    def count(self, code: str) -> None:
        """Count one connection that was refused or ended from here."""
        self.cuts[code] = self.cuts.get(code, 0) + 1

    def tell_refused(self, outcome: str, points: int) -> None:
        """Count points that were refused."""
        if outcome != NOT_COUNTED:
            self.refused[outcome] += points

    def broke(self, error: Exception) -> None:
        """Log a bug, once for each."""
        key = f"{type(error).__name__}: {error}"[:100]
        if self._once.news(key, subject=key):
            logger.error("put %s: a batch of lines failed (said once)", self.name, exc_info=error)
