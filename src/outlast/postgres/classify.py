"""What PostgreSQL and its drivers report, as faults.

The SQLSTATE decides, with the phase where one code means two things. The server's text decides nothing: it is
translated (`lc_messages`) and changes between versions. Where a driver hides the SQLSTATE, which
psycopg does for every failure to connect, the fault is `TRANSIENT` with code "connect", and the probe,
which reads the server's own words, refines it. What a driver says of itself, in English always, is read in one place:
asyncpg has one class for a closed connection and for its misuse.
"""

from __future__ import annotations

from typing import Final

from outlast.core.faults import Fault, Kind, Scope
from outlast.core.redact import clean

_T, _C, _E, _O, _R, _P, _F = (
    Kind.TRANSIENT,
    Kind.CONTENDED,
    Kind.EXHAUSTED,
    Kind.OVERLOADED,
    Kind.REJECTED,
    Kind.PERMANENT,
    Kind.FATAL,
)
_ALL, _CALL = Scope.DEPENDENCY, Scope.CALL

STATES: Final[dict[str, tuple[Kind, Scope, str]]] = {
    # Class 08: the connection.
    "08P01": (_T, _ALL, "a protocol violation: often a pooler that lost its server"),
    # Class 25, 40, 55: this transaction.
    "25006": (_T, _ALL, "the server is read-only: a standby after a failover, or default_transaction_read_only"),
    "25P03": (_T, _CALL, "the transaction was idle for too long"),
    "40001": (_T, _CALL, ""),
    "40P01": (_T, _CALL, ""),
    "26000": (_P, _CALL, "a prepared statement is gone: behind a pooler, turn them off (prepare_threshold=None)"),
    "40003": (_T, _CALL, "whether the statement was done is not known"),
    "55006": (_C, _CALL, "somebody else uses it"),
    "55P03": (_C, _CALL, "somebody else holds the lock"),
    "55000": (_P, _CALL, "the object is not in the state that is needed"),
    "55P02": (_P, _CALL, "the parameter cannot be changed now"),
    # Class 28, 3D, 42: rights and names. In a query they concern that query.
    "28P01": (_P, _ALL, "put the password right, on either side"),
    "28000": (_P, _ALL, "allow this user and host in pg_hba.conf, with or without TLS"),
    "3D000": (_P, _ALL, "create the database, or correct its name"),
    "42501": (_P, _CALL, "grant the right that is missing"),
    "42P01": (_P, _CALL, "create the table: was the migration run?"),
    "42703": (_P, _CALL, "the column does not exist: was the migration run?"),
    "42883": (_P, _CALL, "the function does not exist: was the migration run?"),
    "3F000": (_P, _CALL, "the schema does not exist: was the migration run?"),
    # Class 53, 54: room.
    "53100": (_E, _ALL, "the server's disk is full: make room"),
    "53200": (_E, _CALL, "the server is out of memory"),
    "53300": (_E, _ALL, "too many connections: raise max_connections, or use fewer"),
    "53400": (_E, _CALL, "a configured limit of the server is reached"),
    # Class 57: an operator.
    "57014": (_T, _CALL, "the statement took longer than statement_timeout, or was cancelled"),
    "57P01": (_T, _ALL, ""),
    "57P02": (_T, _ALL, "the server crashed and restarts"),
    "57P03": (_T, _ALL, ""),
    "57P04": (_P, _ALL, "the database was dropped"),
    "57P05": (_T, _ALL, "idle_session_timeout ended the session"),
    # Class 58, XX: the server's ground. Its disk is not ours: only corruption is FATAL for us.
    "58030": (_T, _ALL, "the server has an I/O error: look at its disk"),
    "58P01": (_P, _CALL, "the server misses a file"),
    "58P02": (_T, _CALL, ""),
    "XX000": (_T, _CALL, "an internal error of the server, or of a pooler in front of it"),
    "XX001": (_F, _ALL, "the server reports corrupted data: stop, and look at it"),
    "XX002": (_F, _ALL, "the server reports a corrupted index: reindex"),
    "P0001": (_R, _CALL, ""),
}
"""By SQLSTATE; the sources are appendix A of the PostgreSQL manual."""

CLASSES: Final[dict[str, tuple[Kind, Scope, str]]] = {
    "08": (_T, _ALL, ""),
    "0A": (_P, _CALL, "the server does not support this"),
    "55": (_C, _CALL, "the object is not in the state that is needed"),
    "F0": (_P, _CALL, "the server cannot read its configuration"),
    "XX": (_T, _CALL, "an internal error of the server"),
    "22": (_R, _CALL, ""),
    "23": (_R, _CALL, ""),
    "25": (_T, _CALL, ""),
    "28": (_P, _ALL, "the login is refused"),
    "40": (_T, _CALL, ""),
    "42": (_R, _CALL, ""),
    "44": (_R, _CALL, ""),
    "53": (_E, _ALL, "the server is short of a resource"),
    "54": (_R, _CALL, "a limit of the server"),
    "57": (_T, _ALL, ""),
    "58": (_T, _CALL, ""),
    "P0": (_R, _CALL, ""),
    "HV": (_T, _CALL, "the foreign server failed"),
}
"""By the first two characters, for codes without a row of their own."""

