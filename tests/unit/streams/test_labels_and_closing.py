"""What a server of streams needs of one: its labels, its first records, a close in the step of the last append."""

from __future__ import annotations

import asyncio
import errno
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from store_parts import MIB, data, disk_in_memory, fill, opened

import outlast
from outlast.admission import Rate
from outlast.disk import Disk
from outlast.streams import (
    Appended,
    FencedError,
    LimitError,
    Listed,
    Producer,
    SequenceError,
    StoredStreams,
    StreamClosedError,
    StreamExistsError,
    StreamNotFoundError,
    StreamOptions,
    verify,
)
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LABELS = {"content-type": "application/json", "grüße": "ja"}


def test_labels_are_there_after_a_power_cut_also_of_a_stream_that_nobody_has_opened() -> None:
    async def main() -> None:
        files = disk_in_memory()
        async with opened(files) as streams:
            await streams.create("a", labels=LABELS)
            plain = await streams.create("b")
            assert dict(plain.labels) == {}
            await plain.label({"x": "1"})
            assert dict(plain.labels) == streams.labels("b") == {"x": "1"}
        files.power_cut()
        async with opened(files) as streams:
            assert streams.find("a") is None, "nobody has opened it"
            assert streams.labels("a") == LABELS
            [a, b] = streams.listed()
            assert (a, b.labels) == (Listed("a", a.id, a.created, LABELS), {"x": "1"})
            assert dict((await streams.open("a")).labels) == LABELS
            found = streams.find("a")
            assert found is not None
            assert found.id == a.id
            assert (streams.find("c"), streams.labels("c")) == (None, None)
            await found.append(b"one", producer=Producer("p", 3, 0))
            await streams.delete("a")
            assert (streams.find("a"), streams.labels("a")) == (None, None)
            another = await streams.create("a")
            assert (dict(another.labels), another.producer_state("p")) == ({}, None), "of another stream of that name"
            with pytest.raises(StreamNotFoundError):
                _ = found.labels
        with StoredStreams("/disk", files=files) as stored:
            assert dict(stored.open("b").labels) == {"x": "1"}

    run_virtual(main())


@pytest.mark.expected_logs
def test_labels_change_on_a_full_disk_and_are_the_old_ones_when_that_is_refused() -> None:
    async def main() -> None:
        files = disk_in_memory(capacity_bytes=2 * MIB)
        async with opened(files) as streams:
            stream = await streams.create("a", labels=LABELS)
            await fill(stream)
            await stream.label({"deleted": "true"})
            files.fail("write_at", errno.EIO)
            with pytest.raises(outlast.Unavailable):
                await stream.label({"x": "refused"})
            assert dict(stream.labels) == {"deleted": "true"}
        files.power_cut()
        async with opened(files) as streams:
            assert streams.labels("a") == {"deleted": "true"}

    run_virtual(main())


@pytest.mark.parametrize(
    ("labels", "reason"), [({"a": "x" * 1020}, "at most 1024"), ({"a": 1}, "texts by texts"), ({"a": "\ud800"}, "UTF-8")]
)
def test_what_are_no_labels_is_refused(labels: Any, reason: str) -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            with pytest.raises(ValueError, match=reason):
                await streams.create("a", labels=labels)
            stream = await streams.create("a" * 1024, labels={"a": "x" * 1000})
            with pytest.raises(ValueError, match=reason):
                await stream.label(labels)
            assert len(stream.labels["a"]) == 1000

    run_virtual(main())


@pytest.mark.expected_logs
@pytest.mark.parametrize("call", ["open", "write", "write_at", "sync", "sync_data", "sync_folder", "rename"])
def test_a_stream_is_there_with_its_first_records_or_not_at_all(call: str) -> None:
    """Each call of the creation fails once, and then the power goes."""

    async def made(after: int) -> bool:
        files = disk_in_memory()
        async with opened(files) as streams:
            failure = files.fail(call, errno.EIO, after=after, path="/disk/streams*")
            try:
                await streams.create("a", records=[b"one", b"two"], closed=True, start=5, labels=LABELS)
                is_refused = False
            except outlast.OutlastError:
                is_refused = True
            assert "a" not in streams.names() or not is_refused
            has_failed = bool(failure.hits)
        files.heal()
        files.power_cut()
        async with opened(files) as streams:
            assert is_refused is not ("a" in streams.names())
            if not is_refused:
                stream = await streams.open("a")
                assert (stream.oldest, stream.tail, stream.is_closed) == (5, 7, True)
                assert (await data(stream, 5), dict(stream.labels)) == ([b"one", b"two"], LABELS)
        return has_failed

    failed = [after for after in range(12) if run_virtual(made(after))]
    assert failed


