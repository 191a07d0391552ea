"""SQLSTATEs and drivers' exceptions as faults; the DSN without its secret; the login, message by message."""

from __future__ import annotations

import struct

import asyncpg
import psycopg
import psycopg_pool
import pytest
from hypothesis import given
from hypothesis import strategies as st

import outlast
from outlast import Kind, Scope
from outlast.postgres import Postgres, postgres_rule, redact_dsn
from outlast.postgres._classify import CLASSES, STATES, Concern, by_state
from outlast.postgres._dsn import Address, Dsn
from outlast.postgres._login.scram import Scram, md5_response
from outlast.postgres._login.wire import (
    Login,
    NotPostgresError,
    PasswordMissingError,
    ServerError,
    UnsupportedLoginError,
    header,
    startup_message,
)


@pytest.mark.parametrize(
    ("state", "phase", "kind", "scope"),
    [
        ("57P01", "query", Kind.TRANSIENT, Scope.DEPENDENCY),
        ("08006", "query", Kind.TRANSIENT, Scope.DEPENDENCY),
        ("25006", "query", Kind.TRANSIENT, Scope.DEPENDENCY),
        ("40001", "query", Kind.TRANSIENT, Scope.CALL),
        ("40P01", "query", Kind.TRANSIENT, Scope.CALL),
        ("57014", "query", Kind.TRANSIENT, Scope.CALL),
        ("55006", "query", Kind.CONTENDED, Scope.CALL),
        ("55P03", "query", Kind.CONTENDED, Scope.CALL),
        ("53100", "query", Kind.EXHAUSTED, Scope.CALL),
        ("53100", "connect", Kind.EXHAUSTED, Scope.DEPENDENCY),
        ("53400", "query", Kind.EXHAUSTED, Scope.CALL),
        ("53000", "query", Kind.EXHAUSTED, Scope.CALL),
        ("53300", "query", Kind.EXHAUSTED, Scope.DEPENDENCY),
        ("58030", "query", Kind.TRANSIENT, Scope.CALL),
        ("58030", "probe", Kind.TRANSIENT, Scope.DEPENDENCY),
        ("57P05", "query", Kind.TRANSIENT, Scope.CALL),
        ("53300", "connect", Kind.EXHAUSTED, Scope.DEPENDENCY),
        ("28P01", "connect", Kind.PERMANENT, Scope.DEPENDENCY),
        ("3D000", "connect", Kind.PERMANENT, Scope.DEPENDENCY),
        ("42501", "query", Kind.PERMANENT, Scope.CALL),
        ("42501", "connect", Kind.PERMANENT, Scope.DEPENDENCY),
        ("42P01", "query", Kind.PERMANENT, Scope.CALL),
        ("42P07", "query", Kind.REJECTED, Scope.CALL),
        ("23505", "query", Kind.REJECTED, Scope.CALL),
        ("22P02", "query", Kind.REJECTED, Scope.CALL),
        ("P0001", "query", Kind.REJECTED, Scope.CALL),
        ("XX001", "query", Kind.FATAL, Scope.CALL),
        ("XX000", "query", Kind.TRANSIENT, Scope.CALL),
        ("XX000", "connect", Kind.TRANSIENT, Scope.DEPENDENCY),
        ("57P99", "query", Kind.TRANSIENT, Scope.DEPENDENCY),
    ],
)
def test_the_sqlstate_and_the_phase_decide(state: str, phase: str, kind: Kind, scope: Scope) -> None:
    fault = by_state(state, "was auch immer", phase)
    assert (fault.kind, fault.scope, fault.code) == (kind, scope, state)


def test_every_row_is_a_sqlstate_and_what_needs_a_person_says_what_to_do() -> None:
    for state, row in STATES.items():
        assert len(state) == 5
        assert row.hint or row.kind is not Kind.PERMANENT, state
    assert all(len(prefix) == 2 for prefix in CLASSES)


