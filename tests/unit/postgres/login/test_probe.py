"""The login without a server: what comes over the wire is never trusted, and a password is prepared as RFC 4013 says."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from outlast.postgres._login.scram import Scram, ScramError, prepared
from outlast.postgres._login.wire import (
    Login,
    NotPostgresError,
    PasswordMissingError,
    ServerError,
    UnsupportedLoginError,
    header,
    startup_message,
)

KNOWN = (ServerError, NotPostgresError, PasswordMissingError, UnsupportedLoginError, ScramError)
KINDS = st.sampled_from([b"R", b"S", b"E", b"Z", b"K", b"N", b"v", b"?"])


@given(st.lists(st.tuples(KINDS, st.binary(max_size=60)), max_size=6))
@example([(b"R", b"")])
@example([(b"S", b"no end")])
@example([(b"R", struct.pack(">i", 10) + b"SCRAM-SHA-256\0\0"), (b"R", struct.pack(">i", 11) + b"r=x")])
@example([(b"R", struct.pack(">i", 10) + b"SCRAM-SHA-256\0\0"), (b"R", struct.pack(">i", 12) + b"v=!")])
def test_whatever_a_peer_sends_gives_an_answer_or_an_error_of_ours(messages: list[tuple[bytes, bytes]]) -> None:
    login = Login("app", "right")
    with contextlib.suppress(*KNOWN):
        for kind, body in messages:
            answer = login.receive(kind, body)
            assert not answer or header(answer[:5])[1] == len(answer) - 5


@given(st.binary(min_size=5, max_size=5))
def test_a_header_is_bounded_or_refused(data: bytes) -> None:
    with contextlib.suppress(NotPostgresError):
        assert 0 <= header(data)[1] <= 65_536


def test_an_error_without_its_fields_is_still_an_error() -> None:
    with pytest.raises(ServerError, match="no message") as caught:
        Login("app", "").receive(b"E", b"\0")
    assert caught.value.sqlstate == ""


def test_options_are_sent_when_there_are_some() -> None:
    assert b"options\0-c a=b\0" in startup_message("app", "shop", "probe", "-c a=b")
    assert b"options" not in startup_message("app", "shop", "probe")


@pytest.mark.parametrize(
    ("given_as", "sent_as"),
    [
        ("plain", "plain"),
        # The examples of RFC 4013, section 3; what it forbids is sent as it is, as libpq does.
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("\u0007\u00fc", "\u0007\u00fc"),
        ("a\u00a0b", "a b"),
        ("", ""),
    ],
)
def test_a_password_is_prepared(given_as: str, sent_as: str) -> None:
    assert prepared(given_as) == sent_as


def test_the_proof_does_not_show_the_password_and_differs_each_time() -> None:
    first, second = Scram("pencil"), Scram("pencil")
    assert first.nonce != second.nonce
    assert "pencil" not in repr(first)
    proof = first.final(f"r={first.nonce}x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode())
    assert b"pencil" not in proof
