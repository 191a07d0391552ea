"""The store in etcd when answers are lost, when etcd is out of its quota, and beside a machine whose clock is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from procedure_store_rig import DONE, KIND, RUNNING, begin, claim, new, submit, written
from test_keys import passes_transactions

from outlast import Kind, OutlastError, Unavailable
from outlast.etcd import Etcd, EtcdError
from outlast.extend import attached
from outlast.procedures._model import Recorded, RecordWrite, Submission, Sweep
from outlast.procedures._stores.clock import StoreClock
from outlast.procedures._stores.etcd import EtcdStore
from outlast.testing import EtcdServer, FaultProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from conftest import RunAsync

pytestmark = pytest.mark.expected_logs


class WrongClock(StoreClock):
    """The clock of another machine, which is wrong by `skew_s`."""

    def __init__(self, skew_s: float) -> None:
        self._skew_s = skew_s
        super().__init__()

    def wall(self) -> float:
        return time.time() + self._skew_s

    def boot_id(self) -> str:
        return "another machine"


def opened(url: str, prefix: str, clock: StoreClock | None = None) -> AbstractAsyncContextManager[EtcdStore]:
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def whole() -> AsyncIterator[EtcdStore]:
        etcd = Etcd(url, prefix=prefix)
        await etcd.open()
        store = EtcdStore(etcd, clock=clock)
        try:
            await store.open()
            yield store
        finally:
            await store.close()
            await etcd.close()

    return whole()


async def done_without_an_answer(
    proxy: FaultProxy,
    store: EtcdStore,
    direct: EtcdStore,
    call: Callable[[], Awaitable[Any]],
    *,
    between: Callable[[], Awaitable[Any]] | None = None,
) -> Any:
    """Let etcd do what is asked, lose the answer, and let the connection break; then all passes again."""
    await current(store)
    before = (await direct._etcd.range(b"a/")).revision
    proxy.mode = "mute"
    task = asyncio.ensure_future(call())
    while (await direct._etcd.range(b"a/")).revision == before:
        await asyncio.sleep(0.01)
    if between is not None:
        await between()
    proxy.mode = "pass"
    proxy.cut()
    return await task


async def current(store: EtcdStore) -> None:
    """Wait until it has seen all, over the pooled connections that were cut before."""
    while True:
        with contextlib.suppress(OSError, httpx2.TransportError, Unavailable):
            return await store._mirror.current()
        await asyncio.sleep(0.01)


async def disarmed(etcd: Etcd, write: Callable[[], Awaitable[Any]]) -> Any:
    """Disarm until a write passes: one that was under way may have raised the alarm once more."""
    while True:
        await etcd.disarm()
        await etcd.ready(timeout_s=30.0)
        with contextlib.suppress(Unavailable):
            return await write()


async def fill(etcd: Etcd) -> None:
    for number in range(100):
        await etcd.put(b"filler/%d" % number, b"x" * 200_000)


def test_a_swap_whose_answer_is_lost_is_known_again_and_done_once(etcd: EtcdServer, tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        with FaultProxy("127.0.0.1", etcd.port) as proxy:
            prefix = f"{tmp_path.name}/"
            async with opened(f"http://127.0.0.1:{proxy.port}", prefix) as store, opened(etcd.url, prefix) as direct:
                await store.beat("a", "a", 60.0)
                asked = new(claim=True)
                [made] = await done_without_an_answer(proxy, store, direct, lambda: store.submit([asked], "a"))
                assert (made.answer, made.record.state, made.record.token) == (Submission.CREATED, RUNNING, 1)
                write = written(made.record, body_json="1", took_signals=("go",))
                await direct.signal(made.record.id, "go", "1")
                await direct.signal(made.record.id, "go", "2")
                assert await done_without_an_answer(proxy, store, direct, lambda: store.record([write])) == [Recorded.WRITTEN]
                [seen] = await direct.find([made.record.id])
                assert seen is not None
                assert [one.payload_json for one in seen.signals] == ["2"], "one was taken, once"
                end = written(made.record, DONE, result_json="7")
                assert await done_without_an_answer(proxy, store, direct, lambda: store.record([end])) == [Recorded.WRITTEN]
                assert await store.record([end]) == [Recorded.LATE]
                assert [one.result_json for one in await direct.records()] == ["7"]

    run_async(main)


def test_a_lost_answer_after_which_another_wrote_is_a_plain_conflict(
    etcd: EtcdServer, tmp_path: Path, run_async: RunAsync
) -> None:
    async def main() -> None:
        with FaultProxy("127.0.0.1", etcd.port) as proxy:
            prefix = f"{tmp_path.name}/"
            async with opened(f"http://127.0.0.1:{proxy.port}", prefix) as store, opened(etcd.url, prefix) as direct:
                await direct.beat("a", "a", 60.0)
                record = await begin(direct)
                for payload in ("1", "2"):
                    await direct.signal(record.id, "go", payload)
                write = RecordWrite(record.id, record.token, RUNNING.value, "mine", took_signals=("go",))
                outcomes = await done_without_an_answer(
                    proxy, store, direct, lambda: store.record([write]), between=lambda: direct.signal(record.id, "go", "3")
                )
                assert outcomes == [Recorded.WRITTEN]
                [seen] = await direct.find([record.id])
                assert seen is not None
                assert (seen.body_json, [one.payload_json for one in seen.signals]) == ("mine", ["2", "3"]), (
                    "neither write is lost"
                )

    run_async(main)


def test_a_runner_keeps_the_lease_it_was_granted(etcd: EtcdServer, tmp_path: Path, run_async: RunAsync) -> None:
    """Its own writes are noted with it, so that no beat asks for another: that would fail while etcd is out of its quota."""

    async def main() -> None:
        async with opened(etcd.url, f"{tmp_path.name}/") as store:
            leases = set()
            for _ in range(20):
                await store.beat("a", "a", 30.0)
                [runner] = (await store._etcd.range(b"a/w/")).kvs
                leases.add(runner.lease)
            assert len(leases) == 1
            assert leases != {0}

    run_async(main)


def test_out_of_its_quota_writes_are_refused_with_the_way_out_and_all_else_goes_on(run_async: RunAsync) -> None:
    async def main() -> None:
        with EtcdServer(quota_bytes=4 * 2**20) as server:
            async with opened(server.url, "p/") as store:
                await store.beat("a", "a", 30.0)
                old = await begin(store, "old")
                await store.record([written(old, DONE)])
                running = await begin(store, "running")
                waiting = await submit(store, "waiting")
                etcd = store._etcd
                with pytest.raises((EtcdError, Unavailable)):
                    await fill(etcd)
                for write in (lambda: store.submit([new("next")], "a"), lambda: store.record([written(running, DONE)])):
                    with pytest.raises(Unavailable) as refused:
                        await write()
                    assert refused.value.fault.kind is Kind.EXHAUSTED
                    assert "defrag" in refused.value.fault.hint
                    assert "disarm" in refused.value.fault.hint
                assert running.id in await store.beat("a", "a", 30.0), "the lease goes on"
                assert [one and one.key for one in await store.find([waiting.id])] == ["waiting"]
                assert (await store.counts()).held == {(KIND, "done"): 1, (KIND, "running"): 1, (KIND, "queued"): 1}
                if passes_transactions(server):
                    assert (await store.sweep(Sweep(0.0, 0.0, 10))).deleted == 1, "what is deleted makes room"
                await etcd.delete(b"filler/", is_prefix=True)
                await etcd.compact((await etcd.range(b"a/")).revision)
                await etcd.defragment()
                assert await disarmed(etcd, lambda: store.record([written(running, DONE)])) == [Recorded.WRITTEN]
                assert [one.key for one in await claim(store)] == ["waiting"]

    run_async(main)


def test_records_are_bounded_and_the_refusal_says_what_to_do(etcd: EtcdServer, tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        async with opened(etcd.url, f"{tmp_path.name}/") as first:
            store = EtcdStore(first._etcd, records_max=10)
            try:
                await store.submit([new(f"k{number}") for number in range(10)], "a")
                with pytest.raises(OutlastError, match="limit is 10") as refused:
                    await submit(store, "one more")
                fault = attached(refused.value)
                assert fault is not None
                assert fault.kind is Kind.EXHAUSTED
                [joined] = await store.submit([new("k3")], "a")
                assert joined.answer is Submission.JOINED
                [record] = await store.claim("a", [KIND], 1)
                await store.record([written(record, DONE)])
                await submit(store, "one more")
                assert await store.find([record.id]) == [None], "the oldest that ended made room"
            finally:
                await store.close()

    run_async(main)


@pytest.mark.parametrize("skew_s", [600.0, -600.0])
def test_a_submitter_whose_clock_is_wrong_has_the_deadline_it_asked_for(
    etcd: EtcdServer, tmp_path: Path, run_async: RunAsync, skew_s: float
) -> None:
    async def main() -> None:
        prefix, wrong = f"{tmp_path.name}/", WrongClock(skew_s)
        async with opened(etcd.url, prefix) as store:
            await store.beat("a", "a", 60.0)
            async with opened(etcd.url, prefix, wrong) as skewed:
                record = await submit(skewed, deadline_s=60.0)
                assert await store.sweep(Sweep(None, None, 100)) == await skewed.sweep(Sweep(None, None, 100))
                [claimed] = await claim(store)
                assert claimed.deadline_at is not None
                assert claimed.id == record.id
                assert 30.0 < claimed.deadline_at - claimed.read_at < 90.0, "not ten minutes away"
                assert (await skewed.beat("b", "b", 60.0)) == {}
                [seen] = await skewed.find([record.id])
                assert seen is not None
                assert abs(seen.read_at - claimed.read_at) < 60.0

    run_async(main)
