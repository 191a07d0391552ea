"""A client over real sockets: answers that never come, connections that end, refusals of bodies that are still on their way."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

import pytest

from outlast import Kind, Stopping, Unavailable
from outlast.streams import BlockingClient, Client, OutcomeUnknownError

if TYPE_CHECKING:
    from conftest import RunAsync

pytestmark = pytest.mark.expected_logs
FULL = b'{"status": 507, "code": "ENOSPC", "kind": "exhausted", "detail": "no space", "retry_after_s": 1.0}'


class CommittingServer:
    """Stores each append as the protocol has it, and then closes the connection without a word as often as `swallows` says.

    `refuses`: it answers 507 to the head of an append, and does not read its body.
    """

    def __init__(self) -> None:
        self.swallows = 0
        self.refuses = False
        self.stored: list[bytes] = []
        self.heads: list[dict[str, str]] = []
        self.last: dict[str, tuple[int, int]] = {}
        self.connections: set[asyncio.StreamWriter] = set()
        self.opened = 0

    async def __aenter__(self) -> Self:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, limit=1 << 20)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for writer in tuple(self.connections):
            writer.transport.abort()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    def appends(self) -> int:
        return sum(head["method"] == "POST" for head in self.heads)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        self.opened += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while await self.one(reader, writer):
                pass
        self.connections.discard(writer)
        writer.close()

    async def one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        head = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        head["method"] = first.split(" ")[0]
        self.heads.append(head)
        if head["method"] != "POST":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nStream-Next-Offset: a\r\nContent-Length: 0\r\n\r\n")
            return True
        if self.refuses:
            head_of_answer = (
                b"HTTP/1.1 507 Full\r\nConnection: close\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n"
            )
            writer.write(head_of_answer % len(FULL) + FULL)
            await writer.drain()
            # Half-closed, and drained: a reset would take the answer from the client.
            writer.write_eof()
            while await reader.read(1 << 16):
                pass
            return False
        body = await reader.readexactly(int(head.get("content-length", "0")))
        status = self.commit(head, body)
        if self.swallows:
            self.swallows -= 1
            return False
        writer.write(b"HTTP/1.1 %d OK\r\nStream-Next-Offset: a\r\nContent-Length: 0\r\n\r\n" % status)
        return True

    def commit(self, head: dict[str, str], body: bytes) -> int:
        if "producer-id" in head:
            place = (int(head["producer-epoch"]), int(head["producer-seq"]))
            if place <= self.last.get(head["producer-id"], (-1, -1)):
                return 204
            self.last[head["producer-id"]] = place
        self.stored.append(body)
        return 200


@pytest.mark.parametrize("reused", [False, True], ids=["new connection", "kept connection"])
def test_an_append_that_was_read_and_never_answered_is_sent_again_only_with_a_producer(
    run_async: RunAsync, *, reused: bool
) -> None:
    async def main() -> None:
        async with CommittingServer() as server, Client(server.url) as client:
            orders = client.stream("orders", content_type="text/plain")
            before = [b"before"] if reused else []
            if reused:
                await orders.append("before")
            server.swallows = 1
            sent = await orders.append("one")
            assert sent.duplicate
            assert server.stored == [*before, b"one"]
            asked = server.appends()
            server.swallows = 1
            with pytest.raises(OutcomeUnknownError, match="not known"):
                await orders.append("two", producer=None)
            assert server.appends() == asked + 1, "it was not sent again"
            assert server.stored == [*before, b"one", b"two"]

    run_async(main)


def test_a_refusal_of_a_large_body_is_heard_and_no_permission_is_asked_for(run_async: RunAsync) -> None:
    async def main() -> None:
        async with CommittingServer() as server, Client(server.url) as client:
            orders = client.stream("orders", content_type="text/plain")
            await orders.append("small")
            server.refuses = True
            with pytest.raises(Unavailable) as caught:
                await orders.append(bytes(16 << 20))
            assert (caught.value.fault.kind, caught.value.fault.code, caught.value.fault.reason) == (
                Kind.EXHAUSTED,
                "ENOSPC",
                "no space",
            )
            assert all("expect" not in head for head in server.heads)
            server.refuses = False
            await asyncio.sleep(caught.value.retry_after_s * 1.5)
            await orders.append("next")
            assert server.stored == [b"small", b"next"], "the next request is none of the old body"

    run_async(main)


def test_a_server_that_comes_back_after_a_while_gets_each_append_once(run_async: RunAsync) -> None:
    async def main() -> None:
        async with CommittingServer() as server, Client(server.url) as client:
            orders = client.stream("orders", content_type="text/plain")
            await orders.append("0")
            port = server.server.sockets[0].getsockname()[1]
            server.server.close()
            for writer in tuple(server.connections):
                writer.transport.abort()
            appends = [asyncio.create_task(orders.append(f"{n}")) for n in range(1, 9)]
            await asyncio.sleep(0.5)
            assert not any(task.done() for task in appends)
            server.server = await asyncio.start_server(server.serve, "127.0.0.1", port)
            await asyncio.gather(*appends)
            assert server.stored == [b"%d" % n for n in range(9)]

    run_async(main)


def test_threads_share_a_blocking_client(run_async: RunAsync) -> None:
    async def main() -> None:
        async with CommittingServer() as server:
            url = server.url

            def work() -> None:
                with BlockingClient(url) as client:
                    orders = client.stream("orders", content_type="text/plain")
                    with ThreadPoolExecutor(4) as pool:
                        list(pool.map(lambda n: orders.append(f"{n}"), range(20)))
                    assert orders.head().next == "a"
                    with pytest.raises(TypeError, match="bytes or text"):
                        orders.append(17)
                with pytest.raises(Stopping):
                    orders.append("late")
                client.close()

            await asyncio.to_thread(work)
            assert sorted(server.stored, key=int) == [b"%d" % n for n in range(20)]
            with pytest.raises(RuntimeError, match="freeze the event loop"):
                BlockingClient(url).stream("orders").head()

    run_async(main)


def test_who_waits_in_another_thread_is_told_when_a_blocking_client_is_closed(run_async: RunAsync) -> None:
    async def main() -> None:
        async with CommittingServer() as server:
            server.server.close()
            client = BlockingClient(server.url if server.server.sockets else "http://127.0.0.1:9", deadline_s=600.0)
            ended: list[type[BaseException]] = []

            def wait() -> None:
                try:
                    list(client.stream("orders").read(follow=True))
                except BaseException as exc:  # noqa: BLE001 - whatever it is
                    ended.append(type(exc))

            thread = threading.Thread(target=wait)
            thread.start()
            await asyncio.sleep(0.5)
            await asyncio.to_thread(client.close)
            await asyncio.to_thread(thread.join, 30.0)
            assert ended == [Stopping]

    run_async(main)
