"""From exceptions to faults: the table of the standard library, chains and groups, and rules of one's own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import socket
import ssl

import pytest

import outlast
from outlast._core.classify import Classifiers
from outlast._core.faults import Fault, Kind, OutlastError, Scope, Unavailable, attach, attached

CLASSIFIERS = Classifiers()


def raised(exc: BaseException) -> BaseException:
    """Give `exc` with a traceback, as it has in real life."""
    try:
        raise exc
    except BaseException as caught:  # noqa: BLE001
        return caught


@pytest.mark.parametrize(
    ("exc", "kind", "code"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), Kind.TRANSIENT, "ECONNREFUSED"),
        (ConnectionRefusedError(), Kind.TRANSIENT, "ECONNREFUSED"),
        (ConnectionResetError("reset"), Kind.TRANSIENT, "ECONNRESET"),
        (ConnectionError("somehow"), Kind.TRANSIENT, "connection"),
        (BrokenPipeError(), Kind.TRANSIENT, "EPIPE"),
        (OSError(errno.EHOSTUNREACH, "no route"), Kind.TRANSIENT, "EHOSTUNREACH"),
        (OSError(errno.ENOSPC, "full"), Kind.EXHAUSTED, "ENOSPC"),
        (OSError(errno.EDQUOT, "quota"), Kind.EXHAUSTED, "EDQUOT"),
        (OSError(errno.EMFILE, "too many"), Kind.EXHAUSTED, "EMFILE"),
        (OSError(errno.EADDRINUSE, "in use"), Kind.CONTENDED, "EADDRINUSE"),
        (PermissionError(errno.EACCES, "denied"), Kind.PERMANENT, "EACCES"),
        (OSError(errno.EIO, "i/o"), Kind.FATAL, "EIO"),
        (OSError(errno.EROFS, "read-only"), Kind.FATAL, "EROFS"),
        (TimeoutError(), Kind.TRANSIENT, "timeout"),
        (concurrent.futures.TimeoutError(), Kind.TRANSIENT, "timeout"),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), Kind.TRANSIENT, "ETIMEDOUT"),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), Kind.TRANSIENT, "EAI_NONAME"),
        (socket.gaierror(socket.EAI_AGAIN, "again"), Kind.TRANSIENT, "EAI_AGAIN"),
        (ssl.SSLCertVerificationError("expired"), Kind.PERMANENT, "certificate"),
        (ssl.SSLEOFError("eof"), Kind.TRANSIENT, "tls eof"),
        (ssl.SSLError("wrong version"), Kind.PERMANENT, "tls"),
        (asyncio.IncompleteReadError(b"", 4), Kind.TRANSIENT, "eof"),
        (asyncio.CancelledError(), Kind.BUG, "cancelled"),
        (asyncio.CancelledError(outlast.Stopping("SIGTERM")), Kind.STOPPING, "stopping"),
        (KeyboardInterrupt(), Kind.STOPPING, "interrupted"),
        (MemoryError(), Kind.EXHAUSTED, "memory"),
    ],
)
def test_the_standard_library(exc: BaseException, kind: Kind, code: str) -> None:
    fault = CLASSIFIERS.classify(exc, source="db")
    assert (fault.kind, fault.code, fault.source) == (kind, code, "db")
    assert fault.reason, "an empty message still says something"


@pytest.mark.parametrize("exc", [ValueError("no"), FileNotFoundError(errno.ENOENT, "none"), OSError("no number"), EOFError()])
def test_what_is_unknown_is_a_bug_named_by_its_line(exc: Exception) -> None:
    fault = CLASSIFIERS.classify(raised(exc))
    assert fault.kind is Kind.BUG
    assert fault.code.startswith(f"{type(exc).__name__}@{__name__}:")
    assert fault.reason.startswith(type(exc).__name__)


def test_a_missing_socket_is_transient_only_while_connecting() -> None:
    exc = FileNotFoundError(errno.ENOENT, "no such file")
    assert CLASSIFIERS.classify(exc, phase="connect").kind is Kind.TRANSIENT
    assert CLASSIFIERS.classify(exc).kind is Kind.BUG


def test_causes_are_looked_into_and_contexts_are_not() -> None:
    wrapped = OutlastError("could not settle")
    wrapped.__cause__ = RuntimeError("driver")
    wrapped.__cause__.__cause__ = ConnectionResetError(errno.ECONNRESET, "reset")
    assert CLASSIFIERS.classify(wrapped).code == "ECONNRESET"

    beside = KeyError("a bug in the handler")
    beside.__context__ = ConnectionResetError(errno.ECONNRESET, "reset")
    assert CLASSIFIERS.classify(beside).kind is Kind.BUG


def test_a_chain_that_bites_its_tail_ends() -> None:
    first, second = ValueError(1), ValueError(2)
    first.__cause__, second.__cause__ = second, first
    assert CLASSIFIERS.classify(first).kind is Kind.BUG
    long = ValueError(0)
    for number in range(1_000):
        outer = ValueError(number)
        outer.__cause__ = long
        long = outer
    assert CLASSIFIERS.classify(long).kind is Kind.BUG


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        ([TimeoutError(), ConnectionResetError()], Kind.TRANSIENT),
        ([TimeoutError(), ValueError()], Kind.BUG),
        ([TimeoutError(), OSError(errno.EIO, "i/o"), ValueError()], Kind.FATAL),
        ([asyncio.CancelledError(), TimeoutError()], Kind.TRANSIENT),
        ([asyncio.CancelledError(), asyncio.CancelledError()], Kind.BUG),
        ([asyncio.CancelledError(outlast.Stopping("SIGTERM")), asyncio.CancelledError()], Kind.STOPPING),
        ([ExceptionGroup("inner", [OSError(errno.ENOSPC, "full")]), TimeoutError()], Kind.EXHAUSTED),
    ],
)
def test_the_most_severe_member_of_a_group_counts(members: list[BaseException], kind: Kind) -> None:
    assert CLASSIFIERS.classify(BaseExceptionGroup("all of it", members)).kind is kind


def test_rules_are_asked_newest_first_and_before_the_standard_library() -> None:
    def ours(exc: BaseException, phase: str) -> Fault | None:
        return Fault(Kind.REJECTED, f"ours {phase}", "no") if isinstance(exc, TimeoutError) else None

    def newer(exc: BaseException, phase: str) -> Fault | None:
        return Fault(Kind.CONTENDED, "newer", "no", source="lock") if phase == "lock" else None

    rules = Classifiers([ours]).with_rule(newer)
    assert rules.classify(TimeoutError(), phase="query").code == "ours query"
    assert rules.classify(TimeoutError(), source="db", phase="lock").source == "lock"
    assert rules.classify(ConnectionResetError()).kind is Kind.TRANSIENT
    assert Classifiers([newer]).also(rules).classify(TimeoutError()).kind is Kind.REJECTED


def test_a_rule_that_fails_hides_nothing() -> None:
    def broken(exc: BaseException, phase: str) -> Fault | None:
        raise LookupError("password=hunter2")

    rules = Classifiers([broken])
    fault = rules.classify(ConnectionRefusedError(errno.ECONNREFUSED, "refused"))
    assert fault.kind is Kind.TRANSIENT
    assert "the rule" in fault.reason
    assert "broken" in fault.reason
    assert "hunter2" not in fault.reason
    assert rules.classify(ValueError("x")).kind is Kind.BUG


def test_a_fault_stays_with_its_exception() -> None:
    exc, fault = ValueError("x"), Fault(Kind.CONTENDED, "55006", "slot in use", "slot")
    assert attached(exc) is None
    attach(exc, fault)
    assert attached(exc) is fault
    assert CLASSIFIERS.classify(exc, source="other") is fault


def test_a_refusal_tells_everything_and_carries_its_cause() -> None:
    fault = Fault(Kind.TRANSIENT, "ECONNREFUSED", "connection refused", "db")
    refusal = Unavailable("db", fault, 12.34, 0.8)
    assert str(refusal) == "db is unavailable since 12.3 s: ECONNREFUSED connection refused (retry after 0.8 s)"
    assert CLASSIFIERS.classify(refusal) is fault


@pytest.mark.parametrize(
    ("kind", "scope", "evidence"),
    [
        (Kind.TRANSIENT, Scope.DEPENDENCY, True),
        (Kind.TRANSIENT, Scope.CALL, False),
        (Kind.EXHAUSTED, Scope.DEPENDENCY, True),
        (Kind.OVERLOADED, Scope.DEPENDENCY, True),
        (Kind.PERMANENT, Scope.DEPENDENCY, True),
        (Kind.REJECTED, Scope.DEPENDENCY, False),
        (Kind.CONTENDED, Scope.DEPENDENCY, False),
        (Kind.BUG, Scope.DEPENDENCY, False),
        (Kind.FATAL, Scope.DEPENDENCY, False),
        (Kind.STOPPING, Scope.DEPENDENCY, False),
    ],
)
def test_what_is_evidence_against_a_dependency(kind: Kind, scope: Scope, evidence: bool) -> None:  # noqa: FBT001
    assert Fault(kind, "x", "y", scope=scope).is_evidence is evidence


def test_secrets_and_payloads_stay_out_of_the_reason() -> None:
    fault = CLASSIFIERS.classify(raised(ValueError("postgresql://app:hunter2@db/shop " + "row" * 10_000)))
    assert "hunter2" not in fault.reason
    assert len(fault.reason) < 400
