"""A blocking client in a thread, and a node in another: everything it has, once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import outlast
from outlast.http import Server
from outlast.streams import BlockingClient, Node, StreamClosedError, Streams, TrimmedError

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunAsync

pytestmark = pytest.mark.expected_logs


def use(url: str) -> None:
    with BlockingClient(url) as client:
        assert repr(client) == f"<BlockingClient {url.removeprefix('http://')} up>"
        orders = client.create("orders", content_type="application/json", data=[1, 2])
        assert repr(orders) == "<BlockingStream 'orders'>"
        assert not orders.append(3).duplicate
        assert [batch.messages for batch in orders.read()] == [[1, 2, 3]]
        assert [record.data for record in orders.records(1).records] == [b"2", b"3"]
        assert [info.name for info in client.list()] == ["orders"]
        assert orders.info().tail == 3
        assert [volume.streams for volume in client.usage()] == [1]
        assert [check.is_healthy for check in client.verify()] == [True]

        billing = orders.consumer("billing", lease_s=60.0)
        assert repr(billing) == "<BlockingConsumer 'billing' of stream 'orders'>"
        assert [each.position for each in billing.fetch()] == [0, 1, 2]
        billing.acknowledge(0)
        assert billing.renew(1, 2) == (1, 2)
        billing.release(1)
        billing.put_back(0)
        assert (billing.lag(), billing.info().next) == (2, 3)
        assert [each.name for each in orders.consumers()] == ["billing"]
        orders.delete_consumer("billing")

        # A reader that is left ends, and one that follows does at the close.
        for _batch in orders.read(follow=True):
            break
        assert orders.trim(1) == (1, 3)
        with pytest.raises(TrimmedError):
            orders.records(0)
        assert orders.close().closed
        assert [batch.closed for batch in orders.read("now", follow=True, sse=True)] == [True]
        with pytest.raises(StreamClosedError):
            client.stream("orders").append(4)
        assert orders.head().closed
        orders.delete()


def test_everything_without_await(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        service = outlast.Service("shop", deadline_s=10.0)
        streams = Streams(tmp_path)
        streams.attach(service)
        server = Server(Node(streams).attach(service), "127.0.0.1:0").attach(service)
        done = []

        @service.task()
        async def try_it(stop: outlast.Stop) -> None:
            await asyncio.to_thread(use, f"http://127.0.0.1:{server.port}")
            done.append(stop)
            service.stop("it was tried")

        assert await service.run() == 0
        assert done

    run_async(main)
