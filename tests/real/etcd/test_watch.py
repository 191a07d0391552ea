"""Watches of a real etcd: every change once and in order, and an end that is always an error."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from test_keys import of

from outlast import Kind, OutlastError, Scope, State
from outlast.etcd import Change, CompactedError, Compare, Delete, Etcd, Put, Range, WatchBatch
from outlast.extend import attached
from outlast.testing import EtcdServer, FaultProxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import RunAsync
    from outlast.etcd import Event, Watch


@pytest.fixture
def own() -> Iterator[EtcdServer]:
    """A server to be broken."""
    with EtcdServer() as server:
        yield server


def numbers(events: list[Event]) -> list[int]:
    return [int(event.kv.value) for event in events]


async def take(watch: Watch, count: int) -> list[Event]:
    """That many changes."""
    events: list[Event] = []
    while len(events) < count:
        events += (await anext(watch)).events
    return events


@pytest.mark.short
def test_changes_come_once_in_their_order_and_by_whole_revisions(etcd: EtcdServer, run_async: RunAsync) -> None:
    async def main() -> None:
        adapter = of(etcd)
        before = await adapter.put(b"a", b"0")
        async with adapter.watch(after=before) as watch:
            assert watch.revision == before
            await adapter.put(b"a", b"1")
            await adapter.txn([], [Put(b"b", b"2"), Put(b"c", b"3")])
            last = (await adapter.txn([], [Delete(b"a")])).revision
            events = await take(watch, 4)
            assert [(event.change, event.kv.key, event.kv.value) for event in events] == [
                (Change.PUT, b"a", b"1"),
                (Change.PUT, b"b", b"2"),
                (Change.PUT, b"c", b"3"),
                (Change.DELETE, b"a", b""),
            ]
            assert events[1].kv.mod_revision == events[2].kv.mod_revision
            assert watch.revision == last
        async with adapter.watch(b"c", after=before) as watch:
            assert numbers(await take(watch, 1)) == [3], "what was before it is still told"
        await adapter.close()

    run_async(main)


def test_what_etcd_divides_is_handed_out_by_whole_revisions(etcd: EtcdServer, run_async: RunAsync) -> None:
    async def main() -> None:
        adapter = of(etcd)
        before = (await adapter.range()).revision
        for _ in range(4):
            await adapter.txn([], [Put(b"%d" % n, b"x" * 240_000) for n in range(5)])
        batches: list[WatchBatch] = []
        async with adapter.watch(after=before) as watch:
            while sum(len(batch.events) for batch in batches) < 20:
                batches.append(await anext(watch))
        assert len(batches) > 1
        revisions = [{event.kv.mod_revision for event in batch.events} for batch in batches]
        assert [len(each) for each in revisions] == [len(batch.events) // 5 for batch in batches]
        assert [max(each) for each in revisions] == [batch.revision for batch in batches]
        await adapter.delete(b"", is_prefix=True)
        await adapter.close()

    run_async(main)


def test_silence_is_asked_and_is_no_end_while_etcd_answers(etcd: EtcdServer, run_async: RunAsync) -> None:
    async def main() -> None:
        adapter = of(etcd, heartbeat_s=0.05)
        before = await adapter.put(b"a", b"0")
        async with adapter.watch(after=before) as watch:
            coming = asyncio.create_task(anext(watch))
            await asyncio.wait({coming}, timeout=0.5)
            assert not coming.done()
            await adapter.put(b"a", b"1")
            assert numbers(list((await coming).events)) == [1]
        await adapter.close()

    run_async(main)


@pytest.mark.expected_logs
@pytest.mark.parametrize("trouble", ["stopped", "killed", "frozen", "cut", "silent"])
def test_no_end_is_silent(own: EtcdServer, run_async: RunAsync, trouble: str) -> None:
    async def main(proxy: FaultProxy) -> None:
        direct, adapter = Etcd(own.url), Etcd(f"http://127.0.0.1:{proxy.port}", heartbeat_s=0.2)
        before = await direct.put(b"a", b"0")
        async with adapter.watch(after=before) as watch:
            coming = asyncio.create_task(anext(watch))
            await asyncio.sleep(0)
            if trouble == "silent":
                # Its own connection alone is dead: others are served.
                proxy.mode = "mute"
                await asyncio.sleep(0.2)
            else:
                {"stopped": own.stop, "killed": own.kill, "frozen": own.freeze, "cut": proxy.cut}[trouble]()
            with pytest.raises((OSError, OutlastError)) as caught:
                await coming
            fault = attached(caught.value)
            assert fault is not None
            assert fault.kind is Kind.TRANSIENT
            served = trouble == "cut"
            assert (fault.scope is Scope.CALL) is served
            assert (adapter.state is State.UP) is served
            with pytest.raises(type(caught.value)):
                await anext(watch)
            await direct.close()
        proxy.mode = "pass"
        own.thaw()
        await asyncio.to_thread(own.start)
        await adapter.ready()
        await direct.put(b"a", b"1")
        async with adapter.watch(after=watch.revision) as later:
            assert numbers(await take(later, 1)) == [1]
        await direct.close()
        await adapter.close()

    with FaultProxy("127.0.0.1", own.port) as proxy:
        run_async(lambda: main(proxy))


def test_a_cut_and_a_compaction_lose_no_change_and_double_none(own: EtcdServer, run_async: RunAsync) -> None:
    """Cut, 100 writes, compacted, and watched again: a full read, and then what follows it."""

    async def main(proxy: FaultProxy) -> None:
        direct, adapter = Etcd(own.url), Etcd(f"http://127.0.0.1:{proxy.port}")
        seen: list[int] = []
        found = await adapter.range()
        async with adapter.watch(after=found.revision) as watch:
            await direct.put(b"n", b"1")
            seen += numbers(await take(watch, 1))
            proxy.cut()
            with pytest.raises((OSError, OutlastError)):
                await anext(watch)
        for n in range(2, 102):
            await direct.put(b"n", b"%d" % n)
        async with adapter.watch(after=watch.revision) as resumed:
            seen += numbers(await take(resumed, 100))
        assert seen == list(range(1, 102)), "nothing was compacted: all of them, once"
        now = (await direct.range()).revision
        await direct.compact(now)
        async with adapter.watch(after=watch.revision) as behind:
            with pytest.raises(CompactedError) as caught:
                await anext(behind)
        assert caught.value.oldest == now
        fault = attached(caught.value)
        assert fault is not None
        assert (fault.code, fault.scope) == ("compacted", Scope.CALL)
        found = await adapter.range()
        assert [kv.value for kv in found.kvs] == [b"101"]
        async with adapter.watch(after=found.revision) as watch:
            await direct.put(b"n", b"102")
            assert numbers(await take(watch, 1)) == [102]
        assert adapter.state is State.UP
        await direct.close()
        await adapter.close()

    with FaultProxy("127.0.0.1", own.port) as proxy:
        run_async(lambda: main(proxy))


def test_open_watches_are_bounded(etcd: EtcdServer, run_async: RunAsync) -> None:
    async def main() -> None:
        adapter = of(etcd, watches_max=1)
        revision = (await adapter.range()).revision
        async with adapter.watch(after=revision):
            with pytest.raises(OutlastError, match="1 watches are open") as caught:
                async with adapter.watch(after=revision):
                    pass
            fault = attached(caught.value)
            assert fault is not None
            assert (fault.kind, fault.scope) == (Kind.OVERLOADED, Scope.CALL)
        async with adapter.watch(after=revision):
            pass
        await adapter.close()

    run_async(main)


def test_a_watch_that_is_cancelled_goes_on(etcd: EtcdServer, run_async: RunAsync) -> None:
    async def main() -> None:
        adapter = of(etcd)
        before = await adapter.put(b"a", b"0")
        async with adapter.watch(after=before) as watch:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(watch), 0.05)
            await adapter.put(b"a", b"1")
            assert numbers(await take(watch, 1)) == [1]
        await adapter.close()

    run_async(main)


class Mirror:
    """A copy of what is below a prefix, as a user keeps one, and everything it was told."""

    def __init__(self, adapter: Etcd) -> None:
        self.adapter = adapter
        self.keys: dict[bytes, bytes] = {}
        self.is_old = True
        self.told: list[Any] = []
        self.reads = 0
        self.news = asyncio.Event()

    async def run(self) -> None:
        async with self.adapter.follow() as following:
            async for seen in following:
                self.told.append(seen)
                match seen:
                    case Range():
                        self.keys = {kv.key: kv.value for kv in seen.kvs}
                        self.reads += 1
                        self.is_old = False
                    case WatchBatch():
                        for event in seen.events:
                            if event.change is Change.PUT:
                                self.keys[event.kv.key] = event.kv.value
                            else:
                                del self.keys[event.kv.key]
                        self.is_old = False
                    case _:
                        self.is_old = True
                self.news.set()

    async def until(self, key: bytes, value: bytes | None) -> None:
        await self.holds(lambda: not self.is_old and self.keys.get(key) == value)

    async def holds(self, condition: Any) -> None:
        while not condition():
            self.news.clear()
            await self.news.wait()


@pytest.mark.expected_logs
@pytest.mark.parametrize("trouble", ["stopped", "killed", "frozen", "cut"])
def test_who_follows_is_told_what_is_old_and_is_current_again_by_itself(
    own: EtcdServer, run_async: RunAsync, trouble: str
) -> None:
    """The first try to read again fails, since etcd is still down; and no key changes afterwards."""

    async def main(proxy: FaultProxy) -> None:
        direct, adapter = Etcd(own.url), Etcd(f"http://127.0.0.1:{proxy.port}", heartbeat_s=0.2)
        mirror = Mirror(adapter)
        following = asyncio.create_task(mirror.run())
        await direct.put(b"a", b"1")
        await mirror.until(b"a", b"1")
        if trouble == "cut":
            proxy.mode = "refuse"
            proxy.cut()
        else:
            {"stopped": own.stop, "killed": own.kill, "frozen": own.freeze}[trouble]()
        await mirror.holds(lambda: mirror.is_old)
        assert mirror.keys == {b"a": b"1"}
        while adapter.state is not State.DOWN or adapter.health.probe.attempt < 2:
            await asyncio.sleep(0.02)
        assert mirror.is_old
        olds = sum(not isinstance(seen, Range | WatchBatch) for seen in mirror.told)
        assert olds == 1, "it is said once"
        proxy.mode = "pass"
        own.thaw()
        await asyncio.to_thread(own.start)
        await mirror.holds(lambda: not mirror.is_old)
        assert mirror.told[-1] == WatchBatch((), mirror.told[-1].revision), "nothing has changed"
        await direct.ready()
        await direct.delete(b"a")
        await mirror.until(b"a", None)
        assert mirror.reads == 1
        following.cancel()
        await asyncio.wait({following})
        await direct.close()
        await adapter.close()

    with FaultProxy("127.0.0.1", own.port) as proxy:
        run_async(lambda: main(proxy))


def test_whoever_compacts_all_the_time_makes_no_hot_loop(etcd: EtcdServer, run_async: RunAsync) -> None:
    async def main() -> None:
        adapter = of(etcd)
        reads = 0
        begin_watch, read = adapter.begin_watch, adapter.range

        async def compacted(prefix: bytes, after: int, deadline_s: float | None = None) -> Watch:
            raise CompactedError("etcd: watch", 11, "required revision has been compacted", after + 1)

        async def counted(prefix: bytes = b"") -> Range:
            nonlocal reads
            reads += 1
            if reads == 4:
                adapter.begin_watch = begin_watch  # type: ignore[method-assign]
            return await read(prefix)

        adapter.begin_watch = compacted  # type: ignore[method-assign]
        adapter.range = counted  # type: ignore[assignment, method-assign]
        async with adapter.follow() as following:
            for _ in range(4):
                assert isinstance(await anext(following), Range)
            coming = asyncio.create_task(anext(following))
            await adapter.put(b"a", b"1")
            assert numbers(list((await coming).events)) == [1]
            assert following._backoff.attempt == 2, "from the second time on it waited before it read again"
        assert reads == 4
        await adapter.close()

    run_async(main)


@pytest.mark.expected_logs
def test_what_was_cached_while_cut_off_is_refused_by_its_revision(own: EtcdServer, run_async: RunAsync) -> None:
    """Whoever decides by what is old is told so by the comparison, and has what is new a moment later."""

    async def main(proxy: FaultProxy) -> None:
        direct, adapter = Etcd(own.url), Etcd(f"http://127.0.0.1:{proxy.port}", heartbeat_s=0.2)
        mirror = Mirror(adapter)
        following = asyncio.create_task(mirror.run())
        cached = await direct.put(b"k", b"1")
        await mirror.until(b"k", b"1")
        proxy.mode = "blackhole"
        await mirror.holds(lambda: mirror.is_old)
        await direct.put(b"k", b"of another")
        assert mirror.keys[b"k"] == b"1", "the copy is old, and says so"
        proxy.mode = "pass"
        await adapter.ready()
        swap = await adapter.txn([Compare.mod_revision(b"k", cached)], [Put(b"k", b"2")])
        assert not swap.succeeded
        await mirror.until(b"k", b"of another")
        following.cancel()
        await asyncio.wait({following})
        await direct.close()
        await adapter.close()

    with FaultProxy("127.0.0.1", own.port) as proxy:
        run_async(lambda: main(proxy))


@pytest.mark.expected_logs
def test_who_follows_and_is_too_far_behind_reads_everything_again(own: EtcdServer, run_async: RunAsync) -> None:
    async def main(proxy: FaultProxy) -> None:
        direct, adapter = Etcd(own.url), Etcd(f"http://127.0.0.1:{proxy.port}", heartbeat_s=0.2)
        mirror = Mirror(adapter)
        following = asyncio.create_task(mirror.run())
        await direct.put(b"gone", b"")
        await mirror.until(b"gone", b"")
        proxy.mode = "refuse"
        proxy.cut()
        await mirror.holds(lambda: mirror.is_old)
        await direct.delete(b"gone")
        for n in range(20):
            await direct.put(b"n", b"%d" % n)
        await direct.compact((await direct.range()).revision)
        proxy.mode = "pass"
        await mirror.until(b"n", b"19")
        assert mirror.keys == {b"n": b"19"}, "what was deleted meanwhile is gone here too"
        assert mirror.reads == 2
        await direct.put(b"n", b"20")
        await mirror.until(b"n", b"20")
        following.cancel()
        await asyncio.wait({following})
        await direct.close()
        await adapter.close()

    with FaultProxy("127.0.0.1", own.port) as proxy:
        run_async(lambda: main(proxy))
