"""Events, and a feed of them for many viewers: each event once and in order, or a word that some are missing."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from outlast.http import Event, EventFeed
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from outlast.http._app.events import EventViewer


def decoded(frames: bytes) -> list[dict[str, str]]:
    """The events in a stream, as a browser has them."""
    found = []
    for block in frames.decode().split("\n\n")[:-1]:
        event: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(": ")
            event[name] = f"{event[name]}\n{value}" if name in event else value
        found.append(event)
    return found


def numbers(events: list[dict[str, str]]) -> list[int]:
    return [int(event["data"]) for event in events if event.get("event") != "resync"]


async def taken(viewer: EventViewer) -> list[dict[str, str]]:
    """What a viewer has until it would have to wait, or is cut."""
    found: list[dict[str, str]] = []
    while True:
        try:
            async with asyncio.timeout(1):
                found += decoded(await anext(viewer))
        except (TimeoutError, StopAsyncIteration):
            return found


def test_an_event_is_sent_as_browsers_read_it() -> None:
    assert Event("a\r\nb\rc\n", "order", "7").frame() == b"id: 7\nevent: order\ndata: a\ndata: b\ndata: c\ndata: \n\n"
    assert Event("").frame() == b"data: \n\n"


@pytest.mark.parametrize("bad", [{"event": "a\nb"}, {"id": "1\r"}, {"id": "\0"}])
def test_a_name_or_id_with_a_line_end_is_refused(bad: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must be one line"):
        Event("x", **bad)


def test_a_viewer_gets_every_event_once_and_in_order() -> None:
    async def main() -> None:
        feed = EventFeed()
        feed.publish("0")
        viewers = [feed.watch() for _ in range(3)]
        got: list[list[dict[str, str]]] = [[] for _ in viewers]

        async def view(place: int) -> None:
            async for frames in viewers[place]:
                got[place] += decoded(frames)
                await asyncio.sleep(place)

        tasks = [asyncio.create_task(view(place)) for place in range(3)]
        await asyncio.sleep(0)
        for number in range(1, 101):
            feed.publish(str(number), event="order")
            if number % 7 == 0:
                await asyncio.sleep(0.1)
        await asyncio.sleep(60)
        assert feed.viewers == 3
        for task, viewer in zip(tasks, viewers, strict=True):
            task.cancel()
            await asyncio.wait({task})
            await viewer.aclose()
            await viewer.aclose()
        assert [numbers(events) for events in got] == [list(range(1, 101))] * 3
        assert (feed.viewers, feed.cut) == (0, 0)

    run_virtual(main)


def test_a_viewer_that_comes_back_gets_what_it_has_missed() -> None:
    async def main() -> None:
        feed = EventFeed()
        seen = [feed.publish(str(number)) for number in range(10)]
        assert numbers(await taken(feed.watch(seen[3]))) == list(range(4, 10))
        assert await taken(feed.watch(seen[-1])) == []
        assert await taken(feed.watch(None)) == await taken(feed.watch("")) == []

    run_virtual(main)


@pytest.mark.parametrize(
    "last",
    [
        *("{epoch}-11", "{epoch}--1", "{epoch}-x", "{epoch}-²", "{epoch}", "{epoch}-" + "9" * 5000),
        *("0123456789ab-3", "-3", "x" * 2**20),
    ],
)
def test_an_id_of_another_process_or_of_the_future_is_told_to_read_the_state_as_a_whole(last: str) -> None:
    async def main() -> None:
        feed = EventFeed(rng=random.Random(7))
        newest = [feed.publish(str(number)) for number in range(10)][-1]
        viewer = feed.watch(last.replace("{epoch}", feed.epoch))
        assert await taken(viewer) == [{"id": newest, "event": "resync", "data": ""}]
        # Whoever comes back with the id of that event goes on after it.
        feed.publish("10")
        assert numbers(await taken(feed.watch(newest))) == [10]
        assert (feed.cut, feed.viewers) == (1, 1)

    run_virtual(main)


def test_two_processes_have_different_epochs() -> None:
    assert len({EventFeed().epoch for _ in range(100)}) == 100


def test_a_viewer_that_does_not_read_costs_nothing_and_is_cut() -> None:
    async def main() -> None:
        feed = EventFeed(history_bytes_max=100_000)
        slow, quick = feed.watch(), feed.watch()
        first = asyncio.create_task(anext(slow))
        await asyncio.sleep(0)
        seen: list[int] = []
        feed.publish("0", event="order")
        assert numbers(decoded(await first)) == [0]
        for number in range(1, 100_000):
            feed.publish(str(number), event="order")
            if number % 500 == 0:
                seen += numbers(decoded(await anext(quick)))
        while seen[-1] < 99_999:
            seen += numbers(decoded(await anext(quick)))
        assert seen == list(range(100_000))
        assert sum(map(len, feed._history)) <= 100_000
        assert [event["event"] for event in await taken(slow)] == ["resync"]
        assert (feed.cut, feed.viewers) == (1, 1)

    run_virtual(main)


def test_a_viewer_takes_a_bounded_part_at_a_time() -> None:
    async def main() -> None:
        feed = EventFeed()
        viewer = feed.watch()
        for number in range(20):
            feed.publish(f"{number}" * 10_000)
        feed.publish("x" * 300_000)
        parts = [await anext(viewer) for _ in range(6)]
        assert max(map(len, parts[:-1])) <= 64 * 1024
        assert len(parts[-1]) > 300_000

    run_virtual(main)


def test_a_viewer_that_is_cancelled_in_the_step_of_an_event_loses_none() -> None:
    async def main() -> None:
        feed = EventFeed()
        viewer = feed.watch()
        task = asyncio.create_task(anext(viewer))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        feed.publish("1")
        assert task.cancelled()
        assert numbers(await taken(viewer)) == [1]
        task = asyncio.create_task(anext(viewer))
        await asyncio.sleep(0)
        task.cancel()
        feed.publish("2")
        await asyncio.wait({task})
        assert numbers(await taken(viewer)) == [2]

    run_virtual(main)


def test_an_event_larger_than_the_history_is_refused() -> None:
    feed = EventFeed(history_bytes_max=100)
    with pytest.raises(ValueError, match="larger than the history of its feed, 100"):
        feed.publish("x" * 100)
    assert feed.newest == 0
    with pytest.raises(ValueError, match="at least 1"):
        EventFeed(history_bytes_max=0)


def test_a_viewer_that_never_began_leaves_nothing() -> None:
    async def main() -> None:
        feed = EventFeed()
        viewer = feed.watch()
        await viewer.aclose()
        assert await taken(viewer) == []
        assert feed.viewers == 0

    run_virtual(main)
