"""Tokens with scopes: who may ask for what, from a file or the environment."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from outlast import ConfigurationError, Kind
from outlast.http._app.asking import HEALTH_PATHS
from outlast.http._app.extensions import TOKEN, extensions
from outlast.http._app.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from outlast.http._app.extensions import App, Receive, Scope, Send

    Needs = Callable[[str, str], str | None]

SECRET_CHARS_MIN: Final = 16
SECRET_CHARS_MAX: Final = 4096
"""A longer one is not even hashed."""
TOKENS_MAX: Final = 10_000
TEXT_CHARS_MAX: Final = 16 * 2**20
SCHEMES: Final = ("bearer", "token", "basic", "query")
"""The places of a secret in a request; see `Tokens`."""
PARAMETERS_MAX: Final = 64
"""The parameters of a query that is looked through for a secret."""
_LINE: Final = "NAME SCOPE[,SCOPE...] SECRET [TENANT]"
_WORD: Final = re.compile(r"[A-Za-z0-9._:-]{1,100}")
_SECRET: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Token:
    """A known client, without its secret: its name for logs and shares, and the scopes it has."""

    name: str
    scopes: frozenset[str]
    tenant: str = ""


def needed_scope(method: str, path: str) -> str | None:
    """Return the scope that a request needs by default: "read" for GET, HEAD and OPTIONS, otherwise "write"; None for health."""
    if path in HEALTH_PATHS:
        return None
    return "read" if method in _READS else "write"


class Tokens:
    """The tokens of a server, from lines of `NAME SCOPE[,SCOPE...] SECRET [TENANT]`; what follows a `#` is a comment.

        reports read 2f7c0a5d9e1b4c3a8d6f tenant-7
        deploy read,write sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

    A secret has 16 to 4,096 characters of a bearer token; it may stand as the SHA-256 of itself in hex. A name may stand
    twice, so that a client can go from one secret to the next. A scope is a word, and contains no other. `needs(method, path)`
    returns the scope that a request needs, None for none; see `needed_scope`. Secrets are kept as digests alone, and shown
    nowhere.

    `schemes` are the places where a secret may stand, for clients that know no bearer tokens: "bearer"; "token" is
    `Authorization: Token SECRET`, or `Token NAME:SECRET`; "basic" takes the password of `Basic` for the secret, whatever the
    name; "query" the parameter `p` of the query, where there is no such header. A URL with a secret in it may be kept by
    proxies and by whatever shows URLs; a server of ours shows no query.
    """

    def __init__(
        self,
        lines: Iterable[str],
        *,
        origin: str = "tokens",
        needs: Needs = needed_scope,
        schemes: Collection[str] = ("bearer",),
    ) -> None:
        """`origin` is what messages call them. Raises `ConfigurationError` for a line that cannot be read, or no token at all."""
        if not schemes or not set(schemes) <= set(SCHEMES):
            msg = f"{origin}: schemes are one or more of {', '.join(SCHEMES)}, not {', '.join(map(repr, schemes)) or 'none'}"
            raise ConfigurationError(msg)
        self._needs = needs
        self._schemes = frozenset(scheme.encode() for scheme in schemes)
        self.reads_query: Final = "query" in schemes
        """Whether `check` has a use for the query."""
        self._tokens: dict[bytes, Token] = {}
        for number, line in enumerate(lines, 1):
            words = line.partition("#")[0].split()
            if words:
                self._add(words, f"{origin}, line {number}")
        if not self._tokens:
            msg = f"{origin}: there is no token in it; write lines of {_LINE}"
            raise ConfigurationError(msg)

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, needs: Needs = needed_scope, schemes: Collection[str] = ("bearer",)
    ) -> Tokens:
        """Read them from a file of UTF-8, once. Raises `ConfigurationError` if that cannot be."""
        try:
            with Path(path).open(encoding="utf-8") as file:
                text = file.read(TEXT_CHARS_MAX + 1)
        except (OSError, UnicodeDecodeError) as error:
            # The message of a decoding error has bytes of the file in it.
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            msg = f"tokens of {path}: the file cannot be read: {reason}"
            raise ConfigurationError(msg) from None
        if len(text) > TEXT_CHARS_MAX:
            msg = f"tokens of {path}: the file has more than {TEXT_CHARS_MAX} characters"
            raise ConfigurationError(msg)
        return cls(text.splitlines(), origin=f"tokens of {path}", needs=needs, schemes=schemes)

    @classmethod
    def from_environment(cls, variable: str, *, needs: Needs = needed_scope, schemes: Collection[str] = ("bearer",)) -> Tokens:
        """Read them from an environment variable, whose lines may be parted by semicolons too."""
        text = os.environ.get(variable, "")
        return cls(text.replace(";", "\n").splitlines(), origin=f"tokens of ${variable}", needs=needs, schemes=schemes)

    def __repr__(self) -> str:
        """Show the names, for logs."""
        return f"<Tokens {', '.join(sorted({token.name for token in self._tokens.values()})[:10])}>"

    def check(self, method: str, path: str, headers: Iterable[tuple[bytes, bytes]], query: bytes = b"") -> Token | Problem | None:
        """Return the token that lets a request in, None where it needs none, or the problem to answer it with.

        401: there is no token, or it is unknown. 403, which names the scope: it has not the scope that the request needs.
        `query` is looked at if `reads_query`.
        """
        scope = self._needs(method, path)
        if scope is None:
            return None
        secret = self._secret(headers, query)
        if secret is None:
            return self._unauthorized("no token", "This needs a bearer token.", b"Bearer")
        # Found by its digest: how long that takes says nothing about the secret, since who guesses cannot choose the digest.
        token = self._tokens.get(hashlib.sha256(secret).digest())
        if token is None:
            return self._unauthorized("unknown token", "The bearer token is not known here.", b'Bearer error="invalid_token"')
        if scope not in token.scopes:
            challenge = b'Bearer error="insufficient_scope", scope="%s"' % scope.encode()
            return self._problem(403, "scope missing", f"The token {token.name} lacks the scope {scope}.", challenge)
        return token

    def _secret(self, headers: Iterable[tuple[bytes, bytes]], query: bytes) -> bytes | None:
        for name, value in headers:
            if name == b"authorization":
                kind, _, secret = value.strip().partition(b" ")
                kind = kind.lower()
                if kind not in self._schemes or not 0 < len(secret) <= HEADER_CHARS_MAX:
                    return None
                return _FOUND[kind](secret.strip())
        return _in_query(query) if self.reads_query else None

    def _unauthorized(self, code: str, detail: str, challenge: bytes) -> Problem:
        return self._problem(401, code, detail, challenge, *_BASIC[b"basic" not in self._schemes :])

    def _problem(self, status: int, code: str, detail: str, *challenges: bytes) -> Problem:
        # Clients of InfluxDB read these members, and no others.
        own = {} if self._schemes == _BEARER else {"error": detail, "message": detail}
        headers = tuple((b"www-authenticate", challenge) for challenge in challenges)
        return Problem(status, code, Kind.REJECTED.value, detail, headers=headers, members=own)

    def _add(self, words: list[str], place: str) -> None:
        if len(words) not in {3, 4}:
            msg = f"{place}: {len(words)} words; write {_LINE}"
            raise ConfigurationError(msg)
        name, scopes, secret, tenant = (*words, "")[:4]
        for word in (name, *scopes.split(","), *words[3:]):
            if not _WORD.fullmatch(word):
                msg = f"{place}: a name, scope or tenant is not made of 1 to 100 letters, digits and .:_-; write {_LINE}"
                raise ConfigurationError(msg)
        digest = _digest(secret)
        if digest is None:
            msg = (
                f"{place}: the secret of {name} has {len(secret)} characters, or some that no bearer token has; write "
                f"{SECRET_CHARS_MIN} to {SECRET_CHARS_MAX} of letters, digits and ._~+/-, or sha256: and 64 hex digits"
            )
            raise ConfigurationError(msg)
        if digest in self._tokens:
            msg = f"{place}: {name} has the secret of {self._tokens[digest].name}; each needs its own"
            raise ConfigurationError(msg)
        if len(self._tokens) == TOKENS_MAX:
            msg = f"{place}: there are more than {TOKENS_MAX} tokens"
            raise ConfigurationError(msg)
        self._tokens[digest] = Token(name, frozenset(scopes.split(",")), tenant)


class TokenMiddleware:
    """Lets in what `tokens` let in, and answers the rest with 401 or 403. What a server of ours has let in passes."""

    def __init__(self, app: App, tokens: Tokens) -> None:
        self.app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        known = extensions(scope)
        if TOKEN not in known:
            found = self._tokens.check(scope["method"], scope["path"], scope["headers"], scope.get("query_string", b""))
            if isinstance(found, Problem):
                await found(scope, receive, send)
                return
            known[TOKEN] = found
        await self.app(scope, receive, send)


def _bearer(secret: bytes) -> bytes | None:
    return secret if len(secret) <= SECRET_CHARS_MAX else None


def _after_name(secret: bytes) -> bytes | None:
    # InfluxDB 1.8 takes "name:password" for the token of its version 2. No secret has a colon.
    return _bearer(secret.rpartition(b":")[2])


def _password(encoded: bytes) -> bytes | None:
    try:
        _, colon, password = base64.b64decode(encoded, validate=True).partition(b":")
    except ValueError:
        return None
    return _bearer(password) if colon else None


def _in_query(query: bytes) -> bytes | None:
    try:
        pairs = parse_qsl(query.decode("ascii"), max_num_fields=PARAMETERS_MAX)
    except ValueError:
        return None
    found = [value for name, value in pairs if name == "p"]
    # Of two, nobody knows which one is meant.
    return _bearer(found[0].encode()) if len(found) == 1 else None


_FOUND: Final = {b"bearer": _bearer, b"token": _after_name, b"basic": _password}
"""The secret in the header Authorization, by scheme; None: there is none that could be one."""
_BEARER: Final = frozenset({b"bearer"})
_BASIC: Final = (b'Basic realm="outlast"',)
HEADER_CHARS_MAX: Final = 2 * SECRET_CHARS_MAX
"""The characters behind the scheme in the header: a secret with a name before it, as base64."""


def _digest(secret: str) -> bytes | None:
    hashed = _DIGEST.fullmatch(secret)
    if hashed is not None:
        return bytes.fromhex(hashed[1])
    fits = SECRET_CHARS_MIN <= len(secret) <= SECRET_CHARS_MAX and _SECRET.fullmatch(secret)
    return hashlib.sha256(secret.encode()).digest() if fits else None