def test_every_row_says_whom_it_concerns_and_few_speak_for_the_server() -> None:
    rows = {**STATES, **CLASSES}
    server = {code for code, row in rows.items() if row.concern is Concern.SERVER}
    # Whoever adds one says here, too, that the server as a whole has said it.
    assert server == {"25006", "53300", "57P01", "57P02", "57P03", "57P04", "57"}
    assert {code for code, row in rows.items() if row.concern is Concern.SESSION} == {
        "08P01",
        "28P01",
        "28000",
        "3D000",
        "08",
        "28",
    }
    assert {code for code, row in rows.items() if row.concern is Concern.CHILD} == {"XX001", "XX002"}
    for state, row in STATES.items():
        # What ends a service is not what it shares with others.
        assert (row.concern is Concern.CHILD) is (row.kind is Kind.FATAL), state


@pytest.mark.parametrize("state", sorted({"08001", "08006", "08P01", "28000", "28P01", "3D000"}))
def test_a_code_of_the_login_that_leaves_the_session_alive_concerns_one_statement(state: str) -> None:
    assert by_state(state, "x", "query", "ERROR").scope is Scope.CALL, "a foreign server, a name in the statement"
    assert by_state(state, "x", "query", "FATAL").is_evidence, "a pooler that cannot log in"
    assert by_state(state, "x", "query").is_evidence, "a driver that lost its connection"
    assert by_state(state, "x", "connect", "ERROR").is_evidence


def named(cls: type[Exception], text: str = "something") -> Exception:
    return cls(text)


@pytest.mark.parametrize(
    ("exc", "phase", "kind", "code"),
    [
        (psycopg.errors.AdminShutdown("beendet"), "query", Kind.TRANSIENT, "57P01"),
        (psycopg.errors.UniqueViolation("doppelt"), "query", Kind.REJECTED, "23505"),
        (psycopg.OperationalError("verbindung"), "connect", Kind.TRANSIENT, "connect"),
        (psycopg.OperationalError("weg"), "query", Kind.TRANSIENT, "ECONNRESET"),
        (psycopg.errors.ConnectionTimeout("zeit"), "connect", Kind.TRANSIENT, "timeout"),
        (psycopg_pool.PoolTimeout("voll"), "query", Kind.OVERLOADED, "pool timeout"),
        (asyncpg.exceptions.AdminShutdownError("ended"), "query", Kind.TRANSIENT, "57P01"),
        (asyncpg.exceptions.InvalidPasswordError("no"), "connect", Kind.PERMANENT, "28P01"),
        (asyncpg.exceptions.ConnectionDoesNotExistError("gone"), "query", Kind.TRANSIENT, "08003"),
        (asyncpg.InterfaceError("connection is closed"), "query", Kind.TRANSIENT, "08003"),
        (asyncpg.exceptions.ObjectInUseError("slot"), "query", Kind.CONTENDED, "55006"),
    ],
)
def test_both_drivers_are_understood(exc: Exception, phase: str, kind: Kind, code: str) -> None:
    fault = postgres_rule(exc, phase)
    assert fault is not None
    assert (fault.kind, fault.code) == (kind, code)


def test_misuse_of_a_driver_and_what_is_none_of_ours_is_left_alone() -> None:
    assert postgres_rule(psycopg.ProgrammingError("the query has 1 placeholder"), "query") is None
    assert postgres_rule(ValueError("x"), "query") is None
    assert outlast.Classifiers([postgres_rule]).classify(psycopg.ProgrammingError("x")).kind is Kind.BUG


def test_details_that_may_quote_rows_are_not_kept() -> None:
    exc = psycopg.errors.UniqueViolation("duplicate key\nDETAIL:  Key (email)=(ann@example.org) already exists.")
    fault = postgres_rule(exc, "query")
    assert fault is not None
    assert "ann@" not in fault.reason


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://app:hunter2@db.example/shop",
        "postgresql://app:hunter2@a:1,b:2/shop?sslmode=require",
        "host=db user=app password=hunter2 dbname=shop",
        "postgresql://app:hunter2@[::1/broken",
        "postgresql://app:hunter2@h:port/x",
    ],
)
def test_no_password_is_ever_shown(dsn: str) -> None:
    assert "hunter2" not in redact_dsn(dsn)
    assert not any("hunter2" in text for text in shown(dsn))


def shown(dsn: str) -> list[str]:
    """Everything that can be seen of a DSN, whether it can be used or not."""
    try:
        db = Postgres(dsn)
    except outlast.ConfigurationError as error:
        return [str(error), repr(error), repr(error.__cause__)]
    return [repr(db), repr(db.dsn), str(db.dsn)]


