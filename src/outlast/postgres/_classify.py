"""The rule that turns what PostgreSQL and its drivers report into faults.

The SQLSTATE decides, with the phase and the severity where one code means two things. What a statement meets concerns that
statement, unless the server as a whole said it: each row answers that. The server's text decides nothing: it is translated
(`lc_messages`) and changes between versions. Where a driver hides the SQLSTATE, which
psycopg does for every failure to connect, the fault is `TRANSIENT` with code "connect", and the probe,
which reads the server's own words, refines it. What a driver says of itself, in English always, is read in one place:
asyncpg has one class for a closed connection and for its misuse.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, assert_never

from outlast import Fault, Kind, Scope
from outlast.extend import clean

_T, _C, _E, _O, _R, _P, _F = (
    Kind.TRANSIENT,
    Kind.CONTENDED,
    Kind.EXHAUSTED,
    Kind.OVERLOADED,
    Kind.REJECTED,
    Kind.PERMANENT,
    Kind.FATAL,
)


class Concern(enum.Enum):
    """The party that a failure concerns when a *statement* meets it; a login that fails concerns everyone who would log in."""

    CALL = "the statement"
    """The server read it and answered: others are served as before."""
    CHILD = "the service that works on this data"
    """The ground under one table is gone: whoever works on it ends, others go on. The fault is FATAL, and its scope the call."""
    SESSION = "the statement, or the server where it ended the session with it"
    """One code, two meanings: PostgreSQL sends it as an ERROR of one statement (a foreign server that cannot be reached), and as
    FATAL when it lets nobody in any more, which behind a pooler the first statement meets."""
    SERVER = "the server as a whole"
    """It speaks for everyone's sessions."""


