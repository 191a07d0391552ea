"""A client and a node of ours, on a disk in memory, in virtual time."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from node_rig import serving
from node_transport import NodeTransport
from store_parts import disk_in_memory

from outlast import Unavailable
from outlast.http import AnswerError
from outlast.streams import (
    BeyondTailError,
    Client,
    LimitError,
    StreamClosedError,
    StreamError,
    StreamExistsError,
    StreamNotFoundError,
    StreamOptions,
    TrimmedError,
)
from outlast.streams._client import client as client_module
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.expected_logs


@asynccontextmanager
async def clients(files: Any = None, **options: Any) -> AsyncIterator[tuple[Client, NodeTransport]]:
    async with serving(files, long_poll_s=20.0, **options) as rig:
        transport = NodeTransport(rig.app)
        library = httpx2.AsyncClient(transport=transport, trust_env=False)
        async with Client("http://node", client=library, rng=random.Random(3)) as client:
            yield client, transport


@pytest.mark.parametrize("sse", [False, True], ids=["polls", "events"])
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/octet-stream"])
def test_what_is_appended_is_read_and_followed_to_the_end(content_type: str, *, sse: bool) -> None:
    async def main() -> None:
        async with clients() as (client, _):
            orders = await client.create("a/ä b", content_type=content_type, data=b"1")
            assert (await orders.head()).content_type == content_type
            got: list[bytes] = []

            async def tail() -> None:
                async for batch in orders.read(follow=True, sse=sse):
                    is_json = "json" in content_type
                    got.append(b"".join(b"%d" % each for each in batch.messages) if is_json else batch.data)

            task = asyncio.create_task(tail())
            for number in range(2, 9):
                await asyncio.sleep(30.0)
                sent = await orders.append(b"%d" % number, close=number == 8)
                assert (sent.duplicate, sent.closed) == (False, number == 8)
            await task
            assert b"".join(got) == b"12345678"
            with pytest.raises(StreamClosedError):
                await orders.append(b"9")
            assert (await orders.close()).closed
            await orders.delete()
            with pytest.raises(StreamNotFoundError):
                await orders.delete()

    run_virtual(main)


def test_create_says_what_is_there_already() -> None:
    async def main() -> None:
        async with clients() as (client, _):
            await client.create("a", content_type="text/plain", ttl_s=60)
            await client.create("a", content_type="text/plain", ttl_s=60, exist_ok=True)
            with pytest.raises(StreamExistsError, match="same options"):
                await client.create("a", content_type="text/plain", ttl_s=60)
            with pytest.raises(StreamExistsError, match="other options"):
                await client.create("a", content_type="application/json", exist_ok=True)
            later = "2999-01-01T00:00:00Z"
            await client.create("b", expires_at=later, closed=True, data=b"all")
            closed = await client.stream("b").head()
            assert (closed.expires_at, closed.closed) == (later, True)
            head = await client.stream("a").head()
            assert (head.ttl_s, head.expires_at, head.closed) == (60, None, False)

    run_virtual(main)


def test_positions_that_are_gone_or_never_were_name_what_is_there() -> None:
    async def main() -> None:
        async with clients() as (client, _):
            orders = await client.create("orders", content_type="application/json", data=list(range(10)))
            assert await orders.trim(4) == (4, 10)
            for follow in (False, True):
                with pytest.raises(TrimmedError) as trimmed:
                    await anext(orders.read(f"{2:016d}", follow=follow))
                assert (trimmed.value.position, trimmed.value.oldest, trimmed.value.tail) == (2, 4, 10)
                with pytest.raises(BeyondTailError) as beyond:
                    await anext(orders.read(f"{99:016d}", follow=follow))
                assert (beyond.value.position, beyond.value.oldest, beyond.value.tail) == (99, 4, 10)
            with pytest.raises(TrimmedError):
                await orders.records(2)

    run_virtual(main)


def test_a_stream_that_is_deleted_or_trimmed_under_a_tail_of_events_says_so() -> None:
    async def main() -> None:
        async with clients() as (client, _):
            orders = await client.create("orders", content_type="text/plain", data="x")

            async def tail() -> None:
                async for _batch in orders.read(follow=True, sse=True):
                    pass

            task = asyncio.create_task(tail())
            await asyncio.sleep(5.0)
            await orders.delete()
            with pytest.raises(StreamNotFoundError):
                await task

    run_virtual(main)


def test_records_list_usage_and_verify() -> None:
    async def main() -> None:
        async with clients() as (client, _):
            orders = await client.create("orders/é", content_type="application/json", data=[{"id": 1}, 2])
            raw = await client.create("raw", data=b"\xff\x00")
            page = await orders.records()
            assert [(record.position, record.data) for record in page.records] == [(0, b'{"id":1}'), (1, b"2")]
            assert (page.next, page.oldest, page.tail, page.closed) == (2, 0, 2, False)
            assert page.records[0].time > 0
            assert [record.data for record in (await raw.records(0, limit=1)).records] == [b"\xff\x00"]
            began_at = asyncio.get_running_loop().time()
            assert (await orders.records(2, wait_s=5.0)).records == ()
            assert asyncio.get_running_loop().time() - began_at >= 5.0
            infos = [info async for info in client.list()]
            assert [(info.name, info.oldest, info.tail, info.closed) for info in infos] == [
                ("orders/é", 0, 2, False),
                ("raw", 0, 1, False),
            ]
            assert [info.name async for info in client.list("r")] == ["raw"]
            assert (await orders.info()).id == infos[0].id
            [volume] = await client.usage()
            assert (volume.streams, volume.state, volume.cause, volume.backlog_appends) == (2, "up", "", 0)
            with pytest.raises(StreamNotFoundError):
                await client.stream("none").info()

    run_virtual(main)


def test_a_consumer_has_its_place_at_the_node() -> None:
    async def main() -> None:
        async with clients() as (client, transport):
            orders = await client.create("orders", content_type="text/plain")
            billing = await orders.consumer("billing", lease_s=10.0, deliveries_max=2)
            for number in range(4):
                await orders.append(f"{number}")
            got = await billing.fetch(3)
            assert [(each.position, each.data, each.deliveries) for each in got] == [(0, b"0", 1), (1, b"1", 1), (2, b"2", 1)]
            await billing.acknowledge(0, 1)
            assert await billing.lag() == 2
            assert await billing.renew(2) == (2,)
            await billing.release(2)
            assert [each.deliveries for each in await billing.fetch(1)] == [2]
            await asyncio.sleep(11.0)
            assert [each.position for each in await billing.fetch()] == [3], "handed out too often, 2 is set aside"
            info = await billing.info()
            assert (info.lag, info.set_aside, [each.name for each in await orders.consumers()]) == (
                1,
                (range(2, 3),),
                ["billing"],
            )
            await billing.put_back(2)
            assert [each.position for each in await billing.fetch()] == [2]
            await billing.acknowledge(2, 3)
            assert await billing.fetch(wait_s=5.0) == []
            await orders.close()
            with pytest.raises(StreamClosedError):
                await billing.fetch()
            await orders.delete_consumer("billing")
            assert await orders.consumers() == []
            assert all("billing" in url or "orders" in url for _, url in transport.requests)

    run_virtual(main)


def test_a_check_of_every_byte_is_asked_of_the_node() -> None:
    async def main() -> None:
        async with clients() as (client, _):
            await client.create("orders", data=b"x")
            [check] = await client.verify()
            assert (check.is_healthy, check.streams, check.records, check.findings) == (True, 1, 1, ())
            assert await client.verify("/disk") == (check,)

    run_virtual(main)


def test_a_list_of_many_pages_is_asked_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAGE", 2)

    async def main() -> None:
        async with clients() as (client, transport):
            for number in range(5):
                await client.create(f"s{number}")
            transport.requests.clear()
            assert [info.name async for info in client.list()] == [f"s{number}" for number in range(5)]
            assert len(transport.requests) == 3

    run_virtual(main)


def test_a_consumer_says_its_settings_again_to_a_node_that_was_started_again() -> None:
    async def main() -> None:
        files = disk_in_memory()
        async with serving(files) as rig:
            transport = NodeTransport(rig.app)
            client = Client("http://node", client=httpx2.AsyncClient(transport=transport, trust_env=False))
            orders = await client.create("orders", content_type="text/plain", data="x")
            billing = await orders.consumer("billing", lease_s=7.0)
            assert repr(billing) == "<ClientConsumer 'billing' of stream 'orders'>"
        async with serving(files) as rig:
            transport.app = rig.app
            assert [each.data for each in await billing.fetch()] == [b"x"]
            assert [request for request in transport.requests if request[0] == "PUT"][-1][1].endswith("/consumers/billing")
            with pytest.raises(StreamError):
                await billing.acknowledge(99)
            await orders.delete()
            with pytest.raises(StreamNotFoundError):
                await billing.fetch()

    run_virtual(main)


def test_a_refusal_of_a_node_reads_as_that_of_the_process() -> None:
    async def main() -> None:
        async with serving(options=StreamOptions(quota_bytes=2000)) as rig:
            library = httpx2.AsyncClient(transport=NodeTransport(rig.app), trust_env=False)
            client = Client("http://node", client=library)
            orders = await client.create("orders")
            with pytest.raises(LimitError) as there:
                await orders.append(bytes(5000))
            stream = await rig.streams.open("orders")
            with pytest.raises(LimitError) as here:
                await stream.append(bytes(5000))
            # With the framing it is 264 bytes more.
            assert str(there.value) == str(here.value).replace("5264", "5000")
            await orders.close()
            with pytest.raises(StreamClosedError) as there_closed:
                await orders.append(b"x")
            with pytest.raises(StreamClosedError) as here_closed:
                await stream.append(b"x")
            assert str(there_closed.value) == str(here_closed.value)

    run_virtual(main)


def test_what_only_a_node_has_is_said_to_be_missing_elsewhere() -> None:
    async def main() -> None:
        library = httpx2.AsyncClient(transport=httpx2.MockTransport(lambda _: httpx2.Response(404)), trust_env=False)
        async with Client("http://elsewhere", client=library) as client:
            with pytest.raises(Exception, match="no node of Outlast"):
                await client.stream("orders").records()
            with pytest.raises(AnswerError, match="404"):
                await client.usage()

    run_virtual(main)


def test_eight_clients_of_a_full_disk_are_told_one_first_cause_and_all_go_on_when_there_is_room() -> None:
    async def main() -> None:
        files = disk_in_memory()
        async with serving(files) as rig, AsyncExitStack() as stack:
            transport = NodeTransport(rig.app)
            libraries = [httpx2.AsyncClient(transport=transport, trust_env=False) for _ in range(8)]
            made = [Client("http://node", client=each, rng=random.Random(n)) for n, each in enumerate(libraries)]
            orders = [
                await (await stack.enter_async_context(client)).create("orders", content_type="application/json", exist_ok=True)
                for client in made
            ]
            causes: list[tuple[str, str]] = []
            stored: list[list[int]] = [[] for _ in orders]

            async def write(n: int) -> None:
                number = 0
                while True:
                    try:
                        await orders[n].append({"of": n, "number": number})
                    except Unavailable as refusal:
                        causes.append((refusal.fault.code, refusal.fault.kind.value))
                        await asyncio.sleep(refusal.retry_after_s)
                    else:
                        stored[n].append(number)
                        await asyncio.sleep(0.2)
                    number += 1

            tasks = [asyncio.create_task(write(n)) for n in range(8)]
            await asyncio.sleep(1.0)
            files.fill()
            await asyncio.sleep(15.0)
            full = [len(each) for each in stored]
            assert len(set(causes)) == 1, set(causes)
            files.free()
            await asyncio.sleep(6.0)
            assert all(len(each) > before for each, before in zip(stored, full, strict=True))
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            messages = [(m["of"], m["number"]) async for batch in orders[0].read() for m in batch.messages]
            acknowledged = {(n, number) for n, numbers in enumerate(stored) for number in numbers}
            assert len(messages) == len(set(messages)), "stored once"
            assert acknowledged <= set(messages)
            assert len(messages) - len(acknowledged) <= 8, "one append of each was under way at the end"

    run_virtual(main)
