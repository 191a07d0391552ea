"""The node of streams keeps the promises of a server."""

from __future__ import annotations

import contextlib
from random import Random
from typing import TYPE_CHECKING

import pytest
from served import serving
from server_contract import Rig, ServerContract

import outlast
from fake_files import FakeFiles
from outlast.disk import Disk
from outlast.http import Limits, Server, Tokens
from outlast.streams import Node, Streams

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import LogWatch, RunAsync

READER = "reader-0123456789-of-the-node"
WRITER = "writer-0123456789-of-the-node"
MIB = 1 << 20


class NodeRig(Rig):
    reader = READER
    writer = WRITER
    ok = upload = "/v1/stream/orders"
    large = "/v1/stream/large"
    poll = "/v1/stream/orders?offset=now&live=long-poll"
    events = "/v1/stream/orders?offset=-1&live=sse"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._admission = outlast.Admission("node")
        self._posts = 0

    def make(self, limits: Limits, deadline_s: float) -> tuple[outlast.Service, Server]:
        service = outlast.Service("node", deadline_s=deadline_s)
        self._admission = outlast.Admission("node")
        self._admission.attach(service)
        streams = Streams(self._folder)
        streams.attach(service)

        async def fill() -> None:
            await streams.create("orders", records=[b"one"], exist_ok=True)
            await streams.create("large", records=[bytes(MIB)] * 16, exist_ok=True)

        service.on_start(fill)
        node = Node(streams, long_poll_s=120.0, chunk_bytes=20 * MIB).attach(service)
        tokens = Tokens([f"reader read {READER}", f"writer read,write {WRITER}"])
        return service, Server(node, "127.0.0.1:0", limits=limits, tokens=tokens, admission=self._admission).attach(service)

    def post(self, body: bytes, *headers: str, sends: bool = True) -> bytes:
        """Append as a producer that nobody has seen: what is stored of it is answered 200."""
        self._posts += 1
        mine = ("Content-Type: application/octet-stream", f"Producer-Id: {self._posts}", "Producer-Epoch: 0", "Producer-Seq: 0")
        return super().post(body, *mine, *headers, sends=sends)


class TestTheNode(ServerContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> NodeRig:
        return NodeRig(tmp_path)


FULL = b"POST /v1/stream/orders HTTP/1.1\r\nHost: node\r\nContent-Type: application/octet-stream\r\n"
NEXT = b"GET /v1/stream/orders?offset=now HTTP/1.1\r\nHost: node\r\n\r\n"


def test_an_append_that_a_full_disk_refuses_is_refused_before_it_is_sent(run_async: RunAsync, expected_logs: LogWatch) -> None:
    """Nobody is told `100 Continue`, and what was sent all the same is never taken for the next request."""

    async def main() -> None:
        files = FakeFiles(Random(1), capacity_bytes=8 * MIB)
        files.make_folder("/disk")
        async with Streams(Disk("/disk", name="disk", files=files, rng=Random(1))) as streams:
            orders = await streams.create("orders")
            async with serving(Node(streams), limits=Limits(body_bytes_max=1 << 30)) as served:
                async with await served.connect() as client:
                    client.send(FULL + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
                    assert (await client.answer()).status == 100
                    client.send(b"12345")
                    assert (await client.answer()).status == 204
                with contextlib.suppress(outlast.Unavailable):
                    while True:
                        await orders.append(bytes(100_000))
                tail = orders.tail
                async with await served.connect() as client:
                    client.send(FULL + b"Content-Length: 1073741824\r\nExpect: 100-continue\r\n\r\n")
                    answer = await client.answer()
                    assert (answer.status, answer.code, answer.headers["connection"]) == (507, orders_code, "close")
                    assert await client.rest() == b""
                async with await served.connect() as client:
                    client.send(
                        FULL + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % len(NEXT) + NEXT + b"\r\n0\r\n\r\n" + NEXT
                    )
                    client.half_close()
                    answer = await client.answer()
                    assert answer.status == 507
                    # Either the connection ends, or the request behind the body is answered: never the one inside of it.
                    if answer.headers.get("connection") != "close":
                        assert (await client.answer()).status == 200
                    assert await client.rest() == b""
                assert orders.tail == tail

    orders_code = "low space"
    expected_logs("disk is down: EXHAUSTED")
    run_async(main)
