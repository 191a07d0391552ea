"""Ask a PostgreSQL server whether it can be used: log in as we would, read its own words, and leave."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Final

from outlast.core.classify import Classifiers
from outlast.core.faults import Fault, Kind, attach
from outlast.postgres.classify import by_state
from outlast.postgres.wire import (
    SSL_REQUEST,
    TERMINATE,
    Login,
    NotPostgresError,
    PasswordMissingError,
    ServerError,
    UnsupportedLoginError,
    header,
    startup_message,
)

if TYPE_CHECKING:
    from outlast.postgres.dsn import Address, Dsn

APPLICATION_NAME: Final = "outlast probe"
READ_ONLY: Final = Fault(
    Kind.TRANSIENT,
    "25006",
    "the server accepts connections but is read-only",
    hint="a standby after a failover, or default_transaction_read_only",
)


class ProbeFailedError(ConnectionError):
    """No address of the DSN can be used; the fault of the last one is attached."""


async def probe(dsn: Dsn, *, writable: bool = True) -> None:
    """Log in to the first address of the DSN that can be used, and out again.

    Raises `ProbeFailedError` with the fault attached when none can. With `writable`, a server that is read-only cannot.
    It has no deadline of its own: the caller gives one. Costs one connection and no query.
    """
    failure: ProbeFailedError | None = None
    for address in dsn.addresses:
        try:
            parameters = await _log_in(dsn, address)
        except (OSError, ServerError, PasswordMissingError, ValueError, asyncio.IncompleteReadError) as exc:
            fault = _fault(exc)
        else:
            if not (writable and _is_read_only(parameters)):
                return
            fault = READ_ONLY
        failure = ProbeFailedError(f"{address}: {fault.reason}")
        attach(failure, fault)
    if failure is not None:
        raise failure


def _fault(exc: BaseException) -> Fault:
    """The fault of a failed login."""
    if isinstance(exc, ServerError):
        return by_state(exc.sqlstate, str(exc), "connect")
    if isinstance(exc, PasswordMissingError):
        return Fault(Kind.PERMANENT, "28P01", str(exc), hint="give a password in the DSN, PGPASSWORD or a passfile")
    if isinstance(exc, ValueError):
        return Fault(Kind.PERMANENT, "scram", str(exc), hint="is this the server that it claims to be?")
    if isinstance(exc, asyncio.IncompleteReadError):
        return Fault(Kind.TRANSIENT, "ECONNRESET", "the server closed the connection during the login")
    return Classifiers().classify(exc, phase="connect")


def _is_read_only(parameters: dict[str, str]) -> bool:
    return "on" in {parameters.get("in_hot_standby"), parameters.get("default_transaction_read_only")}


async def _log_in(dsn: Dsn, address: Address) -> dict[str, str]:
    if address.is_socket:
        path = f"{address.host}/.s.PGSQL.{address.port}"
        reader, writer = await asyncio.open_unix_connection(path)
    else:
        reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        if not address.is_socket:
            await _negotiate_tls(dsn, address, reader, writer)
        login = Login(dsn.user, dsn.password())
        writer.write(startup_message(dsn.user, dsn.database, APPLICATION_NAME))
        try:
            await _converse(login, reader, writer)
        except UnsupportedLoginError:
            # Only the driver can finish this login. That the server asks for one shows that it accepts.
            return {}
        return login.parameters
    finally:
        # Not waited for: a frozen server would never answer the close.
        with contextlib.suppress(OSError):
            writer.write(TERMINATE)
            writer.close()


async def _converse(login: Login, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while not login.done:
        kind, length = header(await reader.readexactly(5))
        answer = login.receive(kind, await reader.readexactly(length))
        if answer:
            writer.write(answer)
            await writer.drain()


async def _negotiate_tls(dsn: Dsn, address: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Do what the DSN's `sslmode` says, as libpq would."""
    mode = dsn.get("sslmode", "prefer")
    if mode in {"disable", "allow"}:
        return
    writer.write(SSL_REQUEST)
    answer = await reader.readexactly(1)
    if answer == b"S":
        await writer.start_tls(_context(dsn, mode), server_hostname=address.host)
    elif answer == b"E":
        msg = "the server refused before TLS was agreed on"
        raise NotPostgresError(msg)
    elif mode != "prefer":
        fault = Fault(Kind.PERMANENT, "tls", f"the server has no TLS and sslmode is {mode}", hint="compare sslmode and ssl")
        msg = "no TLS"
        error = ConnectionError(msg)
        attach(error, fault)
        raise error


def _context(dsn: Dsn, mode: str) -> ssl.SSLContext:
    root = dsn.get("sslrootcert")
    context = ssl.create_default_context(cafile=root if root and root != "system" else None)
    context.check_hostname = mode == "verify-full"
    if mode not in {"verify-ca", "verify-full"} and not root:
        context.verify_mode = ssl.CERT_NONE
    certificate = dsn.get("sslcert")
    if certificate:
        context.load_cert_chain(certificate, dsn.get("sslkey") or None)
    return context
