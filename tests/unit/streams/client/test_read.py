"""Reading by a client: pieces, tails that resume where they broke, and answers that are not to be believed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from client_site import Site

from outlast import Stopping, Unavailable
from outlast.http import AnswerTooLargeError
from outlast.streams import (
    BeyondTailError,
    DamagedError,
    OffsetGoneError,
    StaleAnswerError,
    StreamError,
    StreamNotFoundError,
    TrimmedError,
)
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from outlast.streams import Batch, Client, ClientStream

pytestmark = pytest.mark.expected_logs


async def with_records(site: Site, count: int, **options: Any) -> tuple[Client, ClientStream]:
    client = site.made(**options)
    orders = await client.create("orders", content_type="application/json")
    if count:
        await orders.append(list(range(count)))
    site.requests.clear()
    return client, orders


async def all_of(stream: ClientStream, offset: str = "-1", **options: Any) -> list[Batch]:
    return [batch async for batch in stream.read(offset, **options)]


def messages(batches: list[Batch]) -> list[Any]:
    return [message for batch in batches for message in batch.messages]


def test_a_stream_is_read_in_pieces_to_its_tail() -> None:
    async def main() -> None:
        site = Site()
        _, orders = await with_records(site, 7)
        batches = await all_of(orders)
        assert [batch.messages for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
        assert [batch.up_to_date for batch in batches] == [False, False, True]
        assert messages(await all_of(orders, batches[1].next)) == [6]
        [last] = await all_of(orders, batches[2].next)
        assert (last.messages, last.up_to_date, last.closed) == ([], True, False)
        [now] = await all_of(orders, "now")
        assert (now.messages, now.next) == ([], batches[2].next)
        await orders.close()
        assert [batch.closed for batch in await all_of(orders)] == [False, False, True]

    run_virtual(main)


def test_an_empty_stream_is_read_to_its_end() -> None:
    async def main() -> None:
        site = Site()
        _, orders = await with_records(site, 0)
        assert len(await all_of(orders)) == 1
        await orders.close()
        [only] = await all_of(orders, follow=True)
        assert only.closed
        assert len(site.asked("GET")) == 2

    run_virtual(main)


@pytest.mark.parametrize("sse", [False, True], ids=["polls", "events"])
def test_a_tail_goes_on_where_it_broke_and_ends_when_the_stream_is_closed(*, sse: bool) -> None:
    async def main() -> None:
        site = Site()
        client, orders = await with_records(site, 4)
        got: list[Any] = []

        async def tail() -> None:
            async for batch in orders.read(follow=True, sse=sse):
                got.extend(batch.messages)

        task = asyncio.create_task(tail())
        await asyncio.sleep(1.0)
        for number in range(4, 10):
            site.script = [None, site.drop, site.say(503, "stopping", "stopping"), site.refuse, site.plain(502)]
            await client.stream("orders").append(number)
            await asyncio.sleep(60.0)
        await orders.append(10, close=True)
        await asyncio.wait_for(task, 120.0)
        assert got == list(range(11))

    run_virtual(main)


def test_a_tail_waits_for_a_server_that_is_away_as_long_as_it_takes() -> None:
    async def main() -> None:
        site = Site()
        client, orders = await with_records(site, 1)
        away = True

        async def gone(request: Any) -> Any:
            found = site.refuse(request) if away else site.answer(request)
            return await found if asyncio.iscoroutine(found) else found

        got: list[Any] = []

        async def tail() -> None:
            async for batch in orders.read(follow=True):
                got.extend(batch.messages)

        site.always = gone
        site.methods = {"GET", "HEAD", "POST"}
        task = asyncio.create_task(tail())
        await asyncio.sleep(600.0)
        assert (got, client.peer.passable) == ([], False)
        away = False
        await asyncio.sleep(30.0)
        assert got == [0]
        task.cancel()
        await asyncio.wait({task})

    run_virtual(main)


def test_without_follow_a_server_that_is_away_is_unavailable_at_the_deadline() -> None:
    async def main() -> None:
        site = Site()
        _, orders = await with_records(site, 1)
        site.methods.add("HEAD")
        site.always = site.refuse
        began_at = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable, match="refused"):
            await all_of(orders, deadline_s=5.0)
        assert asyncio.get_running_loop().time() - began_at <= 6.0

    run_virtual(main)


def test_a_server_that_answers_nothing_at_once_is_not_asked_in_a_hot_loop() -> None:
    async def main() -> None:
        site = Site()
        _, orders = await with_records(site, 2)
        headers = {"content-type": "application/json", "stream-next-offset": "ac", "stream-up-to-date": "true"}
        site.always = site.plain(200, b"[]", headers)

        async def tail() -> None:
            async for _ in orders.read("ac", follow=True):
                pass

        task = asyncio.create_task(tail())
        await asyncio.sleep(60.0)
        assert 5 < len(site.asked("GET")) < 30
        task.cancel()
        await asyncio.wait({task})

    run_virtual(main)


@pytest.mark.parametrize(
    ("following", "body"),
    [("aa", b"[0]"), ("ac", b"[1]"), ("ac", b"[]"), ("", b"[3]")],
    ids=["backwards", "data without progress", "nothing, and more", "no offset"],
)
def test_an_answer_that_cannot_be_is_asked_for_once_more_past_the_caches(following: str, body: bytes) -> None:
    async def main() -> None:
        site = Site()
        _, orders = await with_records(site, 4)
        headers = {"content-type": "application/json", "age": "600"}
        stale = site.plain(200, body, headers | ({"stream-next-offset": following} if following else {}))
        site.script = [stale]
        assert messages(await all_of(orders, "ac")) == [2, 3]
        assert [r.headers.get("cache-control") for r in site.asked("GET")] == [None, "no-cache"]
        site.script = [stale, stale]
        with pytest.raises(StaleAnswerError, match="orders") as caught:
            await all_of(orders, "ac")
        assert (caught.value.offset, caught.value.answered) == ("ac", following)
        assert len(site.asked("GET")) == 4

    run_virtual(main)


def test_what_a_cache_calls_up_to_date_is_asked_past_it() -> None:
    async def main() -> None:
        site = Site()
        _, orders = await with_records(site, 4)
        headers = {"content-type": "application/json", "age": "600", "stream-next-offset": "ac", "stream-up-to-date": "true"}
        site.script = [site.plain(200, b"[0,1]", headers)]
        assert messages(await all_of(orders)) == [0, 1, 2, 3]
        assert [r.headers.get("cache-control") for r in site.asked("GET")] == [None, "no-cache"]

    run_virtual(main)


def test_positions_that_are_not_there_are_typed_and_name_what_is() -> None:
    async def main() -> None:
        site = Site()
        _, orders = await with_records(site, 4)
        gone = {"oldest": "0000000000000007", "tail": "0000000000000009"}
        for follow in (False, True):
            site.script = [site.say(410, "trimmed", "rejected", **gone)]
            with pytest.raises(TrimmedError) as trimmed:
                await all_of(orders, "0000000000000003", follow=follow)
            assert (trimmed.value.position, trimmed.value.oldest, trimmed.value.tail) == (3, 7, 9)
            site.script = [site.say(400, "beyond the tail", "rejected", **gone)]
            with pytest.raises(BeyondTailError) as beyond:
                await all_of(orders, "0000000000000100", follow=follow)
            assert (beyond.value.position, beyond.value.oldest, beyond.value.tail) == (100, 7, 9)
            site.script = [site.plain(410)]
            with pytest.raises(OffsetGoneError):
                await all_of(orders, "aa", follow=follow)
            site.script = [site.say(500, "damaged", "permanent", position="0000000000000002", next=None, detail="crc")]
            with pytest.raises(DamagedError) as damaged:
                await all_of(orders, follow=follow)
            assert (damaged.value.position, damaged.value.next) == (2, None)

    run_virtual(main)


@pytest.mark.parametrize("sse", [False, True], ids=["polls", "events"])
def test_a_stream_that_is_deleted_under_a_tail_is_an_error_and_no_end(*, sse: bool) -> None:
    async def main() -> None:
        site = Site()
        _, orders = await with_records(site, 1)
        task = asyncio.create_task(all_of(orders, follow=True, sse=sse))
        await asyncio.sleep(1.0)
        await orders.delete()
        site.changed.set()
        with pytest.raises(StreamNotFoundError):
            await task

    run_virtual(main)


def test_long_polls_echo_the_cursor_and_sort_the_query() -> None:
    async def main() -> None:
        site = Site()
        _, orders = await with_records(site, 1)
        task = asyncio.create_task(all_of(orders, follow=True))
        await asyncio.sleep(60.0)
        assert [request.url.query for request in site.asked("GET")] == [
            b"offset=-1",
            b"live=long-poll&offset=ab",
            b"cursor=1&live=long-poll&offset=ab",
            b"cursor=2&live=long-poll&offset=ab",
        ]
        task.cancel()
        await asyncio.wait({task})

    run_virtual(main)


def test_a_poll_that_hangs_ends_and_the_tail_goes_on() -> None:
    async def main() -> None:
        site = Site()
        _, orders = await with_records(site, 2)
        site.script = [None, site.hang]
        task = asyncio.create_task(all_of(orders, follow=True))
        await asyncio.sleep(90.0)
        await orders.append("more", close=True)
        assert messages(await task) == [0, 1, "more"]

    run_virtual(main)


@pytest.mark.parametrize("content_type", ["application/json", "application/octet-stream", "text/plain"])
def test_events_that_are_cut_anywhere_are_read_once_each(content_type: str) -> None:
    async def main() -> None:
        site = Site()
        client = site.made()
        orders = await client.create("orders", content_type=content_type)
        site.cuts = [*range(9), None]
        got: list[Batch] = []

        async def tail() -> None:
            got.extend([batch async for batch in orders.read(follow=True, sse=True)])

        task = asyncio.create_task(tail())
        for number in range(20):
            await asyncio.sleep(7.0)
            await orders.append(b"%d" % number, close=number == 19)
        await task
        if content_type == "application/json":
            assert messages(got) == list(range(20))
        else:
            assert b"".join(batch.data for batch in got) == b"".join(b"%d" % number for number in range(20))
        assert all(request.headers["accept"] == "text/event-stream" for request in site.asked("GET")[1:])

    run_virtual(main)


def test_a_server_that_ends_each_event_stream_at_once_is_not_asked_in_a_hot_loop() -> None:
    async def main() -> None:
        site = Site()
        _, orders = await with_records(site, 2)
        for content in (b"", b'event: control\ndata: {"streamNextOffset":"ac","streamCursor":"1","upToDate":true}\n\n'):
            site.requests.clear()
            site.script, site.always = [None], site.plain(200, content, {"content-type": "text/event-stream"})
            task = asyncio.create_task(all_of(orders, follow=True, sse=True))
            await asyncio.sleep(60.0)
            assert 5 < len(site.asked("GET")) < 30
            task.cancel()
            await asyncio.wait({task})

    run_virtual(main)


@pytest.mark.parametrize(
    "content",
    [b"event: control\ndata: {}\n\n", b"event: control\ndata: no\n\n", b"event: data\ndata: " + b"x" * 3000 + b"\n\n"],
)
def test_events_that_are_none_of_the_protocol_are_an_error(content: bytes) -> None:
    async def main() -> None:
        site = Site()
        _, orders = await with_records(site, 2, body_bytes_max=2000)
        site.script, site.always = [None], site.plain(200, content, {"content-type": "text/event-stream"})
        with pytest.raises(StreamError, match="none of the protocol"):
            await all_of(orders, follow=True, sse=True)

    run_virtual(main)


def test_events_that_go_backwards_are_asked_for_once_more_and_are_then_an_error() -> None:
    async def main() -> None:
        site = Site()
        _, orders = await with_records(site, 4)
        old = b'event: data\ndata: [0]\n\nevent: control\ndata: {"streamNextOffset":"ab","streamCursor":"1"}\n\n'
        site.script, site.always = [None, None], site.plain(200, old, {"content-type": "text/event-stream"})
        got: list[Batch] = []

        async def tail() -> None:
            async for batch in orders.read(follow=True, sse=True):
                got.append(batch)  # noqa: PERF401 - those before the error are looked at

        with pytest.raises(StaleAnswerError):
            await tail()
        assert messages(got) == [0, 1, 2, 3]
        assert [r.headers.get("cache-control") for r in site.asked("GET")[2:]] == [None, "no-cache"]

    run_virtual(main)


@pytest.mark.parametrize("sse", [False, True], ids=["polls", "events"])
def test_a_tail_of_a_client_that_is_closed_ends_with_stopping(*, sse: bool) -> None:
    async def main() -> None:
        site = Site()
        client, orders = await with_records(site, 1)
        task = asyncio.create_task(all_of(orders, follow=True, sse=sse))
        await asyncio.sleep(1.0)
        await client.close()
        with pytest.raises(Stopping):
            await task

    run_virtual(main)


def test_tails_that_are_answered_500_share_the_retry_budget() -> None:
    async def main() -> None:
        site = Site()
        client, orders = await with_records(site, 1)
        site.always = site.plain(500)
        tasks = [asyncio.create_task(all_of(orders, follow=True)) for _ in range(50)]
        await asyncio.sleep(60.0)
        asked = len(site.asked("GET"))
        await asyncio.sleep(60.0)
        # 50 tails that waited 2 s each on the average would ask 1,500 times.
        assert len(site.asked("GET")) - asked < 700
        assert client.peer.passable
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    run_virtual(main)


@pytest.mark.parametrize("follow", [False, True])
def test_a_large_answer_that_comes_slowly_is_not_broken_off_and_one_that_stands_still_is(*, follow: bool) -> None:
    async def main() -> None:
        site = Site()
        _, orders = await with_records(site, 2)
        headers = {"content-type": "application/json", "stream-next-offset": "ac", "stream-up-to-date": "true"}

        async def slowly() -> AsyncIterator[bytes]:
            for piece in (b"[", b"0", b",", b"1", b"]"):
                await asyncio.sleep(9.0)
                yield piece

        async def never() -> AsyncIterator[bytes]:
            yield b"["
            await asyncio.sleep(3600.0)

        site.script = [
            lambda _: httpx2.Response(200, content=never(), headers=headers),
            lambda _: httpx2.Response(200, content=slowly(), headers=headers),
        ]
        reading = orders.read(follow=follow, deadline_s=100.0)
        assert (await anext(reading)).messages == [0, 1]
        await reading.aclose()
        assert len(site.asked("GET")) == 2
        if not follow:
            site.always = lambda _: httpx2.Response(200, content=slowly(), headers=headers)
            with pytest.raises(Unavailable):
                await all_of(orders, deadline_s=20.0)

    run_virtual(main)


def test_an_answer_that_is_larger_than_allowed_is_an_error() -> None:
    async def main() -> None:
        site = Site()
        _, orders = await with_records(site, 2, body_bytes_max=1000)
        site.always = site.plain(200, b"x" * 1001, {"content-type": "text/plain", "stream-next-offset": "ac"})
        for follow in (False, True):
            with pytest.raises(AnswerTooLargeError):
                await all_of(orders, follow=follow)

    run_virtual(main)
