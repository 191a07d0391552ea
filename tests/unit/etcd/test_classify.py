"""What etcd says, each version in its own form, and whom it concerns."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import pytest

from outlast import Fault, Kind, Scope
from outlast.etcd import (
    NOSPACE,
    CompactedError,
    EtcdError,
    LeaseLostError,
    RangeTooLargeError,
    RequestTooLargeError,
    etcd_rule,
)
from outlast.etcd._classify import is_stale, needs_second_look
from outlast.etcd._gateway.answers import content
from outlast.http import Answer, AnswerError

CALL, ALL = Scope.CALL, Scope.DEPENDENCY

SAID = [
    (8, "etcdserver: mvcc: database space exceeded", Kind.EXHAUSTED, NOSPACE, ALL),
    (8, "etcdserver: too many requests", Kind.OVERLOADED, "too many requests", ALL),
    (14, "etcdserver: no leader", Kind.TRANSIENT, "no leader", ALL),
    (14, "etcdserver: leader changed", Kind.TRANSIENT, "leader changed", ALL),
    (9, "etcdserver: not leader", Kind.TRANSIENT, "leader changed", ALL),
    (14, "etcdserver: request timed out", Kind.TRANSIENT, "timed out", ALL),
    (14, "etcdserver: request timed out, possibly due to connection lost", Kind.TRANSIENT, "timed out", ALL),
    (14, "etcdserver: server stopped", Kind.TRANSIENT, "stopped", ALL),
    (14, "etcdserver: unhealthy cluster", Kind.TRANSIENT, "unhealthy", ALL),
    (14, "transport is closing", Kind.TRANSIENT, "unavailable", ALL),
    (4, "context deadline exceeded", Kind.TRANSIENT, "timed out", ALL),
    (5, "etcdserver: requested lease not found", Kind.REJECTED, "lease lost", CALL),
    (9, "etcdserver: lease already exists", Kind.REJECTED, "lease exists", CALL),
    (11, "etcdserver: mvcc: required revision has been compacted", Kind.REJECTED, "compacted", CALL),
    (11, "etcdserver: mvcc: required revision is a future revision", Kind.REJECTED, "gRPC 11", CALL),
    (3, "etcdserver: request is too large", Kind.REJECTED, "too large", CALL),
    (3, "etcdserver: duplicate key given in txn request", Kind.REJECTED, "gRPC 3", CALL),
    (3, "etcdserver: authentication failed, invalid user ID or password", Kind.PERMANENT, "login refused", ALL),
    (3, "etcdserver: user name is empty", Kind.PERMANENT, "no login", ALL),
    (7, "etcdserver: permission denied", Kind.PERMANENT, "no permission", CALL),
    (16, "etcdserver: invalid auth token", Kind.TRANSIENT, "token", ALL),
    (15, "etcdserver: corrupt cluster", Kind.PERMANENT, "CORRUPT", ALL),
    (12, "unknown method", Kind.PERMANENT, "not known", CALL),
    (2, "whatever", Kind.TRANSIENT, "unknown", CALL),
    (10, "aborted", Kind.CONTENDED, "aborted", CALL),
    (99, "what comes later", Kind.REJECTED, "gRPC 99", CALL),
]


def forms(code: int, said: str) -> list[dict[str, Any]]:
    """The error as the gateways of 3.4, of a stream of 3.4, of 3.6 and of its streams have it."""
    return [
        {"error": said, "message": said, "code": code},
        {"error": {"grpc_code": code, "http_code": 503, "message": said, "http_status": "Service Unavailable"}},
        {"code": code, "message": said, "details": []},
        {"error": {"code": code, "message": said, "details": []}},
    ]


@pytest.mark.parametrize(("code", "said", "kind", "name", "scope"), SAID, ids=[each[1] for each in SAID])
def test_it_says_whom_it_concerns_in_every_form(code: int, said: str, kind: Kind, name: str, scope: Scope) -> None:
    for told in forms(code, said):
        with pytest.raises(EtcdError) as caught:
            content("etcd: kv/txn", Answer(503, {}, json.dumps(told).encode()))
        error = caught.value
        assert (error.grpc_code, error.said) == (code, said)
        fault = etcd_rule(error, "request")
        assert fault is not None
        assert (fault.kind, fault.code, fault.scope) == (kind, name, scope)
        probed = etcd_rule(error, "probe")
        assert probed is not None
        assert probed.scope is ALL
        assert probed.kind is (Kind.PERMANENT if kind is Kind.REJECTED else kind)


def test_errors_that_callers_tell_apart_have_classes() -> None:
    for said, kind in (("requested lease not found", LeaseLostError), ("required revision has been compacted", CompactedError)):
        with pytest.raises(kind):
            content("etcd", Answer(400, {}, json.dumps({"error": said, "message": said, "code": 11}).encode()))


def test_a_renewal_is_read_from_a_line_of_a_stream() -> None:
    assert content("etcd", Answer(200, {}, b'{"result":{"ID":"7","TTL":"5"}}\n')) == {"ID": "7", "TTL": "5"}
    assert content("etcd", Answer(200, {}, b"{}")) == {}


@pytest.mark.parametrize(("status", "body"), [(502, b"<html>bad gateway"), (404, b"Not Found\n"), (200, b"[]"), (500, b"{}")])
def test_what_is_none_of_etcds_is_judged_by_its_status(status: int, body: bytes) -> None:
    with pytest.raises(AnswerError):
        content("etcd", Answer(status, {}, body))


def test_only_what_may_be_over_already_needs_a_second_look() -> None:
    fault = Fault(Kind.TRANSIENT, "leader changed", "")
    assert needs_second_look(fault)
    assert needs_second_look(replace(fault, kind=Kind.OVERLOADED))
    assert not needs_second_look(replace(fault, kind=Kind.EXHAUSTED))
    assert not needs_second_look(replace(fault, scope=CALL))


def test_a_token_that_is_refused_has_done_nothing() -> None:
    assert is_stale(EtcdError("etcd", 16, "etcdserver: invalid auth token"))
    assert is_stale(EtcdError("etcd", 3, "etcdserver: user name is empty"))
    assert not is_stale(EtcdError("etcd", 7, "etcdserver: permission denied"))
    assert not is_stale(ValueError())


def test_another_error_is_none_of_ours() -> None:
    assert etcd_rule(ValueError(), "request") is None


@pytest.mark.parametrize(
    "error",
    [
        EtcdError("etcd: kv/txn", 8, "full"),
        CompactedError("etcd: watch", 11, "compacted", 17),
        RequestTooLargeError("etcd", "too large"),
        RangeTooLargeError("etcd", "too many"),
    ],
)
def test_errors_travel_to_another_process(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))
