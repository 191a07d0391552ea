"""The answer that is a stream of events: its end by the stop, by the client, and by a client that does not read."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from asgi_exchange import Exchange
from outlast import Stop
from outlast.http import Event, EventFeed, EventStream
from outlast.testing import run_virtual
from tickets import Ticket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Watching:
    """One viewer of a feed, from its request to its end."""

    def __init__(self, feed: EventFeed, stop: Stop | None = None, **options: Any) -> None:
        self.ticket = Ticket()
        self.stop = stop or Stop()
        self.aborted = 0
        self.exchange = Exchange(
            extensions={"outlast.ticket": self.ticket, "outlast.stop": self.stop, "outlast.abort": self.abort}
        )
        stream = EventStream(feed.watch(), rng=random.Random(1), **options)
        self.task = asyncio.create_task(self.exchange.run(stream))

    def abort(self) -> None:
        self.aborted += 1
        self.exchange.leave()


def test_it_sends_events_and_tells_when_to_come_back() -> None:
    async def main() -> None:
        feed = EventFeed()
        watching = Watching(feed)
        await asyncio.sleep(0.01)
        feed.publish("7", event="order")
        await asyncio.sleep(0.01)
        exchange = watching.exchange
        assert exchange.headers["content-type"] == "text/event-stream"
        retry, _, event = exchange.body.partition(b"\n\n")
        assert 1500 <= int(retry.removeprefix(b"retry: ")) <= 4500
        assert event == f"id: {feed.epoch}-1\nevent: order\ndata: 7\n\n".encode()
        assert watching.ticket.state == "parked"
        watching.exchange.leave()
        await watching.task

    run_virtual(main)


def test_headers_of_its_own_stand_beside_the_usual_ones_or_in_their_place() -> None:
    async def main() -> None:
        given = [(b"cache-control", b"no-cache"), (b"x-more", b"1")]
        exchange = await Exchange().run(EventStream(Countdown(1), headers=given))
        assert exchange.headers["cache-control"] == "no-cache"
        assert (exchange.headers["x-more"], exchange.headers["content-type"]) == ("1", "text/event-stream")

    run_virtual(main)


def test_those_who_lose_their_server_do_not_come_back_together() -> None:
    retries = {EventStream(EventFeed().watch(), rng=random.Random(seed))._retry for seed in range(200)}
    assert len(retries) > 150


def test_silence_is_filled_with_comments() -> None:
    async def main() -> None:
        feed = EventFeed()
        watching = Watching(feed, keep_alive_s=15)
        times: list[float] = []
        watching.exchange.before_send = lambda: times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(20)
        feed.publish("1")
        await asyncio.sleep(40)
        assert [message["body"] for message in watching.exchange.sent[2:]] == [
            b":\n\n",
            f"id: {feed.epoch}-1\ndata: 1\n\n".encode(),
            b":\n\n",
            b":\n\n",
        ]
        assert times == [0, 0, 15, 20, 35, 50]
        watching.exchange.leave()
        await watching.task

    run_virtual(main)


@pytest.mark.parametrize("turns", range(8))
def test_a_client_that_leaves_frees_everything_whenever_it_leaves(turns: int) -> None:
    async def main() -> float:
        feed = EventFeed()
        watching = Watching(feed)
        for _ in range(turns):
            await asyncio.sleep(0)
        watching.exchange.leave()
        await watching.task
        assert (feed.viewers, feed._waiting) == (0, set())
        assert not watching.stop._callbacks
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 0


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("cancels", [1, 3])
def test_a_cancellation_frees_everything_whenever_it_comes(turns: int, cancels: int) -> None:
    async def main() -> None:
        feed = EventFeed()
        watching = Watching(feed)
        for _ in range(turns):
            await asyncio.sleep(0)
        for _ in range(cancels):
            watching.task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait({watching.task})
        assert watching.task.cancelled()
        assert feed.viewers == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(main)


def test_nothing_is_sent_to_a_client_that_has_left() -> None:
    async def main() -> None:
        watching = Watching(EventFeed())
        await asyncio.sleep(1)

        def gone() -> None:
            raise BrokenPipeError("the client has left")

        watching.exchange.before_send = gone
        watching.exchange.leave()
        await watching.task

    run_virtual(main)


def test_a_source_that_takes_its_time_to_end_is_waited_for() -> None:
    ended: list[float] = []

    async def source() -> AsyncIterator[Event]:
        try:
            yield Event("1")
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(1)
            ended.append(asyncio.get_running_loop().time())

    async def main() -> None:
        task = asyncio.create_task(Exchange().run(EventStream(source())))
        await asyncio.sleep(1)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.1)
        await asyncio.wait({task})
        assert task.cancelled()
        assert ended == [2]

    run_virtual(main)


def test_the_stop_ends_all_at_once_with_a_last_comment() -> None:
    async def main() -> float:
        feed, stop = EventFeed(), Stop()
        all_watching = [Watching(feed, stop) for _ in range(200)]
        await asyncio.sleep(5)
        assert feed.viewers == 200
        stop.fire("SIGTERM")
        await asyncio.wait([watching.task for watching in all_watching])
        for watching in all_watching:
            exchange = watching.exchange
            assert exchange.ended
            assert exchange.sent[-1]["body"].startswith(b": stopping\nretry: ")
            assert not watching.aborted
        assert feed.viewers == 0
        assert not stop._callbacks
        late = Watching(feed, stop)
        await late.task
        assert late.exchange.ended
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 5


def test_the_stop_does_not_wait_for_a_client_that_does_not_read() -> None:
    async def main() -> float:
        feed, stop = EventFeed(), Stop()
        watching = Watching(feed, stop)
        await asyncio.sleep(1)
        watching.exchange.stop_reading()
        feed.publish("1")
        await asyncio.sleep(1)
        stop.fire("SIGTERM")
        await watching.task
        assert watching.aborted == 1
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 2.25


def test_a_client_that_does_not_read_is_cut_and_costs_no_memory_until_then() -> None:
    async def main() -> float:
        feed = EventFeed(history_bytes_max=50_000)
        watching, other = Watching(feed, stalled_s=10), Watching(feed)
        await asyncio.sleep(0.01)
        watching.exchange.stop_reading()
        for number in range(100_000):
            feed.publish(str(number))
            if number % 500 == 0:
                await asyncio.sleep(0)
        began = asyncio.get_running_loop().time()
        await watching.task
        assert watching.aborted == 1
        assert not watching.exchange.ended
        assert (feed.viewers, other.task.done()) == (1, False)
        ended = asyncio.get_running_loop().time()
        other.exchange.leave()
        await other.task
        return ended - began

    assert run_virtual(main) == pytest.approx(10)


def test_nothing_is_added_to_what_a_client_does_not_read() -> None:
    async def main() -> float:
        feed = EventFeed()
        watching = Watching(feed, keep_alive_s=3, stalled_s=10)
        await asyncio.sleep(1)
        watching.exchange.stop_reading()
        feed.publish("1")
        await watching.task
        assert watching.aborted == 1
        assert len(watching.exchange.sent) == 2, "the start of the answer, and retry"
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 11


def test_a_server_that_cannot_cut_is_left_to_its_own_bounds() -> None:
    async def main() -> None:
        feed = EventFeed()
        exchange = Exchange()
        task = asyncio.create_task(exchange.run(EventStream(feed.watch(), keep_alive_s=2, stalled_s=1)))
        await asyncio.sleep(1)
        exchange.stop_reading()
        await task
        assert not exchange.ended
        assert feed.viewers == 0

    run_virtual(main)


class Countdown:
    """An async iterator that cannot be closed."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __aiter__(self) -> Countdown:
        return self

    async def __anext__(self) -> Event:
        if not self.number:
            raise StopAsyncIteration
        self.number -= 1
        return Event(str(self.number))


