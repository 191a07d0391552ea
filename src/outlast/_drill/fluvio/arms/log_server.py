"""The shared part of the arms of the fluvio drill: settings, and a server on a Unix socket that asks a log for each request."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from outlast._drill.fluvio.wire import HEAD, POSITION, Answer, Request, message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ADDRESS_VARIABLE = "OUTLAST_DRILL_ADDRESS"
DISK_VARIABLE = "OUTLAST_DRILL_DISK"
SEED_VARIABLE = "OUTLAST_DRILL_SEED"


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The settings of every arm, in environment variables."""

    address: str
    """Of the server: the path of a Unix socket, or `host:port`."""
    disk: Path
    """An empty folder on the small disk."""
    seed: int

    @classmethod
    def from_environment(cls) -> LogSettings:
        """Read the settings; a missing variable is a KeyError that names it."""
        return cls(os.environ[ADDRESS_VARIABLE], Path(os.environ[DISK_VARIABLE]), int(os.environ[SEED_VARIABLE]))

    def as_environment(self) -> dict[str, str]:
        """Return the variables from which `from_environment` reads the same settings."""
        return {ADDRESS_VARIABLE: self.address, DISK_VARIABLE: str(self.disk), SEED_VARIABLE: str(self.seed)}


class Log(Protocol):
    """The log of an arm."""

    async def append(self, record: bytes) -> int:
        """Store a record, and return its position. Raises what the client is to be told."""
        ...

    async def read(self, position: int) -> bytes:
        """Return the record at a position that `append` returned. Raises what the client is to be told."""
        ...


class UnknownOutcome(Exception):  # noqa: N818  it may have been stored
    """Whether the record is stored is not known."""


class LogServer:
    """Answers each request of each connection, one after another."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def serve(self, socket: str, stop: Callable[[], Awaitable[object]]) -> None:
        """Answer on the path `socket` until `stop` returns."""
        # Nobody removes the file: the folder goes with the drill.
        server = await asyncio.start_unix_server(self._talk, socket)
        try:
            await stop()
        finally:
            # Connections that are open end with the process.
            server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                what, size = HEAD.unpack(await reader.readexactly(HEAD.size))
                body = await reader.readexactly(size)
                # A task for each request, as servers have: the refusals of one client are not a loop that spins.
                writer.write(await asyncio.create_task(self._answer(what, body)))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _answer(self, what: int, body: bytes) -> bytes:
        try:
            if what == Request.APPEND:
                return message(Answer.DONE, POSITION.pack(await self._log.append(body)))
            return message(Answer.DONE, await self._log.read(*POSITION.unpack(body)))
        except UnknownOutcome as exc:
            return message(Answer.UNKNOWN, str(exc).encode())
        except Exception as exc:  # noqa: BLE001  the client is told, whatever it is
            return message(Answer.REFUSED, str(exc).encode())


async def serve_until_terminated(log: Log, settings: LogSettings) -> None:
    """Serve a log until SIGTERM, as the plainest service does."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await LogServer(log).serve(settings.address, stopping.wait)


def plain_logger(name: str) -> logging.Logger:
    """Return a logger that writes a line on stderr for each record."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    return logging.getLogger(name)