def test_addresses_are_those_of_libpq() -> None:
    assert Dsn.parse("postgresql://a:1,b/x").addresses == (Address("a", 1), Address("b", 5432))
    assert Dsn.parse("host=a,b port=7").addresses == (Address("a", 7), Address("b", 7))
    assert Dsn.parse("dbname=x").addresses[0].is_socket
    with pytest.raises(outlast.ConfigurationError, match="no number"):
        Dsn.parse("host=a port=x")


def test_senseless_settings_are_refused() -> None:
    with pytest.raises(outlast.ConfigurationError, match="connections_max must be at least 1, not 0"):
        Postgres("dbname=x", connections_max=0)


def test_the_passfile_is_read_as_libpq_does(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
    passfile = tmp_path / "pgpass"
    passfile.write_text("# comment\nother:5432:*:*:no\ndb:*:shop:app:with\\:colon\n", encoding="utf-8")
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("PGPASSFILE", str(passfile))
    assert Dsn.parse("postgresql://app@db:6432/shop").password() == "with:colon"
    assert Dsn.parse("postgresql://app@elsewhere/shop").password() == ""
    monkeypatch.setenv("PGPASSWORD", "first")
    assert Dsn.parse("postgresql://app@db:6432/shop").password() == "first"


# The login.


def authentication(request: int, data: bytes = b"") -> bytes:
    return struct.pack(">i", request) + data


def test_a_login_without_a_password() -> None:
    login = Login("app", "")
    assert login.receive(b"R", authentication(0)) == b""
    login.receive(b"S", b"in_hot_standby\0off\0")
    login.receive(b"K", b"12345678")
    assert not login.done
    login.receive(b"Z", b"I")
    assert login.done
    assert login.parameters == {"in_hot_standby": "off"}


def test_a_refusal_tells_the_sqlstate_in_any_language() -> None:
    with pytest.raises(ServerError) as caught:
        Login("app", "").receive(b"E", "SFATAL\0VFATAL\0C28P01\0MPasswort-Authentifizierung fehlgeschlagen\0\0".encode("latin-1"))
    assert caught.value.sqlstate == "28P01"


def test_a_password_that_is_asked_for_and_missing() -> None:
    with pytest.raises(PasswordMissingError, match="asks app for a password"):
        Login("app", "").receive(b"R", authentication(5, b"salt"))


def test_cleartext_and_md5() -> None:
    assert Login("app", "right").receive(b"R", authentication(3)) == b"p\x00\x00\x00\x0aright\x00"
    answer = Login("app", "right").receive(b"R", authentication(5, b"salt"))
    assert answer[5:-1] == md5_response("app", "right", b"salt")
    assert "right" not in repr(Login("app", "right"))


def test_what_only_the_driver_can_do_is_left_to_it() -> None:
    with pytest.raises(UnsupportedLoginError):
        Login("app", "x").receive(b"R", authentication(7))
    with pytest.raises(UnsupportedLoginError):
        Login("app", "x").receive(b"R", authentication(10, b"SCRAM-SHA-256-PLUS\0\0"))


def test_what_does_not_speak_postgres_is_noticed() -> None:
    with pytest.raises(NotPostgresError):
        header(b"HTTP/")
    with pytest.raises(NotPostgresError):
        Login("app", "").receive(b"?", b"")


def test_a_server_that_does_not_continue_our_nonce_is_refused() -> None:
    scram = Scram("pencil")
    scram.first()
    with pytest.raises(ValueError, match="does not continue ours"):
        scram.final(b"r=another,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
    with pytest.raises(ValueError, match="the limit is"):
        scram.final(f"r={scram.nonce}x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=99999999".encode())
    scram.final(f"r={scram.nonce}x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode())
    with pytest.raises(ValueError, match="could not prove"):
        scram.verify(b"v=" + b"A" * 44)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30))
def test_the_first_message_holds_what_was_given(user: str) -> None:
    message = startup_message(user, "shop", "outlast probe")
    assert struct.unpack(">i", message[:4])[0] == len(message)
    assert f"user\0{user}\0".encode() in message
