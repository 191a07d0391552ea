"""The client of streams, as a program uses it. Nothing here is run: mypy and basedpyright read it."""

from __future__ import annotations

from typing import Any, assert_type

import outlast
from outlast.admission import Throttle
from outlast.http import HttpPeer
from outlast.streams import (
    Batch,
    BlockingClient,
    BlockingConsumer,
    BlockingStream,
    Client,
    ClientConsumer,
    ClientStream,
    ConsumerInfo,
    Delivered,
    OffsetGoneError,
    OutcomeUnknownError,
    Producer,
    Record,
    RecordPage,
    Sent,
    StaleAnswerError,
    StreamHead,
    StreamInfo,
    VolumeCheck,
    VolumeUsage,
)

client = Client("http://127.0.0.1:4437", token="t", deadline_s=10.0, attempt_s=5.0, throttle=Throttle(), connections_max=10)
assert_type(client.peer, HttpPeer)
service = outlast.Service("shop")


@service.loop(needs=client.peer)
async def produce(stop: outlast.Stop) -> None:
    orders = await client.create("orders", content_type="application/json", ttl_s=60, data=[{"id": 1}], exist_ok=True)
    assert_type(orders, ClientStream)
    try:
        sent = await orders.append({"id": 2}, deadline_s=1.0, wait_for_room=True)
        assert_type(sent, Sent)
        assert_type((sent.next, sent.duplicate, sent.closed), tuple[str, bool, bool])
    except OutcomeUnknownError as error:
        assert_type(error.producer, Producer | None)
        await orders.append({"id": 2}, producer=error.producer)
    await orders.append(b"{}", producer=None, close=True)
    assert_type(await orders.close(), Sent)
    await orders.trim(10)
    await orders.delete()


async def read() -> None:
    async with Client("https://streams.internal", prefix="/streams") as elsewhere:
        orders = elsewhere.stream("orders", content_type="text/plain")
        head = await orders.head()
        assert_type(head, StreamHead)
        assert_type(
            (head.name, head.next, head.closed, head.ttl_s, head.expires_at), tuple[str, str, bool, int | None, str | None]
        )
        try:
            async for batch in orders.read("now", follow=True):
                assert_type(batch, Batch)
                assert_type((batch.data, batch.messages, batch.next), tuple[bytes, list[Any], str])
                assert_type((batch.up_to_date, batch.closed), tuple[bool, bool])
        except StaleAnswerError as error:
            assert_type((error.offset, error.answered), tuple[str, str])
        except OffsetGoneError as error:
            assert_type(error.stream, str)


async def beside() -> None:
    async for info in client.list("orders/"):
        assert_type(info, StreamInfo)
    assert_type(await client.usage(), tuple[VolumeUsage, ...])
    assert_type(await client.verify("a"), tuple[VolumeCheck, ...])
    orders = client.stream("orders")
    page = await orders.records(7, limit=10, wait_s=1.0)
    assert_type(page, RecordPage)
    assert_type(page.records, tuple[Record, ...])
    billing = await orders.consumer("billing", lease_s=10.0)
    assert_type(billing, ClientConsumer)
    got = await billing.fetch(10, wait_s=20.0)
    assert_type(got, list[Delivered])
    await billing.acknowledge(*(each.position for each in got))
    assert_type(await billing.renew(1), tuple[int, ...])
    assert_type(await billing.info(), ConsumerInfo)
    assert_type(await orders.consumers(), list[ConsumerInfo])


def blocking() -> None:
    with BlockingClient("http://127.0.0.1:4437", deadline_s=5.0) as threads:
        orders = threads.create("orders", exist_ok=True)
        assert_type(orders, BlockingStream)
        assert_type(orders.append(b"one"), Sent)
        for batch in orders.read(follow=True, sse=True):
            assert_type(batch, Batch)
        billing = orders.consumer("billing")
        assert_type(billing, BlockingConsumer)
        assert_type(billing.fetch(), list[Delivered])
        for info in threads.list():
            assert_type(info, StreamInfo)
