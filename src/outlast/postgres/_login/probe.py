"""Ask a PostgreSQL server whether it can be used: log in as we would, read its own words, and leave."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final

from outlast import Classifiers, Fault, Kind
from outlast.extend import attach
from outlast.postgres._classify import by_state
from outlast.postgres._login.scram import ScramError
from outlast.postgres._login.wire import (
    SSL_REQUEST,
    TERMINATE,
    Login,
    NotPostgresError,
    PasswordMissingError,
    ServerError,
    header,
    startup_message,
)

if TYPE_CHECKING:
    from outlast.postgres._dsn import Address, Dsn

_TLS_CHOICES: Final = {"disable": (False,), "allow": (False, True), "prefer": (True, False)}
"""By `sslmode`: with TLS or not, and what libpq tries next when it is refused."""
_HOME: Final = Path("~/.postgresql")
"""The folder in which libpq looks for certificates that the DSN does not name."""
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
    Raises `UnsupportedLoginError` when only the driver can find out. It has no deadline of its own: the caller sets one.
    Costs one connection and no query; a second one where libpq would change its mind about TLS.
    """
    failure: ProbeFailedError | None = None
    for address in dsn.addresses:
        try:
            parameters = await _log_in(dsn, address)
        except (OSError, ServerError, PasswordMissingError, ScramError, asyncio.IncompleteReadError) as exc:
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
    """Return the fault of a failed login."""
    if isinstance(exc, ServerError):
        return by_state(exc.sqlstate, str(exc), "connect")
    if isinstance(exc, PasswordMissingError):
        return Fault(Kind.PERMANENT, "28P01", str(exc), hint="give a password in the DSN, PGPASSWORD or a passfile")
    if isinstance(exc, ScramError):
        return Fault(Kind.PERMANENT, "scram", str(exc), hint="is this the server that it claims to be?")
    if isinstance(exc, asyncio.IncompleteReadError):
        return Fault(Kind.TRANSIENT, "ECONNRESET", "the server closed the connection during the login")
    return Classifiers().classify(exc, phase="connect")


def _is_read_only(parameters: dict[str, str]) -> bool:
    return "on" in {parameters.get("in_hot_standby"), parameters.get("default_transaction_read_only")}


async def _log_in(dsn: Dsn, address: Address) -> dict[str, str]:
    """Log in as libpq would, with TLS or without; return the parameters that the server reported."""
    choices = (False,) if address.is_socket else _TLS_CHOICES.get(dsn.get("sslmode", "prefer"), (True,))
    try:
        return await _session(dsn, address, encrypted=choices[0])
    except ServerError as refused:
        # pg_hba.conf may let in with TLS and not without, or the reverse. When TLS was asked for and the server has none, this
        # attempt was the one without.
        if refused.sqlstate != "28000" or len(choices) == 1 or refused.encrypted != choices[0]:
            raise
    return await _session(dsn, address, encrypted=choices[1])


async def _session(dsn: Dsn, address: Address, *, encrypted: bool) -> dict[str, str]:
    if address.is_socket:
        directory = f"\0{address.host[1:]}" if address.host.startswith("@") else address.host
        reader, writer = await asyncio.open_unix_connection(f"{directory}/.s.PGSQL.{address.port}")
    else:
        reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        if encrypted:
            encrypted = await _negotiate_tls(dsn, address, reader, writer)
        login = Login(dsn.user, dsn.password())
        writer.write(startup_message(dsn.user, dsn.database, APPLICATION_NAME, dsn.get("options")))
        await _converse(login, reader, writer)
        writer.write(TERMINATE)
    except ServerError as exc:
        exc.encrypted = encrypted
        raise
    else:
        return login.parameters
    finally:
        # Neither waited for nor flushed: a frozen server would never answer the close, nor take what is written.
        writer.transport.abort()


async def _converse(login: Login, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while not login.done:
        kind, length = header(await reader.readexactly(5))
        answer = login.receive(kind, await reader.readexactly(length))
        if answer:
            writer.write(answer)
            await writer.drain()


async def _negotiate_tls(dsn: Dsn, address: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Go over to TLS if the server has it; return whether it has."""
    mode = dsn.get("sslmode", "prefer")
    writer.write(SSL_REQUEST)
    answer = await reader.readexactly(1)
    if answer == b"S":
        await writer.start_tls(_context(dsn, mode), server_hostname=address.name or address.host)
        return True
    if answer != b"N":
        msg = "the server refused before TLS was agreed on"
        raise NotPostgresError(msg)
    if mode not in {"prefer", "allow"}:
        fault = Fault(Kind.PERMANENT, "tls", f"the server has no TLS and sslmode is {mode}", hint="compare sslmode and ssl")
        msg = "no TLS"
        error = ConnectionError(msg)
        attach(error, fault)
        raise error
    return False


def _context(dsn: Dsn, mode: str) -> ssl.SSLContext:
    """Make the TLS context that libpq would use. The system's authorities are slow to load: only when they are asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = mode == "verify-full"
    root = dsn.get("sslrootcert") or _existing("root.crt")
    if root == "system":
        context.load_default_certs()
    elif root:
        context.load_verify_locations(root)
    if mode not in {"verify-ca", "verify-full"} and (mode != "require" or not root):
        context.verify_mode = ssl.CERT_NONE
    certificate = dsn.get("sslcert") or _existing("postgresql.crt")
    if certificate:
        # With a password, if only an empty one: without, a key that has one would ask for it on the terminal.
        key = dsn.get("sslkey") or _existing("postgresql.key")
        context.load_cert_chain(certificate, key or None, dsn.get("sslpassword"))
    return context


def _existing(name: str) -> str:
    path = (_HOME / name).expanduser()
    return str(path) if path.exists() else ""
