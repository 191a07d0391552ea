"""Event streams over real sockets: a viewer that does not read costs little, and is cut; the others get every event."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from served import Client, get, serving

from outlast.http import EventFeed, EventStream

if TYPE_CHECKING:
    from conftest import RunAsync

EVENTS = 20_000
DATA = "x" * 200


async def reads_nothing(port: int) -> Client:
    """A client whose socket takes next to nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    return Client(reader, writer)


def test_a_viewer_that_does_not_read_costs_little_and_is_cut_and_others_get_every_event(run_async: RunAsync) -> None:
    async def main() -> None:
        feed = EventFeed()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert scope["type"] == "http"
            await EventStream(feed.watch(), stalled_s=0.5)(scope, receive, send)

        async def read_all(client: Client) -> list[bytes]:
            ids: list[bytes] = []
            while len(ids) < EVENTS:
                line = await client.reader.readline()
                if line.startswith(b"id: "):
                    ids.append(line[4:-1])
            return ids

        async with serving(app) as served, await served.connect() as good, await reads_nothing(served.server.port) as bad:
            good.send(get())
            bad.send(get())
            await served.until(lambda: feed.viewers == 2)
            reading = asyncio.create_task(read_all(good))
            held = 0
            for number in range(EVENTS):
                feed.publish(DATA)
                if number % 100 == 0:
                    await asyncio.sleep(0.001)
                    host = served.server._host
                    assert host is not None
                    held = max(held, *(connection.unsent for connection in host.connections))
            assert await reading == [f"{feed.epoch}-{number}".encode() for number in range(1, EVENTS + 1)]
            assert held < 2**18, "what a viewer takes at a time, and what the server takes before it waits"
            await served.until(lambda: feed.viewers == 1 and served.open == 1)

    run_async(main)
