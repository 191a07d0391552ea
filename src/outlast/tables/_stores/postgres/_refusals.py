"""Refusals of PostgreSQL: whom each concerns, and what a write has met of them."""

from __future__ import annotations

import enum
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import errors

from outlast import Fault, Kind, Scope
from outlast.tables._model import INT64_MAX, INT64_MIN
from outlast.tables._stores.port import RowRefusal, Wrote
from outlast.tables._stores.postgres._plan import CHECK_PREFIX
from outlast.tables._stores.postgres._sessions import AGAIN
from outlast.tables._stores.postgres._values import UnfitTextError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.postgres import Postgres
    from outlast.tables._stores.port import TableRows

HELD_S: Final = 1.0
"""The time for which a table that was refused as a whole is refused from memory: one that is locked costs a wait for the lock
each time, and all others wait with it."""
STALE: Final = frozenset({"42P01", "42703", "42804", "3F000"})
"""No such table, column or schema, and a column of another type."""
EVERYONE: Final = frozenset({"08", "25", "57"})
"""Classes that say something about the connection, the transaction or the server."""


NO_ROOM: Final = "53"
"""The class of what the server is short of."""


class Verdict(enum.Enum):
    """The party that an error of an INSERT concerns."""

    EVERYONE = "everyone"
    """The server, the connection, or the transaction."""
    TABLE = "the table"
    """A lock, a right, a file, an index: no row of this table can be written now."""
    STALE = "what is known of the table"
    ROW = "one of the rows"

    @property
    def concerns_everyone(self) -> bool:
        """Whether nothing else can be written either."""
        return self is Verdict.EVERYONE


class Judge:
    """Decides whom errors concern, and remembers the tables that were refused a moment ago."""

    def __init__(self, db: Postgres) -> None:
        self._db = db
        self._held: dict[int, tuple[float, Fault]] = {}

    def fault(self, error: Exception) -> Fault:
        """Return the fault of an error, as one of a call."""
        if isinstance(error, UnfitTextError):
            return Fault(Kind.REJECTED, "22021", str(error), self._db.name, Scope.CALL)
        return self._db.classifiers.classify(error, source=self._db.name)

    def fault_of_row(self, group: TableRows, row: Sequence[Any], error: Exception) -> Fault:
        """Return the fault of a row that was refused: what it names is for the one who sent it."""
        for name, value in zip(("series", "time", *group.fields), row, strict=True):
            if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
                reason = f"field {name!r} of table {group.table.name!r}: {value} does not fit in 64 bits with a sign"
                hint = f"send {INT64_MIN} to {INT64_MAX}"
                return Fault(Kind.REJECTED, "out of range", reason, self._db.name, Scope.CALL, hint=hint)
        fault = self.fault(error)
        return replace(fault, reason=f"a point of table {group.table.name!r} is refused by PostgreSQL: {fault.reason}")

    def verdict(self, error: Exception) -> Verdict:
        """Return whom the error concerns."""
        if isinstance(error, UnfitTextError | psycopg.DataError) and not getattr(error, "sqlstate", None):
            return Verdict.ROW
        state = getattr(error, "sqlstate", None) or ""
        fault = self.fault(error)
        if not state or isinstance(error, AGAIN) or fault.is_evidence or state[:2] in EVERYONE:
            return Verdict.EVERYONE
        if state in STALE or (isinstance(error, errors.CheckViolation) and _is_ours(error)):
            return Verdict.STALE
        if fault.kind is Kind.REJECTED and state[:2] != "42":
            return Verdict.ROW
        return Verdict.TABLE

    def hold(self, table_id: int, error: Exception, now: float) -> None:
        """Refuse a table from memory for a while."""
        self._held = {each: held for each, held in self._held.items() if held[0] > now}
        self._held[table_id] = (now + HELD_S, self.fault(error))

    def refuse_held(self, refusals: Refusals, now: float) -> None:
        """Refuse the groups of those tables."""
        if not self._held:
            return
        for number, group in enumerate(refusals.groups):
            until, fault = self._held.get(group.table.id, (now, None))
            if fault is not None and until > now:
                refusals.table(number, None, replace(fault, retry_after_s=fault.retry_after_s or until - now))


class Refusals:
    """The refusals of one write."""

    def __init__(self, groups: Sequence[TableRows]) -> None:
        self.groups = groups
        self.stale: set[int] = set()
        self._rows: list[RowRefusal] = []
        self._tables: dict[int, Exception | None] = {}

    def left(self) -> list[int]:
        """Return the groups that are neither stale nor refused as a whole."""
        return [number for number in range(len(self.groups)) if number not in self.stale and number not in self._tables]

    def row(self, number: int, row: Sequence[Any], fault: Fault) -> None:
        """Refuse one row of a group."""
        place = next(place for place, each in enumerate(self.groups[number].rows) if each is row)
        self._rows.append(RowRefusal(number, place, fault))

    def table(self, number: int, error: Exception | None, fault: Fault) -> None:
        """Refuse a group as a whole."""
        # What was found out of its rows before says less.
        self._rows = [refusal for refusal in self._rows if refusal.group != number]
        self._tables[number] = error
        self._rows += [RowRefusal(number, place, fault) for place in range(len(self.groups[number].rows))]

    def raise_if_nothing_passed(self) -> None:
        """Raise what the first table met, if there was no room for any: it is not the table that is full."""
        met = [error for error in self._tables.values() if isinstance(error, psycopg.Error)]
        met = [error for error in met if (error.sqlstate or "").startswith(NO_ROOM)]
        if met and len(self._tables) == len(self.groups):
            raise met[0]

    def wrote(self) -> Wrote:
        """Return the end of the write."""
        rows = [refusal for refusal in self._rows if refusal.group not in self.stale]
        return Wrote(sorted(rows, key=lambda each: (each.group, each.row)), frozenset(self.stale))


def _is_ours(error: psycopg.Error) -> bool:
    return (error.diag.constraint_name or "").startswith(CHECK_PREFIX)
