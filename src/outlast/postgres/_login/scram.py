"""Prove a password to PostgreSQL: cleartext, MD5 and SCRAM-SHA-256, without I/O.

SCRAM is RFC 5802 with SHA-256 (RFC 7677), without channel binding. Names and formulas are the RFC's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import stringprep
import unicodedata
from dataclasses import dataclass, field
from typing import Final

MECHANISM: Final = "SCRAM-SHA-256"
ITERATIONS_MAX: Final = 1_000_000
"""A server that asks for more would keep this process busy for seconds: it is refused."""
_GS2: Final = "n,,"


class ScramError(ValueError):
    """The server is not the one that the password was set on, or asks for too much."""


def md5_response(user: str, password: str, salt: bytes) -> bytes:
    """Answer an MD5 challenge: "md5" and md5(md5(password + user) + salt), as the protocol demands."""
    inner = hashlib.md5(password.encode() + user.encode()).hexdigest()  # noqa: S324 - the server asks for it
    return b"md5" + hashlib.md5(inner.encode() + salt).hexdigest().encode()  # noqa: S324 - the same


def _nonce() -> str:
    return base64.b64encode(secrets.token_bytes(18)).decode()


@dataclass(slots=True)
class Scram:
    """One conversation: `first`, then `final` with the server's answer, then `verify` with its last word."""

    password: str = field(repr=False)
    nonce: str = field(default_factory=_nonce)
    _server_signature: bytes = b""

    def first(self) -> bytes:
        """Return the client-first-message. PostgreSQL takes the user from the start-up message."""
        return f"{_GS2}n=,r={self.nonce}".encode()

    def final(self, server_first: bytes) -> bytes:
        """Return the client-final-message with the proof. Raises `ScramError` for an answer that is not for us."""
        fields = _fields(server_first)
        nonce, salt, iterations = fields["r"], base64.b64decode(fields["s"]), int(fields["i"])
        if not nonce.startswith(self.nonce):
            msg = "the server's nonce does not continue ours"
            raise ScramError(msg)
        if not 0 < iterations <= ITERATIONS_MAX:
            msg = f"the server asks for {iterations} iterations, the limit is {ITERATIONS_MAX}"
            raise ScramError(msg)
        salted = hashlib.pbkdf2_hmac("sha256", prepared(self.password).encode(), salt, iterations)
        bare = f"c={base64.b64encode(_GS2.encode()).decode()},r={nonce}"
        message = f"n=,r={self.nonce},{server_first.decode()},{bare}".encode()
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._server_signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        return f"{bare},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, server_final: bytes) -> None:
        """Check that the server knows the password too; raise `ScramError` if not."""
        given = base64.b64decode(_fields(server_final).get("v", ""))
        if not hmac.compare_digest(given, self._server_signature):
            msg = "the server could not prove that it knows the password"
            raise ScramError(msg)


def prepared(password: str) -> str:
    """Return the password as SASLprep (RFC 4013) writes it; as it is when it holds what SASLprep forbids. So does libpq."""
    if password.isascii():
        return password
    mapped = "".join(" " if stringprep.in_table_c12(char) else char for char in password if not stringprep.in_table_b1(char))
    text = unicodedata.normalize("NFKC", mapped)
    return password if not text or any(forbids(char) for forbids in _FORBIDDEN for char in text) else text


_FORBIDDEN: Final = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)
"""RFC 4013, section 2.3, and what Unicode 3.2 left unassigned (2.5)."""


def _fields(message: bytes) -> dict[str, str]:
    return dict(part.split("=", 1) for part in message.decode().split(",") if "=" in part)