_CALL, _CHILD, _SESSION, _SERVER = Concern.CALL, Concern.CHILD, Concern.SESSION, Concern.SERVER
_ENDED: Final = ("FATAL", "PANIC")
"""Severities, untranslated, with which the server ends a session."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    kind: Kind
    concern: Concern
    hint: str = ""


STATES: Final[dict[str, Row]] = {
    # Class 08: a connection; a statement meets the one to a foreign server.
    "08P01": Row(_T, _SESSION, "a protocol violation: often a pooler that lost its server, or a wrong number of parameters"),
    # Class 25, 40, 55: this transaction. Whether 25006 is the server's or the transaction's own doing, `second_look` finds out.
    "25006": Row(_T, _SERVER, "the server is read-only: a standby after a failover, or default_transaction_read_only"),
    "25P03": Row(_T, _CALL, "the transaction was idle for longer than idle_in_transaction_session_timeout"),
    "25P04": Row(_T, _CALL, "the transaction took longer than transaction_timeout"),
    "40001": Row(_T, _CALL),
    "40P01": Row(_T, _CALL),
    "26000": Row(_P, _CALL, "a prepared statement is gone: behind a pooler, turn them off (prepare_threshold=None)"),
    "40003": Row(_T, _CALL, "whether the statement was done is not known"),
    "55006": Row(_C, _CALL, "somebody else uses it"),
    "55P03": Row(_C, _CALL, "somebody else holds the lock"),
    "55000": Row(_P, _CALL, "the object is not in the state that is needed"),
    "55P02": Row(_P, _CALL, "the parameter cannot be changed now"),
    # Class 28, 3D, 42: rights and names. A statement that names a database (pg_database_size) meets 3D000 as well.
    "28P01": Row(_P, _SESSION, "put the password right, on either side"),
    "28000": Row(_P, _SESSION, "allow this user and host in pg_hba.conf, with or without TLS"),
    "3D000": Row(_P, _SESSION, "create the database, or correct its name"),
    "42501": Row(_P, _CALL, "grant the right that is missing"),
    "42P01": Row(_P, _CALL, "create the table: was the migration run?"),
    "42703": Row(_P, _CALL, "the column does not exist: was the migration run?"),
    "42883": Row(_P, _CALL, "the function does not exist: was the migration run?"),
    "3F000": Row(_P, _CALL, "the schema does not exist: was the migration run?"),
    # Class 53, 54: room. One tablespace is full, one query sorts too much: reads go on. A server whose own disk (pg_wal) is
    # full stops with PANIC, and its sessions meet 57P02.
    "53100": Row(_E, _CALL, "the disk or tablespace that this statement writes to is full: make room"),
    "53200": Row(_E, _CALL, "the server has no memory for this statement: it may ask for less (work_mem, fewer locks)"),
    "53300": Row(_E, _SERVER, "too many connections: raise max_connections, or use fewer"),
    "53400": Row(_E, _CALL, "a configured limit is reached, temp_file_limit for one"),
    # Class 57: an operator. 57P01 is one session terminated or the whole server: the next probe tells, 0.1 s later.
    "57014": Row(_T, _CALL, "the statement took longer than statement_timeout, or was cancelled"),
    "57P01": Row(_T, _SERVER),
    "57P02": Row(_T, _SERVER, "the server crashed and restarts"),
    "57P03": Row(_T, _SERVER),
    "57P04": Row(_P, _SERVER, "the database was dropped"),
    "57P05": Row(_T, _CALL, "idle_session_timeout ended a session that lay idle; the others are as they were"),
    # Class 58, XX: the server's ground. One block of one file cannot be read; what the server needs itself is PANIC, so 57P02.
    "58030": Row(_T, _CALL, "the server has an I/O error in a file that this statement needs: look at its disk"),
    "58P01": Row(_P, _CALL, "the server misses a file"),
    "58P02": Row(_T, _CALL),
    "XX000": Row(_T, _CALL, "an internal error of the server, or of a pooler in front of it"),
    "XX001": Row(_F, _CHILD, "the server reports corrupted data: stop using this table, and look at it"),
    "XX002": Row(_F, _CHILD, "the server reports a corrupted index: reindex"),
    "P0001": Row(_R, _CALL),
}
"""By SQLSTATE; the sources are appendix A of the PostgreSQL manual."""

CLASSES: Final[dict[str, Row]] = {
    "08": Row(_T, _SESSION),
    "0A": Row(_P, _CALL, "the server does not support this"),
    "55": Row(_C, _CALL, "the object is not in the state that is needed"),
    "F0": Row(_P, _CALL, "the server cannot read its configuration"),
    "XX": Row(_T, _CALL, "an internal error of the server"),
    "22": Row(_R, _CALL),
    "23": Row(_R, _CALL),
    "25": Row(_T, _CALL),
    "28": Row(_P, _SESSION, "the login is refused"),
    "40": Row(_T, _CALL),
    "42": Row(_R, _CALL),
    "44": Row(_R, _CALL),
    "53": Row(_E, _CALL, "the server is short of a resource that this statement needs"),
    "54": Row(_R, _CALL, "a limit of the server"),
    "57": Row(_T, _SERVER),
    "58": Row(_T, _CALL),
    "P0": Row(_R, _CALL),
    "HV": Row(_T, _CALL, "the foreign server failed"),
}
"""By the first two characters, for codes without a row of their own."""

_OTHER: Final = Row(_R, _CALL)
"""For every other class: the server read the statement and refused it. So it is with the codes that functions raise of
their own (`ERRCODE = 'U0001'`): what they mean to the caller, a rule of the user's can say."""

_CONNECTING: Final[dict[str, Row]] = {
    # While logging in these mean something else than in a statement.
    "42501": Row(_P, _SERVER, "grant CONNECT on the database to this user"),
    "53200": Row(_E, _SERVER, "the server has no memory for another session"),
    "55000": Row(_T, _SERVER, "the database does not accept connections now"),
    "58030": Row(_T, _SERVER, "the server has an I/O error: look at its disk"),
    "XX000": Row(_T, _SERVER, "a pooler in front of the server refuses the login"),
}

