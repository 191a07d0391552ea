"""The few messages of PostgreSQL's protocol 3.0 that a login takes, without I/O.

Formats: "Message Formats" in the PostgreSQL manual. Its ErrorResponse has the SQLSTATE, whatever a
driver hides and whatever language the server speaks.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from outlast.postgres._login.scram import MECHANISM, Scram, ScramError, md5_response

PROTOCOL: Final = 196_608
"""3.0: major version 3 in the upper half of the number."""
SSL_REQUEST: Final = struct.pack(">ii", 8, 80_877_103)
TERMINATE: Final = b"X\x00\x00\x00\x04"
MESSAGE_BYTES_MAX: Final = 65_536
"""More than any message of a login; a peer that sends more does not speak PostgreSQL."""


class ServerError(Exception):
    """An ErrorResponse: `sqlstate` and the server's own words, in its own language."""

    def __init__(self, sqlstate: str, message: str) -> None:
        """`sqlstate` and `message` are the fields C and M of the response."""
        super().__init__(message)
        self.sqlstate = sqlstate
        self.encrypted = False
        """Whether it came over TLS; set by whoever knows."""


class UnsupportedLoginError(Exception):
    """The server asks for a way to log in that only the driver knows (GSSAPI, SSPI, channel binding)."""


class PasswordMissingError(Exception):
    """The server asks for a password and none is configured."""


class NotPostgresError(ConnectionError):
    """The program that answers does not speak PostgreSQL's protocol."""


def startup_message(user: str, database: str, application_name: str, options: str = "") -> bytes:
    """Return the first message of a session; `options` are command-line settings, as in a DSN."""
    pairs = {"user": user, "database": database, "application_name": application_name}
    if options:
        pairs["options"] = options
    body = struct.pack(">i", PROTOCOL)
    body += b"".join(f"{name}\0{value}\0".encode() for name, value in pairs.items()) + b"\0"
    return struct.pack(">i", len(body) + 4) + body


@dataclass(slots=True)
class Login:
    """One login, fed with the server's messages; it answers what to send, and is `done` at ReadyForQuery.

    `parameters` are what the server reported: among them `in_hot_standby` and `default_transaction_read_only` since version 14.
    """

    user: str
    password: str = field(repr=False)
    done: bool = False
    asked_password: bool = False
    parameters: dict[str, str] = field(default_factory=dict[str, str])
    _scram: Scram | None = None

    def receive(self, kind: bytes, body: bytes) -> bytes:
        """Take one message; return the bytes to send back, often none.

        Raises `ServerError` for an ErrorResponse, `ScramError` for a server that cannot prove itself, and
        `NotPostgresError` for what no server of PostgreSQL sends.
        """
        try:
            return self._receive(kind, body)
        except ScramError:
            raise
        except (ValueError, LookupError, struct.error) as error:
            msg = f"a message of kind {kind!r} during the login that makes no sense"
            raise NotPostgresError(msg) from error

    def _receive(self, kind: bytes, body: bytes) -> bytes:
        match kind:
            case b"R":
                return self._authenticate(struct.unpack_from(">i", body)[0], body[4:])
            case b"S":
                name, value = body.split(b"\0")[:2]
                self.parameters[name.decode()] = value.decode(errors="replace")
            case b"E":
                raise error_response(body)
            case b"Z":
                self.done = True
            case b"K" | b"N" | b"v":
                pass
            case _:
                msg = f"a message of kind {kind!r} during the login"
                raise NotPostgresError(msg)
        return b""

    def _authenticate(self, request: int, data: bytes) -> bytes:
        if request == 0:
            return b""
        self.asked_password = True
        if not self.password and request in {3, 5, 10}:
            msg = f"the server asks {self.user} for a password and none is configured"
            raise PasswordMissingError(msg)
        match request:
            case 3:
                return _message(b"p", self.password.encode() + b"\0")
            case 5:
                return _message(b"p", md5_response(self.user, self.password, data[:4]) + b"\0")
            case 10 if MECHANISM.encode() in data.split(b"\0"):
                self._scram = Scram(self.password)
                first = self._scram.first()
                return _message(b"p", MECHANISM.encode() + b"\0" + struct.pack(">i", len(first)) + first)
            case 11 if self._scram is not None:
                return _message(b"p", self._scram.final(data))
            case 12 if self._scram is not None:
                self._scram.verify(data)
                return b""
            case _:
                msg = f"authentication request {request}"
                raise UnsupportedLoginError(msg)


def error_response(body: bytes) -> ServerError:
    """Read the fields of an ErrorResponse; bytes that are not UTF-8 are replaced."""
    fields = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
    return ServerError(fields.get(b"C", ""), fields.get(b"M", "no message"))


def header(data: bytes) -> tuple[bytes, int]:
    """Return kind and body length of the message that begins with these five bytes; raise for what cannot be one."""
    kind, length = data[:1], struct.unpack(">i", data[1:5])[0] - 4
    if not 0 <= length <= MESSAGE_BYTES_MAX:
        msg = f"a message of {length} bytes during the login, the limit is {MESSAGE_BYTES_MAX}"
        raise NotPostgresError(msg)
    return kind, length


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">i", len(body) + 4) + body
