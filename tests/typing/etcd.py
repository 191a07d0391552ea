"""etcd as a dependency, as a service uses it. Nothing here is run: mypy and basedpyright read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_type

import outlast
from outlast.etcd import (
    NOSPACE,
    Alarm,
    Change,
    CompactedError,
    Compare,
    Delete,
    EndpointStatus,
    Etcd,
    EtcdError,
    Event,
    Following,
    Get,
    KeyValue,
    LeaseLostError,
    Old,
    Op,
    Put,
    Range,
    RangeTooLargeError,
    RequestTooLargeError,
    TxnResult,
    Watch,
    WatchBatch,
    etcd_rule,
)

etcd = Etcd(["http://one:2379", "http://two:2379"], user="shop", password="secret", prefix="shop/")
a_dependency: outlast.Dependency = etcd
classifiers = outlast.Classifiers([etcd_rule])


async def keys() -> None:
    assert_type(await etcd.get(b"key", deadline_s=1.0), KeyValue | None)
    found = await etcd.range(b"jobs/", limit=10, beyond=b"jobs/17")
    assert_type(found, Range)
    assert_type(found.kvs, Sequence[KeyValue])
    then: list[Op] = [Put(b"key", b"value", lease=7), Delete(b"old/", is_prefix=True), Get(b"other")]
    done = await etcd.txn([Compare.absent(b"key"), Compare.mod_revision(b"other", 3)], then, [Get(b"key")])
    assert_type(done, TxnResult)
    assert_type(done.succeeded, bool)
    assert_type(done.responses, Sequence[Range | int])
    assert_type(await etcd.put(b"key", b"value"), int)
    assert_type(await etcd.delete(b"key"), int)
    conditions = [Compare.exists(b"a"), Compare.created(b"a", 7), Compare.value_is(b"a", b"b")]
    assert_type(conditions, list[Compare])


async def leases() -> None:
    lease = await etcd.lease_grant(10)
    assert_type(await etcd.lease_keepalive(lease), int)
    assert_type(await etcd.lease_ttl(lease), int)
    assert_type(await etcd.lease_revoke(lease), bool)


async def changes(after: int) -> int:
    async with etcd.watch(b"jobs/", after=after) as watch:
        assert_type(watch, Watch)
        async for batch in watch:
            assert_type(batch, WatchBatch)
            assert_type(batch.events, Sequence[Event])
            assert_type(batch.events[0].change is Change.DELETE, bool)
            after = batch.revision
    return after


async def kept() -> dict[bytes, bytes]:
    state: dict[bytes, bytes] = {}
    async with etcd.follow(b"jobs/") as following:
        assert_type(following, Following)
        async for seen in following:
            match seen:
                case Range():
                    state = {kv.key: kv.value for kv in seen.kvs}
                case WatchBatch():
                    state.update({event.kv.key: event.kv.value for event in seen.events})
                case Old():
                    assert_type(seen.fault, outlast.Fault)
    return state


async def cluster() -> None:
    assert_type(etcd.is_full, bool)
    assert_type(await etcd.alarms(), tuple[Alarm, ...])
    status = await etcd.status()
    assert_type(status, EndpointStatus)
    assert_type(status.quota_bytes, int | None)
    assert_type(await etcd.compact(17), None)
    assert_type(await etcd.defragment(deadline_s=60.0), None)
    assert_type(await etcd.disarm(), int)


def about(error: Exception) -> str:
    match error:
        case CompactedError():
            return f"read again: {error.oldest} is the oldest"
        case LeaseLostError():
            return "grant another one"
        case EtcdError():
            return f"{error.grpc_code}: {error.said}"
        case RequestTooLargeError() | RangeTooLargeError():
            return "ask for less"
        case outlast.Unavailable(fault=fault) if fault.code == NOSPACE:
            return fault.hint
        case _:
            return ""
