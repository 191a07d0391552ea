"""Keys, transactions and leases of a real etcd, over its JSON gateway."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

import pytest

from outlast import Kind, OutlastError, Scope, State
from outlast.etcd import (
    Compare,
    Delete,
    Etcd,
    EtcdError,
    Get,
    LeaseLostError,
    Put,
    Range,
    RangeTooLargeError,
    RequestTooLargeError,
)
from outlast.extend import attached

if TYPE_CHECKING:
    from conftest import RunAsync
    from outlast.testing import EtcdServer


def passes_transactions(server: EtcdServer) -> bool:
    """Whether it serves transactions that delete alone when it is full: 3.5.1, which a wheel has, does not."""
    major, minor, patch = map(int, server.version.split("."))
    return patch >= {(3, 4): 22, (3, 5): 6}.get((major, minor), 0)


def of(server: EtcdServer, **options: object) -> Etcd:
    """An adapter whose keys nobody else has."""
    return Etcd(server.url, prefix=f"{uuid.uuid4().hex}/", **options)  # type: ignore[arg-type]


@pytest.mark.short
def test_keys_are_written_read_and_deleted_below_the_prefix(etcd: EtcdServer, run_async: RunAsync) -> None:
    async def main() -> None:
        adapter = of(etcd)
        assert await adapter.get(b"a") is None
        revision = await adapter.put(b"a", b"\xff\x00")
        found = await adapter.get(b"a")
        assert found is not None
        assert (found.key, found.value, found.mod_revision, found.version) == (b"a", b"\xff\x00", revision, 1)
        assert await adapter.put(b"a", b"") == revision + 1
        assert await adapter.get(b"a", revision=revision) == found
        await adapter.put(b"b/1", b"x")
        await adapter.put(b"b/\xff", b"y")
        assert [kv.key for kv in (await adapter.range(b"b/")).kvs] == [b"b/1", b"b/\xff"]
        assert [kv.key for kv in (await adapter.range()).kvs] == [b"a", b"b/1", b"b/\xff"]
        assert [kv.key for kv in (await adapter.range(beyond=b"a", limit=1)).kvs] == [b"b/1"]
        assert (await adapter.range(count_only=True)).count == 3
        assert await adapter.delete(b"a") == 1
        assert await adapter.delete(b"a") == 0
        assert await adapter.delete(b"b/", is_prefix=True) == 2
        assert await adapter.range() == Range((), revision + 5, more=False, count=0)
        await adapter.close()

    run_async(main)


def test_a_comparison_that_does_not_hold_is_an_answer(etcd: EtcdServer, run_async: RunAsync) -> None:
    async def main() -> None:
        adapter = of(etcd)
        made = await adapter.txn([Compare.absent(b"k")], [Put(b"k", b"1")], [Get(b"k")])
        assert (made.succeeded, made.responses) == (True, (0,))
        again = await adapter.txn([Compare.absent(b"k")], [Put(b"k", b"2")], [Get(b"k")])
        assert not again.succeeded
        (seen,) = again.responses
        assert isinstance(seen, Range)
        assert seen.kvs[0].value == b"1"
        for compare, holds in (
            (Compare.mod_revision(b"k", made.revision), True),
            (Compare.mod_revision(b"k", made.revision - 1), False),
            (Compare.created(b"k", made.revision), True),
            (Compare.value_is(b"k", b"1"), True),
            (Compare.value_is(b"k", b""), False),
            (Compare.exists(b"k"), True),
            (Compare.exists(b"other"), False),
        ):
            assert (await adapter.txn([compare], [])).succeeded is holds, compare
        done = await adapter.txn([], [Put(b"l", b"3"), Delete(b"k"), Get(b"", is_prefix=True)])
        assert done.responses[:2] == (0, 1)
        assert adapter.state is State.UP
        await adapter.close()

    run_async(main)


def test_of_many_who_compare_and_swap_one_wins(etcd: EtcdServer, run_async: RunAsync) -> None:
    async def main() -> None:
        adapter = of(etcd)
        done = await asyncio.gather(*(adapter.txn([Compare.absent(b"k")], [Put(b"k", b"%d" % n)]) for n in range(40)))
        assert [each.succeeded for each in done].count(True) == 1
        await adapter.close()

    run_async(main)


def test_a_lease_is_renewed_and_its_end_is_a_typed_error_of_the_call(etcd: EtcdServer, run_async: RunAsync) -> None:
    async def main() -> None:
        adapter = of(etcd)
        lease = await adapter.lease_grant(60)
        await adapter.put(b"mine", b"", lease=lease)
        assert await adapter.lease_keepalive(lease) == 60
        assert 0 < await adapter.lease_ttl(lease) <= 60
        assert await adapter.lease_revoke(lease)
        assert not await adapter.lease_revoke(lease)
        assert await adapter.get(b"mine") is None
        for call in (adapter.lease_keepalive(lease), adapter.lease_ttl(lease), adapter.put(b"mine", b"", lease=lease)):
            with pytest.raises(LeaseLostError) as caught:
                await call
            fault = attached(caught.value)
            assert fault is not None
            assert (fault.kind, fault.code, fault.scope) == (Kind.REJECTED, "lease lost", Scope.CALL)
        named = await adapter.lease_grant(60, lease=lease)
        assert named == lease
        with pytest.raises(EtcdError, match="already exists"):
            await adapter.lease_grant(60, lease=lease)
        await adapter.lease_revoke(named)
        assert adapter.state is State.UP
        await adapter.close()

    run_async(main)


def test_what_is_too_large_is_not_sent(etcd: EtcdServer, run_async: RunAsync) -> None:
    async def main() -> None:
        adapter = Etcd("http://127.0.0.1:1")  # Nobody is there to ask.
        tries = {
            "a value": adapter.put(b"k", b"x" * (2**20 + 1)),
            "a key": adapter.put(b"k" * 4097, b""),
            "a transaction": adapter.txn([], [Put(b"%d" % n, b"x" * 2**19) for n in range(4)]),
            "operations": adapter.txn([], [Put(b"%d" % n, b"") for n in range(129)]),
        }
        for name, call in tries.items():
            with pytest.raises(RequestTooLargeError) as caught:
                await call
            fault = attached(caught.value)
            assert fault is not None
            assert (fault.kind, fault.scope) == (Kind.REJECTED, Scope.CALL), name
        assert adapter.state is State.UP
        await adapter.close()
        largest = of(etcd)
        await largest.put(b"k", b"x" * 2**20)
        await largest.txn([], [Put(b"a", b"x" * 700_000), Put(b"b", b"x" * 700_000)])
        assert len((await largest.range()).kvs) == 3
        await largest.delete(b"", is_prefix=True)
        await largest.close()

    run_async(main)


def test_a_range_is_read_in_pages_at_one_revision_and_is_bounded(etcd: EtcdServer, run_async: RunAsync) -> None:
    async def main() -> None:
        adapter = of(etcd, range_keys_max=1_100)
        for first in range(0, 1_100, 100):
            await adapter.txn([], [Put(b"%04d" % n, b"") for n in range(first, first + 100)])
        found = await adapter.range()
        assert [kv.key for kv in found.kvs] == [b"%04d" % n for n in range(1_100)]
        assert (found.more, found.count) == (False, 1_100)
        part = await adapter.range(limit=600)
        assert (len(part.kvs), part.more, part.count) == (600, True, 1_100)
        await adapter.put(b"1100", b"")
        with pytest.raises(RangeTooLargeError, match="1100 of 1101 keys") as caught:
            await adapter.range()
        assert isinstance(caught.value, OutlastError)
        await adapter.delete(b"", is_prefix=True)
        await adapter.close()

    run_async(main)


def test_large_values_are_read_in_smaller_pages(etcd: EtcdServer, run_async: RunAsync, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlast.etcd._gateway.calls.ANSWER_BYTES_MAX", 2**20)

    async def main() -> None:
        adapter = of(etcd)
        for n in range(6):
            await adapter.put(b"%d" % n, b"x" * 200_000)
        assert [len(kv.value) for kv in (await adapter.range()).kvs] == [200_000] * 6
        assert adapter.state is State.UP
        await adapter.delete(b"", is_prefix=True)
        await adapter.close()

    run_async(main)
