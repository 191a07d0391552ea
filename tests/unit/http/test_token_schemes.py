"""Tokens of clients that know no bearer tokens: opt-in, each in its place, and never shown."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from asgi_exchange import Exchange, ok
from outlast import ConfigurationError
from outlast.http import Problem, Token, TokenMiddleware, Tokens
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

SECRET = "writer-secret-0123456789=="
WRITER = Token("collector", frozenset({"write"}))
ALL = ("bearer", "token", "basic", "query")


def tokens(schemes: Collection[str] = ALL) -> Tokens:
    return Tokens([f"collector write {SECRET}"], schemes=schemes)


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


PLACES = [
    ("bearer", f"Bearer {SECRET}", b""),
    ("token", f"Token {SECRET}", b""),
    ("token", f"token anybody:{SECRET}", b""),
    ("basic", basic(f"anybody:{SECRET}"), b""),
    ("basic", basic(f":{SECRET}"), b""),
    ("query", None, b"db=m&u=anybody&p=writer-secret-0123456789%3D%3D"),
    ("query", None, b"%70=writer-secret-0123456789=="),
]


@pytest.mark.parametrize(("scheme", "header", "query"), PLACES)
def test_a_secret_is_found_in_the_place_of_its_scheme_and_only_if_that_is_on(
    scheme: str, header: str | None, query: bytes
) -> None:
    headers = [] if header is None else [(b"authorization", header.encode())]
    assert tokens().check("POST", "/write", headers, query) == WRITER
    assert tokens([scheme]).check("POST", "/write", headers, query) == WRITER
    for schemes in ([each for each in ALL if each != scheme], ["bearer"] if scheme != "bearer" else ["token"]):
        found = tokens(schemes).check("POST", "/write", headers, query)
        assert isinstance(found, Problem)
        assert found.status == 401


@pytest.mark.parametrize(
    ("header", "query"),
    [
        ("Basic", b""),
        ("Basic ???", b""),
        (basic(SECRET), b""),
        (basic(f"{SECRET}:"), b""),
        (basic(f"a:{SECRET}x"), b""),
        ("Token", b""),
        (f"Token {SECRET}:", b""),
        ("Token " + "x" * 5_000, b""),
        (basic("a:" + "x" * 5_000), b""),
        (f"Digest {SECRET}", b""),
        (None, b""),
        (None, b"p="),
        (None, b"p=wrong-secret-0123456789"),
        (None, b"p=%s&p=%s" % (SECRET.encode(), SECRET.encode())),
        (None, b"q=%s" % SECRET.encode()),
        (None, b"p=\xff"),
        (None, b"&".join(b"a%d=1" % number for number in range(65)) + b"&p=" + SECRET.encode()),
        # A header decides, whatever the query says.
        ("Token wrong-secret-0123456789", b"p=" + SECRET.encode()),
    ],
)
def test_what_is_no_known_secret_is_401(header: str | None, query: bytes) -> None:
    headers = [] if header is None else [(b"authorization", header.encode("latin-1"))]
    found = tokens().check("POST", "/write", headers, query)
    assert isinstance(found, Problem)
    assert found.status == 401


def test_a_refusal_says_it_in_the_members_that_such_clients_read_and_shows_no_secret() -> None:
    async def main() -> Exchange:
        exchange = Exchange("POST", "/write", {"Authorization": f"Token {SECRET}x"})
        exchange.scope["query_string"] = b"p=" + SECRET.encode()
        return await exchange.run(TokenMiddleware(ok, tokens()))

    exchange = run_virtual(main)
    assert exchange.status == 401
    assert exchange.json["error"] == exchange.json["message"] == exchange.json["detail"] == "The bearer token is not known here."
    challenges = [value for name, value in exchange.sent[0]["headers"] if name == b"www-authenticate"]
    assert challenges == [b'Bearer error="invalid_token"', b'Basic realm="outlast"']
    assert SECRET.encode() not in exchange.body


def test_a_missing_scope_is_said_in_them_too() -> None:
    found = tokens().check("GET", "/query", [], b"p=" + SECRET.encode())
    assert isinstance(found, Problem)
    assert (found.status, found.members["error"]) == (403, "The token collector lacks the scope read.")


def test_without_other_schemes_a_refusal_is_as_it_was() -> None:
    found = Tokens([f"collector write {SECRET}"]).check("POST", "/write", [])
    assert isinstance(found, Problem)
    assert (found.members, found.headers) == ({}, ((b"www-authenticate", b"Bearer"),))


def test_the_middleware_hands_over_the_query() -> None:
    async def main() -> int:
        exchange = Exchange("POST", "/write")
        exchange.scope["query_string"] = b"db=m&p=" + SECRET.encode()
        return (await exchange.run(TokenMiddleware(ok, tokens()))).status

    assert run_virtual(main) == 200


def test_they_come_with_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokens").write_text(f"collector write {SECRET}\n", encoding="utf-8")
    monkeypatch.setenv("SHOP_TOKENS", f"collector write {SECRET}")
    headers = [(b"authorization", f"Token {SECRET}".encode())]
    for found in (
        Tokens.from_file(tmp_path / "tokens", schemes=["token"]),
        Tokens.from_environment("SHOP_TOKENS", schemes=["token"]),
    ):
        assert found.check("POST", "/write", headers) == WRITER


@pytest.mark.parametrize(("schemes", "said"), [([], "not none"), (["bearer", "digest"], "not 'bearer', 'digest'")])
def test_an_unknown_scheme_is_a_configuration_error(schemes: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError, match="schemes are one or more of bearer, token, basic, query, " + said):
        tokens(schemes)
