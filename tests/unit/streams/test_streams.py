"""A store as its users have it: streams are made, found, read, trimmed, closed and deleted, and are there after a restart."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from store_parts import data, disk_in_memory, opened, records

from outlast.disk import Disk
from outlast.streams import (
    Appended,
    BeyondTailError,
    LimitError,
    Producer,
    Retention,
    Stream,
    StreamClosedError,
    StreamExistsError,
    StreamNotFoundError,
    StreamOptions,
    Streams,
    TrimmedError,
)
from outlast.testing import run_virtual


def test_what_was_appended_is_read_in_order_with_time_and_headers_also_after_a_restart() -> None:
    files = disk_in_memory()

    async def write() -> None:
        async with opened(files) as streams:
            orders = await streams.create("orders")
            assert await orders.append(b"one") == Appended(0, 1)
            assert await orders.append([b"two", b"three"], headers={"kind": "a"}) == Appended(1, 3)
            assert await orders.append([b"four", b"five"], headers=[{}, {"ä": "ö"}]) == Appended(3, 5)
            assert (orders.oldest, orders.tail) == (0, 5)
            await check(streams)

    async def check(streams: Streams) -> None:
        assert streams.names() == ["orders"]
        got = await records(await streams.open("orders"))
        assert [record.position for record in got] == [0, 1, 2, 3, 4]
        assert [record.data for record in got] == [b"one", b"two", b"three", b"four", b"five"]
        assert [dict(record.headers) for record in got] == [{}, {"kind": "a"}, {"kind": "a"}, {}, {"ä": "ö"}]
        assert all(1.7e9 < record.time < 1e11 for record in got)

    async def read() -> None:
        async with opened(files) as streams:
            await check(streams)

    run_virtual(write)
    run_virtual(read)


# Streams come and go.


def test_a_stream_is_made_once() -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            options = StreamOptions(sync_every_s=1.0)
            first = await streams.create("orders", options)
            with pytest.raises(StreamExistsError, match="there is one already; open it, or choose another name"):
                await streams.create("orders", options)
            same = await streams.create("orders", options, exist_ok=True)
            assert (same.id, same.options, same.name) == (first.id, options, "orders")
            with pytest.raises(StreamExistsError, match="there is one already, with other options"):
                await streams.create("orders", exist_ok=True)

    run_virtual(main)


def test_of_those_who_make_a_stream_at_once_one_does_and_the_others_get_it() -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            got = await asyncio.gather(*(streams.create("orders", exist_ok=True) for _ in range(10)))
            assert len({stream.id for stream in got}) == 1
            assert streams.names() == ["orders"]

    run_virtual(main)


def test_a_create_whose_caller_is_gone_is_not_lost() -> None:
    files = disk_in_memory()

    async def main() -> None:
        async with opened(files) as streams:
            task = asyncio.create_task(streams.create("orders"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            assert await (await streams.create("orders", exist_ok=True)).append(b"x") == Appended(0, 1)

    run_virtual(main)


@pytest.mark.parametrize("name", ["", "a" * 1025, "é" * 513, "a\nb", "a\x00b", "\x7f", "\x85", "\ud800"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            with pytest.raises(ValueError, match="the name of a stream"):
                await streams.create(name)

    run_virtual(main)


@pytest.mark.parametrize("name", ["/", "..", "../../x", "é" * 512, "a" * 1024, "orders.log", " ", "A", "a"])
def test_any_other_name_is_one_and_never_a_path(name: str) -> None:
    files = disk_in_memory()

    async def main() -> None:
        async with opened(files) as streams:
            stream = await streams.create(name)
            await stream.append(b"x")
            await stream.trim(1)
            await stream.close()
            assert streams.names() == [name]
            assert all(path.startswith("/disk") for path in files.tree("/") if path != "/")
            await streams.delete(name)

    run_virtual(main)


def test_a_deleted_stream_is_gone_for_everyone_who_has_it_although_another_has_its_name() -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            old = await streams.create("orders")
            await old.append(b"old", producer=Producer("p", 3, 0))
            follower = asyncio.create_task(old.fetch(1, wait_s=3600.0))
            await asyncio.sleep(0.1)
            await streams.delete("orders")
            new = await streams.create("orders")
            with pytest.raises(StreamNotFoundError, match="it was deleted; a stream of this name that was made since is another"):
                await follower
            assert asyncio.get_running_loop().time() < 1.0
            assert new.id != old.id
            for use in (
                lambda: old.append(b"x"),
                lambda: old.fetch(0),
                lambda: data(old),
                lambda: old.trim(0),
                old.close,
                old.delete,
            ):
                with pytest.raises(StreamNotFoundError):
                    await use()
            with pytest.raises(StreamNotFoundError):
                _ = old.tail
            # The producers of the old one are unknown to the new.
            assert await new.append(b"new", producer=Producer("p", 0, 0)) == Appended(0, 1)
            assert await data(new) == [b"new"]

    run_virtual(main)


def test_a_stream_is_made_once_the_one_of_its_name_is_deleted() -> None:
    files = disk_in_memory()

    async def main() -> None:
        async with opened(files) as streams:
            old = await streams.create("orders")
            await old.append(b"old")
            deleting = asyncio.create_task(old.delete())
            await asyncio.sleep(0)
            assert streams.names() == []
            new = await streams.create("orders")
            assert deleting.done()
            assert await new.append(b"new") == Appended(0, 1)
            assert streams.names() == ["orders"]
        async with opened(files) as streams:
            assert (await streams.open("orders")).id == new.id

    run_virtual(main)


def test_a_deleted_stream_is_synced_no_more() -> None:
    async def main() -> None:
        files = disk_in_memory()
        async with opened(files) as streams:
            orders = await streams.create("orders", StreamOptions(sync_every_s=5.0))
            await orders.append(b"x")
            await orders.delete()
            rounds = next(iter(streams._volumes.values())).committer.counts.rounds
            await asyncio.sleep(30.0)
            assert next(iter(streams._volumes.values())).committer.counts.rounds == rounds

    run_virtual(main)


def test_a_stream_that_is_not_there_is_said_to_be_none() -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            await streams.create("a")
            for use in (streams.open, streams.delete):
                with pytest.raises(StreamNotFoundError, match="stream 'b': there is no such stream among the 1 of streams"):
                    await use("b")

    run_virtual(main)


def test_a_deleted_stream_is_not_there_after_a_restart_and_its_files_are_gone() -> None:
    files = disk_in_memory()

    async def main() -> None:
        async with opened(files) as streams:
            orders = await streams.create("orders")
            await orders.append(b"x")
            await orders.delete()
        files.crash()
        async with opened(files) as streams:
            assert streams.names() == []
        assert not [path for path in files.tree("/") if path.endswith(".log")]

    run_virtual(main)


def test_streams_are_bounded() -> None:
    async def main() -> None:
        async with opened(disk_in_memory(), streams_max=2) as streams:
            await streams.create("a")
            await streams.create("b")
            with pytest.raises(LimitError, match=r"there are 2 streams already \(limit 2\); delete some, or raise streams_max"):
                await streams.create("c")

    run_virtual(main)


def test_a_closed_stream_takes_no_more_and_is_read_to_its_end() -> None:
    files = disk_in_memory()

    async def main() -> None:
        async with opened(files) as streams:
            orders = await streams.create("orders")
            follower = asyncio.create_task(_follow(orders))
            appends = [asyncio.create_task(orders.append(b"%d" % number)) for number in range(3)]
            await asyncio.sleep(0)
            # Behind what was queued before it.
            await asyncio.gather(orders.close(), orders.close())
            await asyncio.gather(*appends)
            assert await follower == [b"0", b"1", b"2"]
            await check(streams)
        async with opened(files) as streams:
            await check(streams)

    async def check(streams: Streams) -> None:
        orders = await streams.open("orders")
        assert orders.is_closed
        with pytest.raises(StreamClosedError, match="it was closed at position 3; nothing can be added"):
            await orders.append(b"x")
        await orders.close()
        assert await _follow(orders) == [b"0", b"1", b"2"]
        assert len(await orders.fetch(3, wait_s=3600.0)) == 0

    run_virtual(main)


# Positions.


def test_a_trimmed_position_is_told_the_oldest_and_one_above_the_tail_the_tail() -> None:
    files = disk_in_memory()

    async def main() -> None:
        async with opened(files) as streams:
            orders = await streams.create("orders")
            await orders.append([b"%d" % number for number in range(10)])
            await orders.trim(4)
            with pytest.raises(BeyondTailError):
                await orders.trim(11)
            await check(streams)
        async with opened(files) as streams:
            await check(streams)

    async def check(streams: Streams) -> None:
        orders = await streams.open("orders")
        with pytest.raises(TrimmedError, match="position 3 is gone; the oldest there is 4, the tail 10") as gone:
            await orders.fetch(3)
        assert (gone.value.position, gone.value.oldest, gone.value.tail) == (3, 4, 10)
        for position in (11, 100, 2**62):
            with pytest.raises(BeyondTailError, match=rf"position {position} is beyond the tail 10; the oldest there is 4"):
                await orders.fetch(position, wait_s=3600.0)
        with pytest.raises(TrimmedError):
            await data(orders, -1)
        assert await data(orders, 4) == [b"%d" % number for number in range(4, 10)]
        with pytest.raises(ValueError, match="a read takes at least 1 byte, not 0"):
            await orders.fetch(4, bytes_max=0)

    run_virtual(main)


def test_a_reader_under_which_records_expire_is_told_and_never_jumps() -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            orders = await streams.create("orders", StreamOptions(segment_bytes=4096))
            for number in range(40):
                await orders.append(b"%04d" % number * 250)
            got: list[int] = []
            with pytest.raises(TrimmedError) as info:
                await _read_and_trim(orders, got)
            assert got == list(range(got[-1] + 1))
            assert got[-1] < 29
            assert info.value.oldest == 30

    run_virtual(main)


def test_positions_go_on_after_everything_was_trimmed_away() -> None:
    files = disk_in_memory()

    async def main() -> None:
        async with opened(files) as streams:
            orders = await streams.create("orders")
            await orders.append([b"x"] * 10)
            await orders.trim(10)
        files.crash()
        async with opened(files) as streams:
            orders = await streams.open("orders")
            assert (orders.oldest, orders.tail) == (10, 10)
            waiting = asyncio.create_task(orders.fetch(10, wait_s=60.0))
            await asyncio.sleep(0.1)
            assert await orders.append(b"new") == Appended(10, 11)
            assert (await waiting).records == [b"new"]

    run_virtual(main)


# Options.


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"segment_bytes": 100}, "segment_bytes of a stream is 512 to 1073741824, not 100"),
        ({"segment_bytes": (1 << 30) + 1}, "segment_bytes of a stream is"),
        ({"sync_every_s": -1.0}, "sync_every_s and producer_idle_s are at least 0: -1.0 and"),
        ({"producer_idle_s": float("nan")}, "sync_every_s and producer_idle_s are at least 0"),
        ({"producers_max": 0}, "producers_max of a stream is 1 to 100000, not 0"),
        ({"quota_bytes": 0}, "quota_bytes of a stream is at least 1, not 0; None is no quota"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        StreamOptions(**options)


@pytest.mark.parametrize("options", [{"age_s": -1.0}, {"size_bytes": -1}, {"floor_s": -1.0}])
def test_a_retention_that_cannot_work_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="retention needs age_s, size_bytes and floor_s of at least 0"):
        Retention(**options)


def test_a_store_that_cannot_work_is_refused() -> None:
    for options in ({"backlog_max": 0}, {"backlog_bytes": 0}, {"followers_max": 0}, {"streams_max": 0}):
        with pytest.raises(ValueError, match=r"is at least 1, not 0"):
            Streams("/x", **options)
    with pytest.raises(ValueError, match="a store has at least one volume"):
        Streams([])
    with pytest.raises(ValueError, match="two volumes are called 'a'; give each Disk a name of its own"):
        Streams([Disk("/x", name="a"), Disk("/y", name="a")])


def test_a_store_that_is_not_open_says_so() -> None:
    async def main() -> None:
        streams = Streams("/x")
        with pytest.raises(RuntimeError, match="streams streams is not open: attach it to a service, or use `async with`"):
            streams.names()
        assert repr(streams) == "<Streams streams, not open>"

    run_virtual(main)


# Threads.


class NoPool(ThreadPoolExecutor):
    """The threads that everybody shares, and that look up names: nothing of a store may hold one up."""

    def submit(self, *_args: Any, **_options: Any) -> Any:
        raise AssertionError("a store uses the shared threads")


def test_a_store_has_threads_of_its_own() -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(NoPool())
        async with opened(disk_in_memory()) as streams:
            orders = await streams.create("orders")
            await orders.append(b"x")
            assert await data(orders) == [b"x"]
            await orders.trim(1)
            await orders.close()
            await orders.delete()

    run_virtual(main)


async def _follow(stream: Stream) -> list[bytes]:
    return [record.data async for record in stream.read(follow=True)]


async def _read_and_trim(stream: Stream, got: list[int]) -> None:
    async for record in stream.read(bytes_max=2_000):
        got.append(record.position)
        if record.position == 5:
            await stream.trim(30)