_DRIVER: Final[dict[str, tuple[str, Row]]] = {
    # psycopg 3: errors that carry no SQLSTATE.
    "psycopg.errors.ConnectionTimeout": ("timeout", Row(_T, _SERVER)),
    "psycopg.errors.PipelineAborted": ("pipeline aborted", Row(_T, _CALL, "an earlier statement of the pipeline failed")),
    # It could not turn a value into what the server takes: a NUL in a text, a date out of range.
    "psycopg.DataError": ("data", Row(_R, _CALL)),
    # psycopg_pool, for those who have one of their own.
    "psycopg_pool.PoolTimeout": ("pool timeout", Row(_O, _CALL, "all connections are in use: give the pool more")),
    "psycopg_pool.TooManyRequests": ("pool full", Row(_O, _CALL, "too many wait for a connection")),
    "psycopg_pool.PoolClosed": ("pool closed", Row(_T, _CALL)),
    # asyncpg.
    "asyncpg.exceptions._base.OutdatedSchemaCacheError": ("schema changed", Row(_T, _CALL, "retry on a new transaction")),
    "asyncpg.exceptions._base.TargetServerAttributeNotMatched": (
        "25006",
        Row(_T, _SERVER, "no host of the DSN is what is asked for"),
    ),
    "asyncpg.exceptions._base.DataError": ("data", Row(_R, _CALL)),
    "asyncpg.exceptions._base.ClientConfigurationError": (
        "configuration",
        Row(_P, _SERVER, "correct the connection's settings"),
    ),
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
        return by_state(state, _text(exc), phase, _severity(exc))
    for name in names:
        if name in _DRIVER:
            code, row = _DRIVER[name]
            return Fault(row.kind, code, _text(exc), scope=_scope(row, ""), hint=row.hint)
    if _OPERATIONAL in names:
        # No SQLSTATE: either it could not connect, or the connection broke under it.
        return Fault(Kind.TRANSIENT, "connect" if phase == "connect" else "ECONNRESET", _text(exc))
    if _INTERFACE in names and "closed" in str(exc):
        return Fault(Kind.TRANSIENT, "08003", _text(exc))
    # What is left is misuse of the driver: a cursor that is closed, two queries at once, a missing parameter.
    return None


def by_state(state: str, reason: str, phase: str = "", severity: str = "") -> Fault:
    """Return the fault for a SQLSTATE. While connecting it always concerns everyone: nobody else would be let in either.

    `severity` is the server's, untranslated; "" where it is not known.
    """
    row = STATES.get(state) or CLASSES.get(state[:2]) or _OTHER
    if phase in {"connect", "probe"}:
        row = _CONNECTING.get(state) or _connecting(row)
    return Fault(row.kind, state, clean(reason), scope=_scope(row, severity), hint=row.hint)


def _scope(row: Row, severity: str) -> Scope:
    match row.concern:
        case Concern.CALL | Concern.CHILD:
            return Scope.CALL
        case Concern.SESSION:
            # Unknown counts as ended: drivers report by class 08 that a connection is gone.
            return Scope.DEPENDENCY if not severity or severity in _ENDED else Scope.CALL
        case Concern.SERVER:
            return Scope.DEPENDENCY
        case _:
            assert_never(row.concern)


def _connecting(row: Row) -> Row:
    """Turn what a SQLSTATE means for a statement into what it means for a login."""
    match row.kind:
        case Kind.REJECTED:
            # What is wrong with a login stays wrong: an option of the DSN that the server does not know, for one.
            return Row(Kind.PERMANENT, _SERVER, row.hint or "the server refuses the login: correct the DSN or the server")
        case Kind.CONTENDED:
            return Row(Kind.TRANSIENT, _SERVER, row.hint)
        case _:
            return Row(row.kind, _SERVER, row.hint)


def _severity(exc: BaseException) -> str:
    """Return the severity as the protocol has it untranslated since version 9.6: psycopg's diagnosis, asyncpg's attribute."""
    diagnosis = getattr(exc, "diag", None)
    severity = getattr(diagnosis, "severity_nonlocalized", None) or getattr(exc, "severity_en", None)
    return severity if isinstance(severity, str) else ""


def _text(exc: BaseException) -> str:
    # The first line only: DETAIL and CONTEXT may quote rows.
    lines = str(exc).strip().splitlines()
    return clean(lines[0]) if lines else type(exc).__name__
