"""Readers that take next to nothing: each costs little memory, is cut in the end, and goes on where it was."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from typing import TYPE_CHECKING

import pytest
from node_at_work import STREAM, at_work
from served import Client, get

from outlast.http import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from node_at_work import AtWork

    from conftest import RunAsync

RECORD = 64 << 10
RECORDS = 400
"""25 MiB: what a reader that takes nothing must not have in memory."""
HELD_MAX = 4 << 20
IMPATIENT = Limits(write_s=0.4, connections_per_client_max=None)


def record(number: int) -> bytes:
    return (b"%08d" % number).ljust(RECORD, b".")


async def sluggish(port: int) -> Client:
    """A client whose socket takes little, and whose buffer here as well."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    return Client(reader, writer)


def unsent(node: AtWork) -> int:
    """The most bytes that the server holds for one connection."""
    return max((connection.unsent for connection in node.connections), default=0)


@pytest.mark.parametrize("query", ["offset=-1", "offset=-1&live=long-poll", "offset=-1&live=sse"])
def test_a_reader_that_takes_nothing_costs_little_is_cut_and_goes_on_where_it_was(
    run_async: RunAsync, tmp_path: Path, query: str
) -> None:
    async def main() -> None:
        async with at_work(tmp_path, limits=IMPATIENT, chunk_bytes=RECORDS * RECORD) as node:
            await node.create("large", "text/plain")
            stream = await node.streams.open("large")
            await stream.append([record(number) for number in range(RECORDS)])
            async with await sluggish(node.served.server.port) as client:
                client.send(get(f"{STREAM}large?{query}"))
                await node.served.until(lambda: unsent(node) > 0)
                most = 0
                while node.served.open:
                    most = max(most, unsent(node))
                    await asyncio.sleep(0.01)
                assert 0 < most < HELD_MAX
                got = await client.rest()
            # What it has is a part, and it can see that.
            assert b"upToDate" not in got
            assert len(got) < RECORDS * RECORD / 2
            assert b"transfer-encoding: chunked" in got or b"content-length: %d" % (RECORDS * RECORD) in got
            at = position_behind(got) if query.endswith("sse") else 0
            numbers = numbers_in(got)
            assert numbers == list(range(len(numbers)))
            assert at <= len(numbers)
            rest = await stream.fetch(at)
            assert rest.records[0] == record(at)
            assert node.readers == 0

    run_async(main)


def position_behind(got: bytes) -> int:
    """The offset that a reader of events has, by the last control event that is whole."""
    found = re.findall(rb"event: control\ndata:(\{[^\n]*\})\n\n", got)
    return int(json.loads(found[-1])["streamNextOffset"]) if found else 0


def numbers_in(got: bytes) -> list[int]:
    """The records of which the beginning has come."""
    return [int(number) for number in re.findall(rb"(\d{8})\.", got)]
