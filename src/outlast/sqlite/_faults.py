"""From what SQLite reports to faults: the result code decides, with the system's errno where there is one."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import apsw

from outlast import Fault, Kind, Scope
from outlast.extend import NO_ROOM, clean

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT: Final = "timeout"
LOW_SPACE: Final = "low space"
CROWDED: Final = "too many waiting"
LOCKED: Final = "locked"
"""Somebody has held the write lock for so long that nobody gets it."""
DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})

_MEND: Final = "then have it used again by its act, or restart"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    kind: Kind
    scope: Scope
    hint: str = ""


_CALL, _ALL, _CHILD = Scope.CALL, Scope.DEPENDENCY, Scope.CHILD

ROWS: Final[Mapping[int, Row]] = {
    # Of this call: others are served as before.
    apsw.SQLITE_BUSY: Row(Kind.CONTENDED, _CALL, "somebody else writes: keep transactions short"),
    apsw.SQLITE_LOCKED: Row(Kind.CONTENDED, _CALL, "another statement of the same connection uses it"),
    apsw.SQLITE_CONSTRAINT: Row(Kind.REJECTED, _CALL),
    apsw.SQLITE_MISMATCH: Row(Kind.REJECTED, _CALL, "a value has another type than its column"),
    apsw.SQLITE_RANGE: Row(Kind.REJECTED, _CALL, "there is no parameter of that number"),
    apsw.SQLITE_TOOBIG: Row(Kind.REJECTED, _CALL, "the value is larger than SQLite takes"),
    apsw.SQLITE_ERROR: Row(Kind.PERMANENT, _CALL, "correct the statement, or make the table: was the migration run?"),
    apsw.SQLITE_AUTH: Row(Kind.PERMANENT, _CALL, "the authorizer of the connection does not allow it"),
    apsw.SQLITE_SCHEMA: Row(Kind.TRANSIENT, _CALL),
    apsw.SQLITE_PROTOCOL: Row(Kind.TRANSIENT, _CALL, "many processes open it at once"),
    apsw.SQLITE_INTERRUPT: Row(Kind.TRANSIENT, _CALL),
    apsw.SQLITE_NOMEM: Row(Kind.EXHAUSTED, _CALL, "the process, or its limit, has no memory left"),
    # Of everybody who uses the file.
    apsw.SQLITE_FULL: Row(Kind.EXHAUSTED, _ALL, "make room; writing goes on by itself"),
    apsw.SQLITE_PERM: Row(Kind.PERMANENT, _ALL, "let this user read and write the file and its folder"),
    apsw.SQLITE_READONLY: Row(Kind.PERMANENT, _ALL, "let this user write the file and its folder; look how it is mounted"),
    apsw.SQLITE_CANTOPEN: Row(Kind.PERMANENT, _ALL, "make the folder, and let this user read and write it and the file"),
    # Of the file itself.
    apsw.SQLITE_IOERR: Row(Kind.FATAL, _CHILD, f"look at the kernel's log and at the disk; {_MEND}"),
    apsw.SQLITE_CORRUPT: Row(Kind.FATAL, _CHILD, f"keep a copy, and restore it from a backup or with `.recover`; {_MEND}"),
    apsw.SQLITE_NOTADB: Row(Kind.FATAL, _CHILD, f"it is no SQLite file, or it is encrypted: give another path; {_MEND}"),
    apsw.SQLITE_FORMAT: Row(Kind.FATAL, _CHILD, f"it is no SQLite file of a known format: give another path; {_MEND}"),
}
"""By the primary result code."""

EXTENDED: Final[Mapping[int, Row]] = {
    apsw.SQLITE_READONLY_DBMOVED: Row(Kind.FATAL, _CHILD, f"the file was moved or deleted while open: put it back; {_MEND}"),
    apsw.SQLITE_IOERR_NOMEM: ROWS[apsw.SQLITE_NOMEM],
    apsw.SQLITE_CANTOPEN_ISDIR: Row(Kind.PERMANENT, _ALL, "the path is a folder: give that of a file"),
}
"""Extended codes that mean something else than their primary one."""


def sqlite_rule(exc: BaseException, phase: str) -> Fault | None:
    """Classify what apsw raises. What it says of the file, it says for everybody who uses that file."""
    del phase
    return fault_of(exc)


def fault_of(exc: BaseException, system_errno: int = 0) -> Fault | None:
    """Classify an error of apsw; `system_errno` is the connection's, read at once after it."""
    if not isinstance(exc, apsw.Error):
        return None
    if isinstance(exc, (apsw.BindingsError, apsw.ExecutionCompleteError, apsw.IncompleteExecutionError)):
        return Fault(Kind.REJECTED, type(exc).__name__, clean(str(exc)), scope=_CALL, hint="correct the call")
    # Errors of apsw's own, such as a connection that is closed, have no code: they are the caller's bugs.
    extended: int = getattr(exc, "extendedresult", 0)
    primary = extended & 0xFF
    row = EXTENDED.get(extended) or ROWS.get(primary)
    if row is None:
        return None
    code = _name(extended, primary)
    if primary in {apsw.SQLITE_IOERR, apsw.SQLITE_CANTOPEN, apsw.SQLITE_FULL} and system_errno:
        code = errno.errorcode.get(system_errno, code)
        if system_errno in NO_ROOM:
            row = ROWS[apsw.SQLITE_FULL]
        elif system_errno in DESCRIPTORS:
            row = Row(Kind.TRANSIENT, _CALL, "raise the limit of open files (`ulimit -n`), or find what keeps them open")
    return Fault(row.kind, code, clean(str(exc)), scope=row.scope, hint=row.hint)


def _name(extended: int, primary: int) -> str:
    for code, names in ((extended, apsw.mapping_extended_result_codes), (primary, apsw.mapping_result_codes)):
        name = names.get(code)
        if isinstance(name, str):
            return name
    return f"SQLITE {extended}"