def test_who_creates_what_is_there_gets_it_as_it_is() -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            await streams.create("a", labels=LABELS, records=[b"one"])
            again = await streams.create("a", records=[b"two"], labels={}, exist_ok=True)
            assert (await data(again), dict(again.labels)) == ([b"one"], LABELS)
            with pytest.raises(StreamExistsError):
                await streams.create("a", records=[b"three"])
            with pytest.raises(LimitError, match="quota"):
                await streams.create("b", StreamOptions(quota_bytes=1000), records=[bytes(2000)])
            with pytest.raises(ValueError, match="begin at a position"):
                await streams.create("b", start=-1)
            assert streams.names() == ["a"]

    run_virtual(main())


def test_first_records_come_in_by_the_admission_as_appends_do() -> None:
    async def main() -> None:
        admission = outlast.Admission("appends", key_rate=Rate(1, burst=2), memory=None, concurrency=None)
        async with opened(disk_in_memory(), admission=admission) as streams:
            await streams.create("a", records=[b"one", b"two"])
            await streams.delete("a")
            with pytest.raises(outlast.OutlastError):
                await streams.create("a", records=[b"three", b"four"])
            await streams.create("c")
            assert streams.names() == ["c"]

    run_virtual(main())


@pytest.mark.parametrize("records", [[], [b"last"]])
@pytest.mark.parametrize("producer", [None, Producer("p", 0, 1)])
def test_an_append_that_closes_is_there_whole_after_a_power_cut(records: list[bytes], producer: Producer | None) -> None:
    async def main() -> None:
        files = disk_in_memory()
        async with opened(files) as streams:
            stream = await streams.create("a")
            await stream.append(b"one", producer=Producer("p", 0, 0))
            follower = asyncio.create_task(stream.fetch(1, wait_s=float("inf")))
            await asyncio.sleep(0)
            stored = await stream.append(records, producer=producer, close=True)
            assert stored == Appended(1, 1 + len(records))
            assert stream.is_closed
            assert len(await follower) == len(records)
        with StoredStreams("/disk", files=files) as looked:
            assert looked.open("a").is_closed
        assert verify("/disk", files=files).is_healthy
        files.power_cut()
        async with opened(files) as streams:
            stream = await streams.open("a")
            assert (await data(stream), stream.is_closed) == ([b"one", *records], True)
            with pytest.raises(StreamClosedError):
                await stream.append(b"two", producer=producer and Producer("p", 0, 2))
            if producer is not None:
                again = await stream.append(records, producer=producer, close=True)
                assert again == Appended(1, 1 + len(records), duplicate=True)
                assert stream.producer_state("p") == (0, 1)

    run_virtual(main())


@pytest.mark.expected_logs
def test_a_close_that_is_refused_closes_nothing() -> None:
    async def main() -> None:
        files = disk_in_memory()
        async with opened(files) as streams:
            stream = await streams.create("a")
            files.fail("sync_data", errno.ENOSPC)
            with pytest.raises(outlast.Unavailable):
                await stream.append(b"one", producer=Producer("p", 0, 0), close=True)
            assert (stream.is_closed, stream.producer_state("p")) == (False, None)
            files.power_cut()
        async with opened(files) as streams:
            stream = await streams.open("a")
            assert not stream.is_closed
            assert (await stream.append(b"one", producer=Producer("p", 0, 0), close=True)).first == 0

    run_virtual(main())


def test_appends_of_one_round_behind_the_one_that_closes_are_refused_but_for_duplicates() -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            stream = await streams.create("a")
            answers = await asyncio.gather(
                stream.append(b"one"),
                stream.append(b"two", producer=Producer("p", 0, 0), close=True),
                stream.append(b"three"),
                stream.append(b"two", producer=Producer("p", 0, 0), close=True),
                stream.append([], close=True),
                return_exceptions=True,
            )
            assert answers[:2] == [Appended(0, 1), Appended(1, 2)]
            assert answers[3] == Appended(1, 2, duplicate=True)
            assert [type(answer) for answer in (answers[2], answers[4])] == [StreamClosedError] * 2
            assert await data(stream) == [b"one", b"two"]

    run_virtual(main())


