"""The columns that a table gets, and the statement that makes them: pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from psycopg import sql

from outlast.tables._model import FieldType
from outlast.tables._stores.names import exact, plan_fields, stored_field
from outlast.tables._stores.postgres._catalogue import SQL_TYPES, Column

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outlast.tables._stores.postgres._catalogue import Kept

COLUMNS_MAX: Final = 1_600
"""The columns of a table of PostgreSQL (MaxHeapAttributeNumber); those that were dropped count."""
OWN_COLUMNS: Final = ("series", "time")
CHECK_PREFIX: Final = "outlast_number_"


class Plan:
    """A change of one table: what it has, and what it shall have."""

    def __init__(
        self, before: Kept | None, wanted: Mapping[str, FieldType], fields_max: int, attributes: Sequence[str], used: int
    ) -> None:
        """`attributes` are the columns that the table has, `used` their number with those that were dropped."""
        present: Mapping[str, Column] = before.columns if before else {}
        known = [name for column in present.values() for name in column.names]
        self._taken = {*attributes, *known, *OWN_COLUMNS}
        plan = plan_fields([each.field for each in present.values()], wanted, fields_max, exact, self._taken)
        self._taken.update(field.stored for field in plan.fields)
        self._left = COLUMNS_MAX - (used or len(OWN_COLUMNS))
        self._columns = dict(present)
        missing = [name for name in known if name not in attributes]
        self._left -= len(missing)
        self.added: list[Column] = []
        self.widened: list[Column] = []
        self._made: list[tuple[str, FieldType]] = [
            (stored, kind) for column in present.values() for stored, kind in column.typed if stored in missing
        ]
        """Those that the catalogue has and the table has not: somebody dropped them, or all of it."""
        for field in plan.added:
            is_number = field.type is FieldType.NUMBER
            column = Column(field, FieldType.INTEGER if is_number else field.type)
            self._take(column.widened(self._other(column)) if is_number else column, self.added)
        for field in plan.widened:
            column = present[field.name]
            if self._left:
                self._take(column.widened(self._other(column)), self.widened)

    @property
    def is_change(self) -> bool:
        """Whether anything is to be done about a table that is there."""
        return bool(self.added or self.widened or self._made)

    def create(self, place: sql.Identifier, the_id: int) -> sql.Composed:
        """Return the statement that makes the table with all its columns."""
        every = {name: kind for column in self._columns.values() for name, kind in column.typed}
        parts = [sql.SQL("series bigint"), sql.SQL("time bigint"), *(_definition(*each) for each in every.items())]
        # A name that no table of ours has: an index lies among them.
        key = sql.Identifier(f"outlast_{the_id}_key")
        parts.append(sql.SQL("CONSTRAINT {} PRIMARY KEY (series, time)").format(key))
        parts += [_one_of(column) for column in self._columns.values() if column.other is not None]
        return sql.SQL("CREATE TABLE {} ({})").format(place, sql.SQL(", ").join(parts))

    def alter(self, place: sql.Identifier) -> sql.Composed | None:
        """Return the statement that adds what is missing; no row is read or written for it."""
        add = sql.SQL("ADD COLUMN {}")
        parts = [add.format(_definition(*each)) for each in self._made]
        numbers = [column for column in (*self.added, *self.widened) if column.other is not None]
        parts += [sql.SQL("ADD {} NOT VALID").format(_one_of(column)) for column in numbers]
        return sql.SQL("ALTER TABLE {} {}").format(place, sql.SQL(", ").join(parts)) if parts else None

    def _take(self, column: Column, into: list[Column]) -> None:
        before = self._columns.get(column.field.name)
        new = [each for each in column.typed if before is None or each[0] not in before.names]
        if len(new) <= self._left:
            self._left -= len(new)
            self._made += new
            self._columns[column.field.name] = column
            into.append(column)

    def _other(self, column: Column) -> str:
        """Return a name for the column beside one that becomes NUMBER."""
        suffix = "~float" if column.base is FieldType.INTEGER else "~integer"
        other = stored_field(column.field.name + suffix, lambda name: name not in self._taken)
        self._taken.add(other)
        return other


def _definition(name: str, kind: FieldType) -> sql.Composed:
    return sql.SQL("{} {}").format(sql.Identifier(name), SQL_TYPES[kind])


def _one_of(column: Column) -> sql.Composed:
    """Return the constraint by which a writer that does not know of the second column cannot leave both set."""
    name = sql.Identifier(CHECK_PREFIX + hashlib.sha256(column.field.stored.encode()).hexdigest()[:16])
    first, second = map(sql.Identifier, column.names)
    return sql.SQL("CONSTRAINT {} CHECK (num_nonnulls({}, {}) < 2)").format(name, first, second)
