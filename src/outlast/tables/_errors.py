"""Errors of tables, by what the caller can do. A store that is away or full is `outlast.Unavailable`."""

from __future__ import annotations

from outlast import Fault, Kind, OutlastError, Scope


class TableError(OutlastError):
    """The base of what is wrong with one table or one request; it says nothing about the store."""

    kind = Kind.REJECTED
    code = "table"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, Fault(self.kind, self.code, message, "tables", Scope.CALL, hint=hint))


class NameTakenError(TableError):
    """The store has something of this name that is not a table of ours: a view, somebody's table. A person must act."""

    kind = Kind.PERMANENT
    code = "name taken"


class StaleTableError(TableError):
    """The table is not as it was known: another process has dropped it. Look again."""

    code = "stale table"


class TableNotFoundError(TableError):
    """There is no such table."""

    code = "no such table"


class InvalidQueryError(TableError):
    """A question that cannot be answered: what is wrong with it, and what is allowed."""

    code = "query"


class InvalidPointError(TableError):
    """A point from Python that is none: a name, a value or a time out of its limits."""

    code = "point"