_OTHER: Final = (_R, _CALL, "")
"""For every other class: the server read the statement and refused it. So it is with the codes that functions raise of
their own (`ERRCODE = 'U0001'`): what they mean to the caller, a rule of the user's can say."""

_CONNECTING: Final[dict[str, tuple[Kind, Scope, str]]] = {
    # While logging in these are about everyone, not about one statement.
    "42501": (_P, _ALL, "grant CONNECT on the database to this user"),
    "55000": (_T, _ALL, "the database does not accept connections now"),
    "53400": (_E, _ALL, "a configured limit of the server is reached"),
    "53200": (_E, _ALL, "the server is out of memory"),
    "XX000": (_T, _ALL, "a pooler in front of the server refuses the login"),
}

_DRIVER: Final[dict[str, tuple[Kind, str, Scope, str]]] = {
    # psycopg 3: errors that carry no SQLSTATE.
    "psycopg.errors.ConnectionTimeout": (_T, "timeout", _ALL, ""),
    "psycopg.errors.PipelineAborted": (_T, "pipeline aborted", _CALL, "an earlier statement of the pipeline failed"),
    # It could not turn a value into what the server takes: a NUL in a text, a date out of range.
    "psycopg.DataError": (_R, "data", _CALL, ""),
    "psycopg_pool.PoolTimeout": (_O, "pool timeout", _CALL, "all connections are in use: raise connections_max"),
    "psycopg_pool.TooManyRequests": (_O, "pool full", _CALL, "too many wait for a connection"),
    "psycopg_pool.PoolClosed": (_T, "pool closed", _CALL, ""),
    # asyncpg.
    "asyncpg.exceptions._base.OutdatedSchemaCacheError": (_T, "schema changed", _CALL, "retry on a new transaction"),
    "asyncpg.exceptions._base.TargetServerAttributeNotMatched": (_T, "25006", _ALL, "no host of the DSN is what is asked for"),
    "asyncpg.exceptions._base.DataError": (_R, "data", _CALL, ""),
    "asyncpg.exceptions._base.ClientConfigurationError": (_P, "configuration", _ALL, "correct the connection's settings"),
}
_OPERATIONAL: Final = "psycopg.OperationalError"
_INTERFACE: Final = "asyncpg.exceptions._base.InterfaceError"


def postgres_rule(exc: BaseException, phase: str) -> Fault | None:
    """Classify what psycopg 3, its pool and asyncpg raise; None for anything else."""
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(exc).__mro__]
    if not any(name.startswith(("psycopg", "asyncpg")) for name in names):
        return None
    state = getattr(exc, "sqlstate", None)
    if isinstance(state, str) and state:
        return by_state(state, _text(exc), phase)
    for name in names:
        row = _DRIVER.get(name)
        if row is not None:
            kind, code, scope, hint = row
            return Fault(kind, code, _text(exc), scope=scope, hint=hint)
    if _OPERATIONAL in names:
        # No SQLSTATE: either it could not connect, or the connection broke under it.
        return Fault(Kind.TRANSIENT, "connect" if phase == "connect" else "ECONNRESET", _text(exc))
    if _INTERFACE in names and "closed" in str(exc):
        return Fault(Kind.TRANSIENT, "08003", _text(exc))
    # What is left is misuse of the driver: a cursor that is closed, two queries at once, a missing parameter.
    return None


def by_state(state: str, reason: str, phase: str = "") -> Fault:
    """The fault for a SQLSTATE. While connecting it always concerns everyone: nobody else would be let in either."""
    row = STATES.get(state) or CLASSES.get(state[:2]) or _OTHER
    if phase in {"connect", "probe"}:
        row = _CONNECTING.get(state) or _connecting(*row)
    kind, scope, hint = row
    return Fault(kind, state, clean(reason), scope=scope, hint=hint)


def _connecting(kind: Kind, _: Scope, hint: str) -> tuple[Kind, Scope, str]:
    """Turn what a SQLSTATE means for a statement into what it means for a login."""
    match kind:
        case Kind.REJECTED:
            # What is wrong with a login stays wrong: an option of the DSN that the server does not know, for one.
            return Kind.PERMANENT, Scope.DEPENDENCY, hint or "the server refuses the login: correct the DSN or the server"
        case Kind.CONTENDED:
            return Kind.TRANSIENT, Scope.DEPENDENCY, hint
        case _:
            return kind, Scope.DEPENDENCY, hint


def _text(exc: BaseException) -> str:
    # The first line only: DETAIL and CONTEXT may quote rows.
    lines = str(exc).strip().splitlines()
    return clean(lines[0]) if lines else type(exc).__name__
