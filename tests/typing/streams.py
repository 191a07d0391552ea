"""Streams, as a service uses them. Nothing here is run: mypy and basedpyright read it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import assert_type

import outlast
from outlast.admission import TooLargeError
from outlast.disk import Disk
from outlast.http import Server
from outlast.streams import (
    Appended,
    AppendTooLargeError,
    BeyondTailError,
    Chunk,
    Consumer,
    DamagedError,
    ExpiredError,
    FencedError,
    LimitError,
    Listed,
    Node,
    OutcomeUnknownError,
    PositionMismatchError,
    Producer,
    Record,
    Retention,
    SequenceError,
    Stream,
    StreamClosedError,
    StreamError,
    StreamExistsError,
    StreamNotFoundError,
    StreamOptions,
    Streams,
    TrimmedError,
)

service = outlast.Service("shop")
one = Streams("/var/lib/shop")
two = Streams([Disk("/mnt/a", name="a"), "/mnt/b"], name="orders", admission=outlast.Admission("appends"), backlog_max=1_000)
one.attach(service)
kept = StreamOptions(sync_every_s=1.0, retention=Retention(age_s=86_400.0, when_low=True), quota_bytes=1 << 30)
node = Node(one, options=kept, long_poll_s=20.0, sse_s=30.0, chunk_bytes=1 << 16, body_bytes_max=1 << 20).attach(service)
assert_type(node, Node)
Server(node, "127.0.0.1:4437").attach(service)


async def come_and_go() -> None:
    async with two as streams:
        assert_type(streams, Streams)
        orders = await streams.create("orders", kept, volume="a", exist_ok=True)
        assert_type(orders, Stream)
        assert_type(streams.names(), list[str])
        orders = await streams.create("more", labels={"content-type": "text/plain"}, records=[b"one"], closed=True, start=5)
        assert_type([(each.name, each.id, each.created) for each in streams.listed()], list[tuple[str, str, float]])
        assert_type([each.labels for each in streams.listed()], list[Mapping[str, str]])
        assert_type(streams.listed(), list[Listed])
        assert_type(streams.labels("orders"), Mapping[str, str] | None)
        assert_type(streams.find("orders"), Stream | None)
        assert_type(streams.disks, list[Disk])
        await streams.delete("orders")
    assert_type(await one.open("orders"), Stream)


async def append(orders: Stream) -> None:
    orders.check()
    assert_type(await orders.append(b"one"), Appended)
    await orders.append([b"one", b"two"], headers={"kind": "order"}, deadline_s=1.0)
    await orders.append((b"one", b"two"), headers=[{"a": "b"}, {}], producer=Producer("till 7", 0, 1))
    got = await orders.append(b"one", at=orders.tail)
    assert_type((got.first, got.next, got.duplicate), tuple[int, int, bool])
    await orders.append([], producer=Producer("till 7", 0, 2), close=True)
    assert_type(orders.producer_state("till 7"), tuple[int, int] | None)
    await orders.label({**orders.labels, "closed by": "till 7"})


async def read(orders: Stream) -> None:
    async with aclosing(orders.read(orders.oldest, follow=True)) as records:
        async for record in records:
            assert_type(record, Record)
            assert_type((record.position, record.data, record.time), tuple[int, bytes, float])
            assert_type(record.headers.get("kind"), str | None)
    async for chunk in orders.chunks():
        assert_type(chunk, Chunk)
    chunk = await orders.fetch(0, bytes_max=1 << 20, wait_s=10.0, until=lambda: orders.is_closed)
    assert_type((chunk.first, chunk.next, len(chunk)), tuple[int, int, int])
    assert_type(list(chunk), list[Record])
    assert_type(chunk.records[0], bytes)
    await orders.trim(chunk.next)
    await orders.close()
    await orders.delete()
    assert_type((orders.name, orders.id, orders.is_closed, orders.size_bytes), tuple[str, str, bool, int])
    assert_type(orders.options, StreamOptions)
    assert_type((orders.created, orders.volume, orders.segments, orders.producers), tuple[float, str, int, int])
    assert_type([cursor.name for cursor in await orders.cursors()], list[str])
    assert_type(orders.used_consumer("billing"), Consumer | None)


def told(error: StreamError | TooLargeError) -> object:  # noqa: PLR0911 - one of each
    match error:
        case TrimmedError() | BeyondTailError():
            return assert_type((error.position, error.oldest, error.tail), tuple[int, int, int])
        case PositionMismatchError():
            return assert_type((error.at, error.tail), tuple[int, int])
        case FencedError():
            return assert_type((error.producer, error.epoch, error.newest), tuple[str, int, int])
        case SequenceError():
            return assert_type((error.sequence, error.expected), tuple[int, int])
        case DamagedError():
            return assert_type((error.segment, error.position, error.reason, error.next), tuple[str, int, str, int | None])
        case AppendTooLargeError():
            return assert_type((error.what, error.seen, error.limit), tuple[str, int, int])
        case OutcomeUnknownError() | ExpiredError() | LimitError() | StreamClosedError():
            return assert_type(error.stream, str)
        case StreamExistsError() | StreamNotFoundError():
            return assert_type(error.kind, outlast.Kind)
        case _:
            return assert_type(error, StreamError | TooLargeError)