def test_a_source_that_cannot_be_closed_need_not_be() -> None:
    async def main() -> None:
        exchange = await Exchange().run(EventStream(Countdown(2)))
        assert exchange.body.endswith(b"data: 1\n\ndata: 0\n\n")

    run_virtual(main)


def test_a_client_that_reads_too_late_is_told_to_read_the_state_as_a_whole() -> None:
    async def main() -> None:
        feed = EventFeed(history_bytes_max=50_000)
        watching = Watching(feed)
        await asyncio.sleep(0.01)
        watching.exchange.stop_reading()
        for number in range(5_000):
            feed.publish(str(number))
            await asyncio.sleep(0)
        watching.exchange.read_on()
        await watching.task
        exchange = watching.exchange
        assert exchange.ended
        assert exchange.body.endswith(f"id: {feed.epoch}-5000\nevent: resync\ndata: \n\n".encode())
        assert exchange.body.count(b"data: 0\n") == 1
        assert watching.aborted == 0

    run_virtual(main)


def test_a_source_that_fails_ends_the_stream_and_is_raised() -> None:
    closed: list[bool] = []

    async def source() -> AsyncIterator[Event]:
        try:
            yield Event("1")
            raise TimeoutError("the store is slow")
        finally:
            closed.append(True)

    async def main() -> None:
        exchange = Exchange()
        with pytest.raises(TimeoutError, match="the store is slow"):
            await exchange.run(EventStream(source()))
        assert exchange.body.endswith(b"data: 1\n\n")
        assert not exchange.ended
        assert closed == [True]

    run_virtual(main)


def test_a_source_that_ends_ends_the_stream() -> None:
    async def source() -> AsyncIterator[Event | bytes]:
        yield Event("1")
        yield b"data: 2\n\n"

    async def main() -> None:
        exchange = await Exchange().run(EventStream(source()))
        assert exchange.body.endswith(b"data: 1\n\ndata: 2\n\n")
        assert exchange.ended

    run_virtual(main)


def test_a_client_that_is_found_gone_by_sending_is_the_server_s_to_tell() -> None:
    async def source() -> AsyncIterator[Event]:
        yield Event("1")

    def gone() -> None:
        raise BrokenPipeError("gone")

    async def main() -> None:
        exchange = Exchange()
        exchange.before_send = gone
        with pytest.raises(BrokenPipeError):
            await exchange.run(EventStream(source()))

    run_virtual(main)


def test_head_is_answered_without_a_stream() -> None:
    async def main() -> None:
        feed = EventFeed()
        exchange = await Exchange("HEAD").run(EventStream(feed.watch()))
        assert (exchange.status, exchange.body, exchange.ended, feed.viewers) == (200, b"", True, 0)

    run_virtual(main)


@pytest.mark.parametrize("option", ["keep_alive_s", "retry_s", "stalled_s"])
@pytest.mark.parametrize("seconds", [0, -1, 3601, float("nan")])
def test_nonsense_is_refused_at_construction(option: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=option):
        EventStream(EventFeed().watch(), **{option: seconds})  # type: ignore[arg-type] # one of three