@pytest.mark.expected_logs
def test_of_a_closed_stream_a_producer_is_told_what_it_has_stored_whatever_the_disk_does() -> None:
    async def main() -> None:
        files = disk_in_memory()
        async with opened(files) as streams:
            stream = await streams.create("a", StreamOptions(producers_max=1))
            await stream.append(b"one", producer=Producer("p", 1, 0), close=True)
            streams.disks[0].report(OSError(errno.ENOSPC, "full"))
            assert not streams.disks[0].passable
            assert (await stream.append(b"one", producer=Producer("p", 1, 0))).duplicate
            with pytest.raises(FencedError):
                await stream.append(b"one", producer=Producer("p", 0, 7))
            for newcomer in (Producer("p", 1, 1), Producer("p", 1, 5), Producer("q", 0, 0)):
                with pytest.raises(StreamClosedError):
                    await stream.append(b"two", producer=newcomer)
            await stream.trim(1)
            assert (await stream.append(b"one", producer=Producer("p", 1, 0))).duplicate

    run_virtual(main())


def test_a_retry_that_waits_for_its_turn_while_the_first_attempt_closes_is_a_duplicate(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outage whoever waits is let in one by one."""

    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            stream = await streams.create("a")
            use, turn, uses = Disk.use, asyncio.Event(), list[str]()

            @asynccontextmanager
            async def slow(disk: Disk, phase: str = "") -> AsyncIterator[None]:
                uses.append(phase)
                if len(uses) == 1:
                    await turn.wait()
                async with use(disk, phase):
                    yield

            with monkeypatch.context() as patched:
                patched.setattr(Disk, "use", slow)
                waiting = asyncio.create_task(stream.append(b"one", producer=Producer("p", 0, 0), close=True))
                await asyncio.sleep(0)
                assert uses == ["append"]
                first = await stream.append(b"one", producer=Producer("p", 0, 0), close=True)
                turn.set()
                assert (first, await waiting) == (Appended(0, 1), Appended(0, 1, duplicate=True))
            assert stream.is_closed

    run_virtual(main())


def test_a_closed_stream_stays_closed_when_all_of_it_is_trimmed() -> None:
    async def main() -> None:
        files = disk_in_memory()
        async with opened(files) as streams:
            stream = await streams.create("a")
            await stream.append(bytes(100_000))
            await stream.append([], close=True)
            await stream.trim(1)
            assert stream.size_bytes < 10_000, "its room is free again"
        assert verify("/disk", files=files).is_healthy
        files.power_cut()
        async with opened(files) as streams:
            stream = await streams.open("a")
            assert (stream.oldest, stream.tail, stream.is_closed) == (1, 1, True)

    run_virtual(main())


def test_an_append_without_records_that_does_not_close_is_none() -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            stream = await streams.create("a")
            with pytest.raises(ValueError, match="at least one record"):
                await stream.append([], producer=Producer("p", 0, 0))
            await stream.append([], headers={"a": "b"}, close=True)
            assert (stream.tail, stream.is_closed) == (0, True)

    run_virtual(main())


def test_the_state_of_a_producer_is_what_is_stored() -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            stream = await streams.create("a", StreamOptions(producers_max=1, producer_idle_s=0.0))
            assert stream.producer_state("p") is None
            await stream.append(b"one", producer=Producer("p", 3, 0))
            await stream.append(b"two", producer=Producer("p", 3, 1))
            with pytest.raises(SequenceError):
                await stream.append(b"four", producer=Producer("p", 3, 3))
            assert stream.producer_state("p") == (3, 1)
            await stream.append(b"one", producer=Producer("q", 0, 0))
            assert (stream.producer_state("p"), stream.producer_state("q")) == (None, (0, 0))

    run_virtual(main())


@pytest.mark.expected_logs
def test_an_append_can_be_checked_before_it_is_made() -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            stream = await streams.create("a", StreamOptions(quota_bytes=10_000))
            stream.check(100)
            with pytest.raises(LimitError):
                stream.check(20_000)
            streams.disks[0].report(OSError(errno.ENOSPC, "full"))
            with pytest.raises(outlast.Unavailable):
                stream.check()
            await stream.close()
            with pytest.raises(StreamClosedError):
                stream.check()
            await stream.delete()
            with pytest.raises(StreamNotFoundError):
                stream.check()

    run_virtual(main())


def test_a_wait_at_the_tail_ends_when_the_caller_says_so_at_a_change() -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            stream = await streams.create("a")
            waiting = asyncio.create_task(
                stream.fetch(0, wait_s=float("inf"), until=lambda: stream.labels.get("deleted") == "true")
            )
            await stream.label({"x": "y"})
            await asyncio.sleep(0)
            assert not waiting.done()
            await stream.label({"deleted": "true"})
            assert len(await waiting) == 0

    run_virtual(main())
