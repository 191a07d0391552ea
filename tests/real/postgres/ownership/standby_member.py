"""One member of a group that wants to own a stream, as a process of its own: `python standby_member.py DSN NAME [seconds]`.

It tells what happens on standard output, one word and the time a line: waiting, owner EPOCH, lost, fenced. While it owns, it
writes a row every few milliseconds into `ownership`, in a transaction that is fenced.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

from outlast.postgres import Postgres
from outlast.postgres.ownership._epochs import FencedError
from outlast.postgres.ownership._standby import Standby

if TYPE_CHECKING:
    import psycopg

SO_ATTACH_FILTER = 26
CLOCK = time.CLOCK_MONOTONIC
"""One clock for all processes of the machine."""


def say(*words: object) -> None:
    sys.stdout.write(f"{' '.join(map(str, words))} {time.clock_gettime_ns(CLOCK)}\n")
    sys.stdout.flush()


def swallow_everything(descriptor: int) -> None:
    """Make the kernel drop every packet that comes for this socket before TCP sees it, as a cut link would."""
    give_nothing = ctypes.create_string_buffer((6).to_bytes(2, sys.byteorder) + bytes(6))  # BPF_RET | BPF_K, 0

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))

    program = Program(1, ctypes.addressof(give_nothing))
    with socket.socket(fileno=os.dup(descriptor)) as shared:
        shared.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, bytes(program))


async def write(standby: Standby, conn: psycopg.AsyncConnection[object]) -> None:
    """Write as the owner for ever; raises `FencedError` when it no longer is."""
    while True:
        async with conn.transaction():
            await standby.fence(conn)
            await conn.execute("INSERT INTO ownership (epoch, pid) VALUES (%s, %s)", (standby.epoch, os.getpid()))
        await asyncio.sleep(0.002)


async def main() -> None:
    dsn, name = sys.argv[1:3]
    db = Postgres(dsn)
    standby = Standby(db, name, owner=f"pid {os.getpid()}")
    say("waiting")
    async with standby as lost:
        say("owner", standby.epoch)
        sink = await db.connect(autocommit=True)

        def cut_off() -> None:
            assert standby._conn is not None
            for conn in (standby._conn, sink):
                swallow_everything(conn.pgconn.socket)
            say("cut")

        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, cut_off)
        writing = asyncio.ensure_future(write(standby, sink))
        await asyncio.wait({lost, writing}, return_when=asyncio.FIRST_COMPLETED)
        if lost.done():
            say("lost")
        if writing.done() and isinstance(writing.exception(), FencedError):
            say("fenced")
        writing.cancel()
        await asyncio.wait({writing})
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
