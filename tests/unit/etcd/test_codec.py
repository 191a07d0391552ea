"""Requests and answers of the gateway: nothing is lost on the way, and what etcd would refuse is not made."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.etcd import Alarm, Change, Compare, Delete, Event, Get, KeyValue, Put, Range, RequestTooLargeError, TxnResult
from outlast.etcd._gateway.codec import Codec, alarms, end_of, raw, status, text

KEYS = st.binary(min_size=1, max_size=20)
NUMBERS = st.integers(0, 2**63 - 1)
CODEC = Codec(b"p/", "etcd")


@given(st.binary(max_size=6), st.binary(max_size=8))
def test_the_keys_of_a_prefix_are_those_that_begin_with_it(prefix: bytes, key: bytes) -> None:
    end = end_of(prefix)
    assert (prefix <= key and (end == b"\0" or key < end)) is key.startswith(prefix)


@given(KEYS, st.binary(max_size=50), NUMBERS, NUMBERS)
def test_a_key_comes_back_as_it_was_without_the_prefix(key: bytes, value: bytes, revision: int, lease: int) -> None:
    told: dict[str, Any] = {"key": text(b"p/" + key), "value": text(value), "mod_revision": str(revision), "lease": str(lease)}
    # What is zero or empty, protobuf leaves out.
    told = {name: each for name, each in told.items() if each not in {"", "0"}}
    assert CODEC.key_value(told) == KeyValue(key, value, 0, revision, 0, lease)


def test_requests_are_those_of_the_gateway() -> None:
    body = CODEC.txn(
        [Compare.absent(b"a"), Compare.mod_revision(b"b", 2**60), Compare.value_is(b"c", b"x"), Compare.exists(b"d")],
        [Put(b"a", b"1", 7), Delete(b"old/", is_prefix=True)],
        [Get(b"a"), Get(b"", is_prefix=True, limit=3), Delete(b"b")],
    )
    assert body == {
        "compare": [
            {"key": text(b"p/a"), "target": "CREATE", "result": "EQUAL", "create_revision": "0"},
            {"key": text(b"p/b"), "target": "MOD", "result": "EQUAL", "mod_revision": str(2**60)},
            {"key": text(b"p/c"), "target": "VALUE", "result": "EQUAL", "value": text(b"x")},
            {"key": text(b"p/d"), "target": "CREATE", "result": "NOT_EQUAL", "create_revision": "0"},
        ],
        "success": [
            {"request_put": {"key": text(b"p/a"), "value": text(b"1"), "lease": "7"}},
            {"request_delete_range": {"key": text(b"p/old/"), "range_end": text(b"p/old0")}},
        ],
        "failure": [
            {"request_range": {"key": text(b"p/a"), "revision": "0"}},
            {
                "request_range": {
                    "key": text(b"p/"),
                    "range_end": text(b"p0"),
                    "limit": "3",
                    "revision": "0",
                    "count_only": False,
                }
            },
            {"request_delete_range": {"key": text(b"p/b")}},
        ],
    }
    assert raw(CODEC.span(b"a", beyond=b"a7"), "key") == b"p/a7\0"
    everything = Codec(b"", "etcd").span(b"")
    assert (raw(everything, "key"), raw(everything, "range_end")) == (b"\0", b"\0")


def test_answers_are_read_with_what_is_left_out() -> None:
    header = {"revision": "17"}
    kv = {"key": text(b"p/a"), "mod_revision": "3"}
    told = {
        "header": header,
        "responses": [
            {"response_put": {"header": header}},
            {"response_delete_range": {"deleted": "2"}},
            {"response_range": {"header": header, "kvs": [kv], "count": "1"}},
        ],
    }
    a = KeyValue(b"a", b"", 0, 3, 0)
    assert CODEC.done(told) == TxnResult(succeeded=False, revision=17, responses=(0, 2, Range((a,), 17, count=1)))
    assert CODEC.done({"succeeded": True, "header": header}) == TxnResult(succeeded=True, revision=17, responses=())
    assert CODEC.events([{"kv": kv}, {"type": "DELETE", "kv": kv}]) == (Event(Change.PUT, a), Event(Change.DELETE, a))
    assert alarms({"alarms": [{"memberID": "7", "alarm": "NOSPACE"}, {"memberID": "8"}]}) == (Alarm("NOSPACE", 7),)
    assert alarms({}) == ()
    found = status({"version": "3.6.0", "dbSize": "4", "dbSizeQuota": "9", "leader": "7", "header": {"member_id": "7"}})
    assert (found.version, found.db_size_bytes, found.quota_bytes, found.member_id == found.leader_id) == ("3.6.0", 4, 9, True)
    assert status({}).quota_bytes is None


@pytest.mark.parametrize(
    "ops",
    [
        [Put(b"k", b"x" * (2**20 + 1))],
        [Put(b"k" * 4097, b"")],
        [Get(b"k" * 4097, is_prefix=True)],
        [Put(b"%d" % n, b"") for n in range(129)],
        [Put(b"a", b"x" * 2**20), Put(b"b", b"x" * 2**19)],
    ],
)
def test_what_is_too_large_is_no_request(ops: list[Put | Get]) -> None:
    with pytest.raises(RequestTooLargeError, match=r"^etcd: "):
        CODEC.txn([], ops, [])


def test_a_key_has_at_least_one_byte() -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        CODEC.get(b"")
