"""Bearer tokens: from a file or the environment, with scopes, 401 and 403, and never shown."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from asgi_exchange import Exchange, ok
from outlast import ConfigurationError
from outlast.http import Problem, Token, TokenMiddleware, Tokens
from outlast.http._app.tokens import TOKENS_MAX
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from pathlib import Path

READER = "reader-secret-0123456789"
WRITER = "writer-secret-0123456789=="
NEXT = "writer-secret-next-0123456"
TEXT = f"""
# who may do what
reports read {READER} tenant-7   # a comment
deploy read,write {WRITER}
deploy read,write sha256:{hashlib.sha256(NEXT.encode()).hexdigest()}
"""


def tokens() -> Tokens:
    return Tokens(TEXT.splitlines())


def bearer(secret: str, kind: str = "Bearer") -> list[tuple[bytes, bytes]]:
    return [(b"accept", b"*/*"), (b"authorization", f"{kind} {secret}".encode())]


def test_a_token_lets_in_what_its_scopes_allow() -> None:
    assert tokens().check("GET", "/orders", bearer(READER)) == Token("reports", frozenset({"read"}), "tenant-7")
    for secret in (WRITER, NEXT):
        assert tokens().check("POST", "/orders", bearer(secret, "bearer")) == Token("deploy", frozenset({"read", "write"}))


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ([], b"Bearer"),
        ([(b"authorization", b"Basic dXNlcjpwYXNz")], b"Bearer"),
        ([(b"authorization", b"Bearer")], b"Bearer"),
        (bearer("x" * 5000), b"Bearer"),
        (bearer(READER[:-1]), b'Bearer error="invalid_token"'),
        (bearer(""), b"Bearer"),
        (bearer("\xff"), b'Bearer error="invalid_token"'),
    ],
)
def test_without_a_known_token_it_is_401(headers: list[tuple[bytes, bytes]], challenge: bytes) -> None:
    problem = tokens().check("GET", "/orders", headers)
    assert isinstance(problem, Problem)
    assert (problem.status, problem.headers) == (401, ((b"www-authenticate", challenge),))


def test_without_the_scope_it_is_403_which_names_it() -> None:
    problem = tokens().check("DELETE", "/orders/1", bearer(READER))
    assert isinstance(problem, Problem)
    assert (problem.status, problem.detail) == (403, "The token reports lacks the scope write.")
    assert problem.headers == ((b"www-authenticate", b'Bearer error="insufficient_scope", scope="write"'),)


def test_health_needs_no_token_and_the_rule_can_be_one_s_own() -> None:
    assert tokens().check("GET", "/readyz", []) is None
    own = Tokens(TEXT.splitlines(), needs=lambda method, path: "admin" if path.startswith("/admin") else None)
    assert own.check("POST", "/orders", []) is None
    assert isinstance(own.check("GET", "/admin/x", bearer(WRITER)), Problem)


def test_they_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokens").write_text(TEXT, encoding="utf-8")
    monkeypatch.setenv("SHOP_TOKENS", f"reports read {READER}; deploy write {WRITER}")
    for found in (Tokens.from_file(tmp_path / "tokens"), Tokens.from_environment("SHOP_TOKENS")):
        assert repr(found) == "<Tokens deploy, reports>"
        assert isinstance(found.check("GET", "/", bearer(READER)), Token)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "there is no token in it"),
        ("# nothing", "there is no token in it"),
        (f"reports {READER}", "line 1: 2 words; write NAME SCOPE"),
        (f"reports read {READER} tenant more", "5 words"),
        (f"reports read, {READER}", "a name, scope or tenant is not made of"),
        (f"re/ports read {READER}", "a name, scope or tenant is not made of"),
        ("reports read 15-characters!", "the secret of reports has 14 characters"),
        ("reports read fifteen-charact", "the secret of reports has 15 characters"),
        ("reports read sha256:abc", "the secret of reports has 10 characters"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_without_its_secret(line: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Tokens([line], origin="tokens of x")
    assert str(caught.value).startswith("tokens of x")
    assert said in str(caught.value)
    assert READER not in str(caught.value)


def test_two_with_one_secret_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="line 2: b has the secret of a"):
        Tokens([f"a read {READER}", f"b write {READER}"])


def test_their_number_is_bounded() -> None:
    lines = [f"n read sha256:{number:064x}" for number in range(TOKENS_MAX + 1)]
    assert Tokens(lines[:-1])
    with pytest.raises(ConfigurationError, match="line 10001: there are more than 10000 tokens"):
        Tokens(lines)


def test_a_file_that_cannot_be_read_is_a_configuration_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        Tokens.from_file(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"a read \xffsecret")
    with pytest.raises(ConfigurationError, match="it is not UTF-8"):
        Tokens.from_file(tmp_path / "bytes")
    monkeypatch.setattr("outlast.http._app.tokens.TEXT_CHARS_MAX", 10)
    (tmp_path / "large").write_text(TEXT, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="more than 10 characters"):
        Tokens.from_file(tmp_path / "large")
    monkeypatch.delenv("SHOP_TOKENS", raising=False)
    with pytest.raises(ConfigurationError, match=r"tokens of \$SHOP_TOKENS: there is no token"):
        Tokens.from_environment("SHOP_TOKENS")


def test_the_middleware_answers_and_lets_pass() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope.get("extensions", {}).get("outlast.token"))
        if scope["type"] == "http":
            await ok(scope, receive, send)

    async def main() -> None:
        guarded = TokenMiddleware(app, tokens())
        assert (await Exchange().run(guarded)).status == 401
        assert (await Exchange(headers={"Authorization": f"Bearer {READER}"}).run(guarded)).status == 200
        assert (await Exchange("POST", headers={"Authorization": f"Bearer {READER}"}).run(guarded)).status == 403
        assert (await Exchange(extensions={"outlast.token": "the server's"}).run(guarded)).status == 200
        await guarded({"type": "lifespan"}, None, None)  # type: ignore[arg-type] # unused here

    run_virtual(main)
    assert seen == [Token("reports", frozenset({"read"}), "tenant-7"), "the server's", None]
