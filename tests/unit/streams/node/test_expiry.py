"""The end of streams by TTL and by instant: who begins it again, what a clock that jumps does, and what is left of them."""

from __future__ import annotations

import asyncio
import errno
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from node_rig import TEXT, Rig, offset, serving
from store_parts import disk_in_memory

import outlast
from outlast.disk import Disk
from outlast.streams import Node, Streams
from outlast.streams._node import expiry
from outlast.streams._node.expiry import left
from outlast.streams._node.served import Served, ServedStreams
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Mapping

EPOCH = 1_800_000_000.0
YEAR_S = 365 * 86_400.0


class Wall:
    """A wall clock that somebody may set: it goes with the event loop otherwise."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return EPOCH + asyncio.get_running_loop().time() + self.ahead_s


def ttl(seconds: int) -> Mapping[str, str]:
    return {**TEXT, "stream-ttl": str(seconds)}


def until(seconds: float) -> Mapping[str, str]:
    return {**TEXT, "stream-expires-at": datetime.fromtimestamp(EPOCH + seconds, UTC).isoformat()}


async def statuses(rig: Rig, name: str) -> set[int]:
    """Return what every kind of request is answered; of those that are, none makes it."""
    return {
        (await rig.ask("HEAD", name)).status,
        (await rig.get(name)).status,
        (await rig.get(f"{name}?offset=now&live=sse")).status,
        (await rig.ask("POST", name, TEXT, b"x")).status,
        (await rig.ask("DELETE", name)).status,
    }


def test_one_that_nobody_uses_is_over_after_its_ttl() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", ttl(10), b"one")
            await asyncio.sleep(9.9)
            assert (await rig.ask("HEAD", "a")).status == 200
            await asyncio.sleep(0.1)
            assert await statuses(rig, "a") == {404}
            assert rig.streams.names() == []

    run_virtual(main)


@pytest.mark.parametrize(
    ("method", "query", "begins_again"),
    [
        ("GET", "", True),
        ("GET", "?offset=now", True),
        ("POST", "", True),
        ("HEAD", "", False),
        ("GET", "?offset=nonsense", False),
    ],
)
def test_reads_and_appends_begin_the_ttl_again(*, method: str, query: str, begins_again: bool) -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", ttl(10), b"one")
            await asyncio.sleep(6)
            await rig.ask(method, f"a{query}", TEXT, b"x" if method == "POST" else b"")
            await asyncio.sleep(6)
            assert ((await rig.ask("HEAD", "a")).status == 200) is begins_again

    run_virtual(main)


def test_a_stream_that_somebody_waits_at_is_not_idle() -> None:
    async def main() -> None:
        async with serving() as rig:
            for live in ("long-poll", "sse"):
                await rig.put(live, ttl(10), b"one")
                reader = rig.begin("GET", f"{live}?offset=now&live={live}")
                await asyncio.sleep(20)
                await rig.node.expiry.turn(rig.stop)
                assert not reader.task.done()
                await reader.leave()
                await asyncio.sleep(9)
                assert (await rig.ask("HEAD", live)).status == 200
                await asyncio.sleep(1)
                assert (await rig.ask("HEAD", live)).status == 404

    run_virtual(main)


def test_an_instant_is_not_put_off() -> None:
    async def main() -> None:
        async with serving(wall=Wall()) as rig:
            await rig.put("a", until(10), b"one")
            reader = rig.begin("GET", "a?offset=-1&live=sse")
            await asyncio.sleep(9)
            assert (await rig.get("a")).status == 200
            await asyncio.sleep(1)
            await rig.node.expiry.turn(rig.stop)
            exchange = await reader.task
            assert b"event: error" in exchange.body
            assert reader.cut
            assert await statuses(rig, "a") == {404}

    run_virtual(main)


def test_a_clock_that_jumps_ends_nothing() -> None:
    async def main() -> None:
        wall = Wall()
        async with serving(wall=wall) as rig:
            await rig.put("idle", ttl(3600), b"one")
            await rig.put("instant", until(3600), b"one")
            for ahead_s in (YEAR_S, -YEAR_S):
                wall.ahead_s = ahead_s
                for _ in range(10):
                    await asyncio.sleep(1)
                    await rig.node.expiry.turn(rig.stop)
                assert rig.streams.names() == ["idle", "instant"]
                assert {(await rig.ask("HEAD", name)).status for name in rig.streams.names()} == {200}

    run_virtual(main)


def test_the_end_of_a_deleted_stream_is_none_of_the_next_of_its_name() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", ttl(2), b"old")
            stream = await rig.streams.open("a")
            old = await stream.consumer("billing")
            poll = rig.begin("GET", "a?offset=now&live=long-poll")
            append = {**TEXT, "producer-id": "p", "producer-epoch": "0", "producer-seq": "0"}
            await rig.post("a", b"more", append)
            assert (await poll.task).body == b"more"
            await rig.ask("DELETE", "a")
            await rig.put("a", TEXT, b"new")
            for _ in range(4):
                await rig.node.expiry.turn(rig.stop)
                await asyncio.sleep(1)
            assert (await rig.get("a")).body == b"new"
            assert (await rig.get(f"a?offset={offset(2)}")).status == 400, "a position of the old one"
            await rig.post("a", b"!", append)
            assert (await rig.get("a")).body == b"new!", "the producer of the old one is unknown to it"
            assert await (await rig.streams.open("a")).cursors() == ()
            with pytest.raises(Exception, match="it was deleted"):
                await old.fetch()

    run_virtual(main)


def test_those_that_nobody_asks_for_are_found_and_only_they() -> None:
    async def main() -> None:
        async with serving(wall=Wall()) as rig:
            for number in range(30):
                await rig.put(f"{number:02d}", (TEXT, ttl(10 + number), until(10 + number))[number % 3])
            await asyncio.sleep(20)
            await rig.node.expiry.turn(rig.stop)
            left = [f"{number:02d}" for number in range(30) if number % 3 == 0 or number > 10]
            assert rig.streams.names() == left

    run_virtual(main)


def test_they_are_found_after_a_restart_and_their_ttl_begins_again() -> None:
    async def main() -> None:
        files, wall = disk_in_memory(), Wall()
        async with serving(files, wall=wall) as rig:
            for name, headers in (("idle", ttl(30)), ("used", ttl(30)), ("instant", until(40)), ("none", TEXT)):
                await rig.put(name, headers, b"one")
            await asyncio.sleep(20)
        async with serving(files, wall=wall) as rig:
            await rig.node.expiry.turn(rig.stop)
            await asyncio.sleep(19)
            await rig.get("used")
            await rig.node.expiry.turn(rig.stop)
            assert rig.streams.names() == ["idle", "instant", "none", "used"]
            await asyncio.sleep(1)
            await rig.node.expiry.turn(rig.stop)
            assert rig.streams.names() == ["idle", "none", "used"]
            await asyncio.sleep(10)
            await rig.node.expiry.turn(rig.stop)
            assert rig.streams.names() == ["none", "used"]
            await asyncio.sleep(19)
            await rig.node.expiry.turn(rig.stop)
            assert rig.streams.names() == ["none"]

    run_virtual(main)


def test_one_whose_disk_refuses_is_deleted_later() -> None:
    async def main() -> None:
        files = disk_in_memory()
        async with serving(files) as rig:
            for name in "abc":
                await rig.put(name, ttl(10), b"one")
            await asyncio.sleep(10)
            files.fail("rename", errno.EMFILE)
            await rig.node.expiry.turn(rig.stop)
            assert len(rig.streams.names()) == 1
            await rig.node.expiry.turn(rig.stop)
            assert rig.streams.names() == []

    run_virtual(main)


def test_the_end_of_one_that_was_deleted_unasked_is_none_of_the_next_of_its_name() -> None:
    async def main() -> None:
        files = disk_in_memory()
        async with serving(files) as rig:
            for name in "abc":
                await rig.put(name, ttl(10), b"old")
        async with serving(files) as rig:
            await rig.node.expiry.turn(rig.stop)
            for name in "ab":
                await rig.streams.delete(name)
            await asyncio.sleep(5)
            await rig.streams.create("a", labels={"ttl": "10"})
            for seconds, names in ((7, ["a"]), (9, ["a"]), (1, [])):
                await asyncio.sleep(seconds)
                await rig.node.expiry.turn(rig.stop)
                await rig.node.expiry.turn(rig.stop)
                assert rig.streams.names() == names
            assert not rig.node.expiry._asleep

    run_virtual(main)


def test_what_ends_is_remembered_no_longer_than_it_is_there() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.node.expiry.turn(rig.stop)
            for _ in range(3):
                await rig.put("a", ttl(10))
                await rig.streams.delete("a")
                await rig.put("a")
                assert not rig.node.served.mortal
                await rig.ask("DELETE", "a")

    run_virtual(main)


def test_many_are_looked_at_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "LOOKED_AT", 2)

    async def main() -> list[int]:
        files = disk_in_memory()
        async with serving(files) as rig:
            for number in range(5):
                await rig.put(f"asleep-{number}", ttl(10))
        async with serving(files) as rig:
            await rig.node.expiry.turn(rig.stop)
            for number in range(5):
                await rig.put(f"served-{number}", ttl(10))
            for _ in range(20):
                await rig.node.expiry.turn(rig.stop)
                assert len(rig.node.expiry._left) < 10
            await asyncio.sleep(10)
            left_there = list[int]()
            for _ in range(6):
                await rig.node.expiry.turn(rig.stop)
                left_there.append(len(rig.streams.names()))
            return left_there

    left_there = run_virtual(main)
    assert left_there[-1] == 0
    assert all(before - after <= 2 for before, after in pairwise([10, *left_there]))


def test_one_that_is_asked_for_as_it_is_to_end_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        files = disk_in_memory()
        async with serving(files) as rig:
            await rig.put("a", ttl(10), b"one")
        async with serving(files) as rig:
            await rig.node.expiry.turn(rig.stop)
            await asyncio.sleep(11)
            get = ServedStreams.get

            async def later(streams: ServedStreams, name: str, now: float) -> Served:
                monkeypatch.setattr(ServedStreams, "get", get)
                assert (await rig.get("a")).body == b"one"
                return await get(streams, name, now)

            monkeypatch.setattr(ServedStreams, "get", later)
            await rig.node.expiry.turn(rig.stop)
            await asyncio.sleep(9)
            await rig.node.expiry.turn(rig.stop)
            assert rig.streams.names() == ["a"]
            await asyncio.sleep(1)
            await rig.node.expiry.turn(rig.stop)
            assert rig.streams.names() == []

    run_virtual(main)


@pytest.mark.parametrize(
    ("labels", "seconds"),
    [
        ({}, None),
        ({"ttl": "7"}, 7.0),
        ({"expires-at": "1970-01-01T00:01:50Z"}, 10.0),
        ({"ttl": "7", "expires-at": "1970-01-01T00:01:50Z"}, 7.0),
        ({"ttl": "seven", "expires-at": "tomorrow", "owner": "billing"}, None),
    ],
)
def test_what_is_left_is_told_by_the_labels(labels: dict[str, str], seconds: float | None) -> None:
    assert left(labels, 100.0) == seconds


def test_a_service_has_it_as_a_loop() -> None:
    async def main() -> list[str]:
        service = outlast.Service("shop")
        streams = Streams([Disk("/disk", files=disk_in_memory())])
        streams.attach(service)
        node = Node(streams).attach(service)
        left_there: list[str] = []

        @service.task()
        async def use(stop: outlast.Stop) -> None:
            app = Rig(node, streams)
            await app.put("a", ttl(10))
            await app.put("b")
            await asyncio.sleep(15)
            left_there.extend(streams.names())
            service.stop("it was used")

        assert await service.run() == 0
        return left_there

    assert run_virtual(main) == ["b"]


def test_the_turn_ends_with_the_stop() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", ttl(10), b"one")
            await asyncio.sleep(10)
            rig.stop.fire("SIGTERM")
            await rig.node.expiry.turn(rig.stop)
            assert rig.streams.names() == ["a"]

    run_virtual(main)
