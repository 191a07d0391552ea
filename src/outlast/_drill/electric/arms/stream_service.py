"""The shared part of the plain arms of the electric drill: a service of ticking loops with one change stream beside them."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

import psycopg
from psycopg import errors, pq

from outlast._drill.lab.arm.service import PlainService
from outlast._drill.lab.worklog import STREAM_LOOP
from outlast.changes import Decoder, Insert

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "drill"
"""Of the publication and of the slot."""
_START = f"START_REPLICATION SLOT {NAME} LOGICAL 0/0 (proto_version '1', publication_names '{NAME}')"
_WAL_DATA, _KEEPALIVE = ord("w"), ord("k")


class StreamService(PlainService):
    """The service: its loops, and a stream that raises whatever it meets."""

    async def tick(self, loop: int) -> None:
        """Work again and again, as one of the other loops of the service."""
        number = 0
        while not self.stopping.is_set():
            number += 1
            await self.work(loop, number)

    async def stream(self, connected: Callable[[], None] = lambda: None) -> None:
        """Connect, start, read forever; calls `connected` after the login. Raises what the driver raises."""
        conn = await psycopg.AsyncConnection.connect(
            self.settings.dsn, autocommit=True, replication="database", connect_timeout=10, application_name="drill stream"
        )
        connected()
        try:
            await conn.execute(_START.encode())
            await self._read(conn.pgconn)
        finally:
            conn.pgconn.finish()

    async def _read(self, pgconn: pq.abc.PGconn) -> None:
        decoder, done_lsn = Decoder(), 0
        while True:
            count, data = pgconn.get_copy_data(1)
            if count == 0:
                await _readable(pgconn.socket)
                pgconn.consume_input()
                continue
            if count < 0:
                raise errors.error_from_result(pgconn.get_result() or pgconn.make_empty_result(pq.ExecStatus.FATAL_ERROR))
            message = bytes(data)
            if message[0] == _WAL_DATA:
                change = decoder.decode(message[25:])
                if isinstance(change, Insert):
                    self.work_log.end(STREAM_LOOP, int(str(change.new[0])))
                elif type(change).__name__ == "Commit":
                    done_lsn = getattr(change, "end_lsn", done_lsn)
                    _confirm(pgconn, done_lsn)
            elif message[0] == _KEEPALIVE and message[17]:
                _confirm(pgconn, done_lsn)


def _confirm(pgconn: pq.abc.PGconn, lsn: int) -> None:
    pgconn.put_copy_data(struct.pack("!cQQQqB", b"r", lsn, lsn, lsn, 0, 0))
    pgconn.flush()


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _wake, future)
    try:
        await future
    finally:
        loop.remove_reader(descriptor)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
