"""A real etcd in trouble: out of its quota, with a login, behind a proxy that loses answers, one endpoint of several gone."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from typing import TYPE_CHECKING

import httpx2
import pytest
from test_keys import of, passes_transactions

from outlast import ConfigurationError, Kind, Scope, State, Unavailable
from outlast.etcd import NOSPACE, Compare, Delete, Etcd, EtcdError, Get, Put, Range
from outlast.extend import attached
from outlast.testing import EtcdServer, FaultProxy, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import RunAsync

SECRET = "hunter2-of-the-shop"


@pytest.fixture
def small() -> Iterator[EtcdServer]:
    """A server with a small quota."""
    with EtcdServer(quota_bytes=2 * 2**20) as server:
        yield server


@pytest.fixture
def own() -> Iterator[EtcdServer]:
    """A server to be broken."""
    with EtcdServer() as server:
        yield server


async def fill(adapter: Etcd) -> Exception:
    """Write until it is refused; return what the one who found out was told."""
    for n in range(100):
        try:
            await adapter.put(b"filler/%d" % n, b"x" * 100_000)
        except EtcdError as error:
            return error
    raise AssertionError


@pytest.mark.expected_logs("out of|NOSPACE|is back|resolved|well again|was down")
def test_out_of_its_quota_writers_wait_while_reads_and_deletions_pass(small: EtcdServer, run_async: RunAsync) -> None:
    async def main() -> None:
        adapter = Etcd(small.url)
        lease = await adapter.lease_grant(600)
        before = await adapter.put(b"kept", b"1", lease=lease)
        async with adapter.watch(b"kept", after=before) as watch:
            error = await fill(adapter)
            fault = attached(error)
            assert fault is not None
            assert (fault.kind, fault.code, fault.scope) == (Kind.EXHAUSTED, NOSPACE, Scope.DEPENDENCY)
            for command in ("etcdctl compact", "etcdctl defrag", "etcdctl alarm disarm"):
                assert command in fault.hint
            assert adapter.is_full
            # Whoever writes is refused from memory: nothing is sent.
            asked = 0
            for write in (lambda: adapter.put(b"a", b""), lambda: adapter.lease_grant(60)):
                with pytest.raises(Unavailable) as caught:
                    await write()
                assert caught.value.fault.code == NOSPACE
                asked += 1
            assert asked == 2
            # What needs no room passes, however often it is probed meanwhile.
            await adapter.look()
            await asyncio.sleep(0.5)
            assert adapter.is_full
            found = await adapter.get(b"kept")
            assert found is not None
            assert await adapter.lease_keepalive(lease) == 600
            assert [alarm.name for alarm in await adapter.alarms()] == [NOSPACE]
            if passes_transactions(small):
                done = await adapter.txn([Compare.exists(b"kept")], [Delete(b"kept"), Get(b"filler/", is_prefix=True, limit=1)])
                assert done.succeeded
            else:
                await adapter.delete(b"kept")
            assert (await anext(watch)).events[0].kv.key == b"kept"
        # The way out, as the hint has it.
        assert await adapter.delete(b"filler/", is_prefix=True) > 0
        await adapter.compact((await adapter.range()).revision)
        await adapter.defragment()
        assert adapter.is_full, "room alone is not enough"
        assert (await adapter.status()).db_size_bytes < 2**20
        assert await adapter.disarm() == 1
        await adapter.ready()
        await adapter.put(b"a", b"")
        await adapter.close()

    run_async(main)


@pytest.mark.expected_logs
def test_a_full_etcd_that_goes_away_refuses_reads_too(small: EtcdServer, run_async: RunAsync) -> None:
    async def main() -> None:
        adapter = Etcd(small.url)
        await fill(adapter)
        assert adapter.is_full
        small.kill()
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the library's own
            await adapter.get(b"a")
        fault = attached(caught.value)
        assert fault is not None
        assert fault.kind is Kind.TRANSIENT
        assert not adapter.is_full
        with pytest.raises(Unavailable):
            await adapter.get(b"a")
        await asyncio.to_thread(small.start)
        while not adapter.is_full:
            await asyncio.sleep(0.02)
        assert await adapter.get(b"a") is None
        await adapter.close()

    run_async(main)


@pytest.mark.expected_logs
def test_it_comes_up_full(small: EtcdServer, run_async: RunAsync) -> None:
    """An adapter that is made while the alarm is on."""

    async def main() -> None:
        first = Etcd(small.url)
        await fill(first)
        await first.close()
        second = Etcd(small.url)
        await second.look()
        assert second.is_full
        assert second.fault is not None
        assert second.fault.kind is Kind.EXHAUSTED
        assert (await second.range(b"filler/", limit=1)).count > 0
        await second.close()

    run_async(main)


def test_a_read_whose_connection_ends_is_asked_once_more_on_a_new_one(own: EtcdServer, run_async: RunAsync) -> None:
    asked = threading.Event()

    async def main(proxy: FaultProxy) -> None:
        direct, adapter = Etcd(own.url), Etcd(f"http://127.0.0.1:{proxy.port}")
        await direct.put(b"read", b"1")
        proxy.mode = "mute"
        reading = asyncio.create_task(adapter.get(b"read"))
        while not asked.is_set():
            await asyncio.sleep(0.01)
        proxy.cut()
        proxy.mode = "pass"
        found = await reading
        assert found is not None
        assert (found.value, proxy.attempt_count) == (b"1", 2)
        for _ in range(20):
            proxy.cut()
            assert await adapter.get(b"read") == found, "it was kept, and is cut before it is used again"
        await direct.close()
        await adapter.close()

    with FaultProxy("127.0.0.1", own.port, watch=lambda _at, _opening: asked.set()) as proxy:
        run_async(lambda: main(proxy))


@pytest.mark.expected_logs
@pytest.mark.parametrize("comes_first", ["nobody", "another"])
def test_a_lost_reply_is_never_repeated_and_ones_own_write_is_known(
    own: EtcdServer, run_async: RunAsync, comes_first: str
) -> None:
    """The proxy drops the reply of a compare-and-swap: it was done once, and the value says by whom."""

    async def main(proxy: FaultProxy) -> None:
        direct, adapter = Etcd(own.url), Etcd(f"http://127.0.0.1:{proxy.port}")
        first = await adapter.put(b"k", b"0")
        swap = [Compare.mod_revision(b"k", first)], [Put(b"k", b"attempt 7")], [Get(b"k")]
        proxy.mode = "mute"
        swapping = asyncio.create_task(adapter.txn(*swap))
        while (await direct.range(b"k")).kvs[0].mod_revision == first:
            await asyncio.sleep(0.01)
        if comes_first == "another":
            await direct.put(b"k", b"of another")
        proxy.cut()
        proxy.mode = "pass"
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the library's own
            await swapping
        fault = attached(caught.value)
        assert fault is not None
        assert (fault.kind, fault.scope) == (Kind.TRANSIENT, Scope.CALL), "etcd answers others"
        found = await adapter.get(b"k")
        assert found is not None
        # The caller's rule: mine by its attempt, else a plain conflict.
        if comes_first == "nobody":
            assert (found.value, found.version) == (b"attempt 7", 2), "it was done once"
        else:
            assert (found.value, found.version) == (b"of another", 3)
        again = await adapter.txn(*swap)
        assert not again.succeeded, "to try again does no harm: the revision is another one"
        (seen,) = again.responses
        assert isinstance(seen, Range)
        assert seen.kvs[0].version == found.version
        await direct.close()
        await adapter.close()

    with FaultProxy("127.0.0.1", own.port) as proxy:
        run_async(lambda: main(proxy))


def test_a_login_is_renewed_once_and_a_wrong_one_needs_a_person(
    own: EtcdServer, run_async: RunAsync, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[str] = []

    async def main() -> None:
        adapter = Etcd(own.url, user="shop", password=SECRET)
        await adapter.put(b"a", b"1")
        assert adapter.state is State.UP, "a login is no error where nobody is asked for one"
        own.require_login("shop", SECRET)
        assert await adapter.get(b"a") is not None, "from now on it is asked for one"
        # Its tokens are in memory, so it knows none of them when it is back.
        own.restart()
        with contextlib.suppress(httpx2.TransportError):
            await adapter.get(b"a")
        await adapter.ready()
        before = await adapter.put(b"a", b"2")
        assert adapter._gateway._token not in {"", "-"}
        adapter._gateway._token = "stale.1"
        async with adapter.watch(b"a", after=before - 1) as watch:
            assert (await anext(watch)).events[0].kv.value == b"2"
        adapter._gateway._token = "stale.2"
        await asyncio.gather(*(adapter.get(b"a") for _ in range(10)))
        said.append(repr(adapter))
        await adapter.close()

        for user, code in (("", "no login"), ("shop", "login refused")):
            wrong = Etcd(own.url, user=user, password=f"{SECRET}-not" if user else "")
            with pytest.raises(EtcdError) as caught:
                await wrong.get(b"a")
            fault = attached(caught.value)
            assert fault is not None
            assert (fault.kind, fault.code, fault.scope) == (Kind.PERMANENT, code, Scope.DEPENDENCY)
            assert "password" in fault.hint
            assert wrong.state is State.DOWN
            said.append(f"{caught.value!r} {fault} {wrong.unavailable()} {wrong!r}")
            await wrong.close()

    with caplog.at_level("DEBUG"):
        run_async(main)
    assert SECRET not in "\n".join([*said, caplog.text])


def test_a_right_that_is_missing_concerns_the_call(own: EtcdServer, run_async: RunAsync) -> None:
    async def main() -> None:
        own.require_login("root", SECRET)
        own.ask("auth/user/add", {"name": "clerk", "password": SECRET})
        adapter = Etcd(own.url, user="clerk", password=SECRET)
        with pytest.raises(EtcdError) as caught:
            await adapter.get(b"a")
        fault = attached(caught.value)
        assert fault is not None
        assert (fault.kind, fault.code, fault.scope) == (Kind.PERMANENT, "no permission", Scope.CALL)
        with pytest.raises(EtcdError, match="permission denied"):
            async with adapter.watch(b"a", after=0) as watch:
                await anext(watch)
        await adapter.look()
        assert adapter.state is State.UP, "it knows us well enough to say no"
        await adapter.close()

    run_async(main)


@pytest.mark.expected_logs
def test_several_endpoints_are_tried_in_turn(etcd: EtcdServer, run_async: RunAsync) -> None:
    async def main(one: FaultProxy, two: FaultProxy) -> None:
        nobody = f"http://127.0.0.1:{free_port()}"
        adapter = Etcd([nobody, *(f"http://127.0.0.1:{each.port}" for each in (one, two))], timeout_s=0.5)
        # One that cannot be reached is left within the call.
        await adapter.get(b"a")
        assert (one.attempt_count, two.attempt_count) == (1, 0)
        # One that answers nothing is left by the next call: etcd as a whole is well.
        one.mode = "blackhole"
        with pytest.raises(TimeoutError) as caught:
            await adapter.get(b"a")
        fault = attached(caught.value)
        assert fault is not None
        assert fault.scope is Scope.CALL
        assert adapter.state is State.UP
        async with adapter.watch(after=1):
            await adapter.get(b"a")
        one.mode = "refuse"
        two.mode = "blackhole"
        # Down is when none of them serves; back when one does.
        await adapter.look()
        assert adapter.state is State.DOWN
        two.mode = "pass"
        await adapter.ready()
        await adapter.get(b"a")
        await adapter.close()

    with FaultProxy("127.0.0.1", etcd.port) as one, FaultProxy("127.0.0.1", etcd.port) as two:
        run_async(lambda: main(one, two))


def test_no_call_waits_for_the_default_executor(etcd: EtcdServer, run_async: RunAsync) -> None:
    """A disk that hangs may have filled it with slow calls: an address that needs no look-up is dialled all the same."""

    async def main() -> None:
        hang = threading.Event()
        asyncio.get_running_loop().set_default_executor(pool := concurrent.futures.ThreadPoolExecutor(1))
        hanging = [asyncio.get_running_loop().run_in_executor(None, hang.wait) for _ in range(3)]
        try:
            adapter = of(etcd)
            revision = await adapter.put(b"a", b"1")
            await adapter.probe()
            async with adapter.watch(after=revision - 1) as watch:
                assert (await anext(watch)).revision == revision
            assert not any(each.done() for each in hanging)
            await adapter.close()
        finally:
            hang.set()
            await asyncio.gather(*hanging)
            pool.shutdown()

    run_async(main)


@pytest.mark.parametrize(
    "endpoint",
    [f"http://shop:{SECRET}@127.0.0.1:2379", f"http://127.0.0.1:{SECRET}", f"127.0.0.1/{SECRET}", f"http://one/{SECRET}", ""],
)
def test_an_endpoint_that_cannot_work_is_refused_without_being_shown(endpoint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Etcd(endpoint)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("options", [{"user": "shop"}, {"timeout_s": 0}, {"heartbeat_s": float("inf")}, {"watches_max": 0}])
def test_settings_that_cannot_work_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        Etcd(**options)  # type: ignore[arg-type]
