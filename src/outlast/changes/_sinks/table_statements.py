"""The statements that write the rows of one table of the source into one table of the sink.

The replica identity says which row is meant where it is a unique index; with REPLICA IDENTITY FULL by a key of the
sink's table; and without one by everything that is in the row: then it is one row that looks the same, and only one.

What did not change is not set: a sink may refuse to set a column (GENERATED ALWAYS AS IDENTITY), or do something when it is
set. A column of that kind that did change is a row that is deleted and inserted, with all that the change does not say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from psycopg import sql

from outlast.changes._decoding.messages import UNCHANGED, ReplicaIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from outlast.changes._decoding.messages import Delete, Relation, Update, Value, Values
    from outlast.changes._sinks.tables import Name, SinkColumn, SinkTable

    Statement = tuple[sql.Composed, tuple[Value, ...]]

Made: TypeAlias = "Callable[[tuple[object, ...], Callable[[], sql.Composed]], sql.Composed]"
"""Returns the statement of a key: the same object each time, until there are too many."""
IDENTIFIED: Final = frozenset({ReplicaIdentity.DEFAULT, ReplicaIdentity.INDEX})
"""Such a replica identity is a unique index without NULLs: `=` finds the one row that has it."""
_UPSERT: Final = "INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE {rows}{conflict}"
_CARRY: Final = (
    "WITH gone AS (DELETE FROM {held} WHERE {where} RETURNING *)"
    " INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values} FROM gone"
)
_ONE_OF_THEM: Final = "{place} = (SELECT {places} FROM {table} AS held, (SELECT {given}) AS given WHERE {same} LIMIT 1)"
_ALL_OF_THEM: Final = "EXISTS (SELECT FROM (SELECT {given}) AS given WHERE {same})"


class TableStatements:
    """For `relation` of the source, written to the table called `name`, which is like `table`; None: nobody has looked."""

    def __init__(self, relation: Relation, name: Name, table: SinkTable | None, made: Made) -> None:
        self.relation = relation
        self.identifier = identifier_of(*name)
        self._table = table
        self._made = made
        partitioned = table is not None and table.is_partitioned
        self.target: sql.Composable = self.identifier if partitioned else sql.SQL("ONLY {}").format(self.identifier)
        """The table without its children, which are tables of their own: but for partitions, they are written separately."""
        self._columns: dict[str, SinkColumn] = {} if table is None else {column.name: column for column in table.columns}
        generated = {column.name for column in self._columns.values() if column.is_generated}
        self.names = tuple(name for name in relation.names if name not in generated)
        """The columns that are written: what the sink generates itself takes no value."""
        self.left_out = tuple(place for place, name in enumerate(relation.names) if name in generated)
        """Where in a row the values stand that are not written."""
        self._identified = bool(relation.key_names) and relation.replica_identity in IDENTIFIED
        self._key = relation.key_names if self._identified else () if table is None else table.key_within(self.names)
        self._fixed = frozenset(name for name in self.names if name in self._columns and self._columns[name].is_always_identity)
        self._renewed = tuple(name for name in self.names if name in self._fixed and name not in self._key)
        self._by_place = not self._key and (table is None or table.has_places)
        self._upsert: sql.Composed | None = None

    # Changes.

    def insert(self, row: Values) -> Iterable[Statement]:
        """Insert a row, which replaces the one that is there if the replica identity can tell."""
        if self._upsert is None:
            self._upsert = self.upsert_of(sql.SQL("VALUES ({})").format(_list([sql.Placeholder()] * len(self.names))))
        values = row
        if self.left_out:
            values = tuple(value for place, value in enumerate(row) if place not in self.left_out)
        statement = (self._upsert, values)
        if not self._renewed or not self._identified:
            return (statement,)
        # An update does not set these; where they differ the row is made again first.
        new = dict(zip(self.names, values, strict=True))
        return (self._carry(new, new, self._renewed), statement)

    def update(self, change: Update, *, again: bool) -> Iterable[Statement]:
        """Set what an update was given where the old row stands. `again`: later rows may be there already."""
        if self._identified and change.old_key is None and change.old_row is None and UNCHANGED not in change.new:
            return self.insert(change.new)
        return self._update(change, again=again)

    def _update(self, change: Update, *, again: bool) -> Iterator[Statement]:
        old = change.old_as_dict()
        new = {name: value for name, value in zip(self.relation.names, change.new, strict=True) if value is not UNCHANGED}
        complete = len(new) == len(self.relation.names)
        changed = {name: new[name] for name in self.names if name in new and (name not in old or old[name] != new[name])}
        moved = again and self._identified and any(name in changed for name in self._key)
        if moved:
            # Of two states of one row, under its old key and under its new one, the older takes part in what is repeated.
            under_new = tuple(new.get(name, old[name]) for name in self._key)
            yield self._delete_if_other(), (*under_new, *(old[name] for name in self._key))
        fixed = self._fixed.intersection(changed)
        if fixed:
            unsure = tuple(name for name in self._renewed if name in fixed and name not in old)
            yield self._carry(old, changed, () if fixed.difference(unsure) else unsure)
        settable = tuple(name for name in changed if name not in fixed)
        if settable and not fixed.intersection(old):
            yield self._set(settable), (*(changed[name] for name in settable), *self._identity(old))
        if moved and complete:
            yield from self.insert(change.new)

    def delete(self, change: Delete) -> Iterable[Statement]:
        """Delete the row; nothing happens if there is none."""
        statement = self._made((self, "delete"), lambda: sql.SQL("DELETE FROM {} WHERE {}").format(self._held(), self._where()))
        return ((statement, self._identity(change.old_as_dict())),)

    # Statements.

    def upsert_of(self, rows: sql.Composed) -> sql.Composed:
        """Compose the insert of whole rows, which are a query for the columns `names`."""
        conflict: sql.Composable = sql.SQL("")
        if self._identified:
            rest = [name for name in self.names if name not in self._key and name not in self._fixed]
            sets = _list(sql.SQL("{0} = excluded.{0}").format(identifier_of(name)) for name in rest)
            action = sql.SQL("UPDATE SET {}").format(sets) if rest else sql.SQL("NOTHING")
            conflict = sql.SQL(" ON CONFLICT ({}) DO {}").format(columns_of(self._key), action)
        return sql.SQL(_UPSERT).format(table=self.identifier, columns=columns_of(self.names), rows=rows, conflict=conflict)

    def upserts_from(self, table: sql.Identifier) -> list[sql.Composed]:
        """Compose what inserts all rows of another table with the columns `names`."""
        rows = sql.SQL("SELECT {} FROM {}").format(columns_of(self.names), table)
        statements = [self.upsert_of(rows)]
        if self._renewed and self._identified:
            same = sql.SQL(" AND ").join(sql.SQL("held.{0} = given.{0}").format(identifier_of(name)) for name in self._key)
            other = _any_other(self._renewed, sql.SQL("held.{0} IS DISTINCT FROM given.{0}"))
            delete = sql.SQL("DELETE FROM {} AS held USING {} AS given WHERE {} AND {}")
            statements.insert(0, delete.format(self.target, table, same, other))
        return statements

    def _set(self, names: tuple[str, ...]) -> sql.Composed:
        def make() -> sql.Composed:
            sets = _list(sql.SQL("{} = {}").format(identifier_of(name), sql.Placeholder()) for name in names)
            return sql.SQL("UPDATE {} SET {} WHERE {}").format(self._held(), sets, self._where())

        return self._made((self, "set", names), make)

    def _carry(self, old: Mapping[str, Value], new: Mapping[str, Value], unless_same: tuple[str, ...]) -> Statement:
        """Delete the old row, and insert it with the `new` values; with `unless_same` only if one of these is another."""
        # A column that the sink does not have is refused there, as in every other statement.
        every = [column.name for column in self._columns.values() if not column.is_generated]
        every += [name for name in new if name not in self._columns]

        def make() -> sql.Composed:
            where = self._where()
            if unless_same:
                where = sql.SQL("{} AND {}").format(where, _any_other(unless_same, sql.SQL("{} IS DISTINCT FROM %s")))
            values = _list(self._given(name) if name in new else sql.SQL("gone.{}").format(identifier_of(name)) for name in every)
            columns = columns_of(every)
            return sql.SQL(_CARRY).format(held=self._held(), where=where, table=self.identifier, columns=columns, values=values)

        given = (new[name] for name in every if name in new)
        values = (*self._identity(old), *(new[name] for name in unless_same), *given)
        return self._made((self, "carry", tuple(new), unless_same), make), values

    def _delete_if_other(self) -> sql.Composed:
        """Compose the delete of the row under one key, if there is one under another key."""

        def make() -> sql.Composed:
            statement = sql.SQL("DELETE FROM {0} WHERE {1} AND EXISTS (SELECT FROM {0} WHERE {1})")
            return statement.format(self.target, self._where())

        return self._made((self, "delete if other"), make)

    # Which row.

    def _identity(self, old: Mapping[str, Value]) -> tuple[Value, ...]:
        """Return the values that `_where` asks for."""
        return tuple(old[name] for name in self._key or self.names)

    def _held(self) -> sql.Composable:
        """Name the table whose row is looked for."""
        return self.target if self._key or self._by_place else sql.SQL("{} AS held").format(self.target)

    def _where(self) -> sql.Composable:
        if self._key:
            return sql.SQL(" AND ").join(
                sql.SQL("{} = {}").format(identifier_of(name), self._key_value(name)) for name in self._key
            )
        given = _list(sql.SQL("{} AS {}").format(self._given(name, exactly=True), identifier_of(name)) for name in self.names)
        alike = [self._alike(name) for name in self.names if name in self._columns and self._columns[name].is_ordered]
        rows = (_list(identifier_of(side, name) for name in self.names) for side in ("held", "given"))
        # As text, every type can be compared, and 1.0 is not 1.00.
        text = sql.SQL('ROW({})::text COLLATE "C" = ROW({})::text COLLATE "C"').format(*rows)
        same = sql.SQL(" AND ").join([*alike, text])
        if not self._by_place:
            return sql.SQL(_ALL_OF_THEM).format(given=given, same=same)
        partitioned = self._table is not None and self._table.is_partitioned
        place, places = ("(tableoid, ctid)", "held.tableoid, held.ctid") if partitioned else ("ctid", "held.ctid")
        return sql.SQL(_ONE_OF_THEM).format(
            place=sql.SQL(place), places=sql.SQL(places), table=self.target, given=given, same=same
        )

    def _alike(self, name: str) -> sql.Composed:
        """Sort most rows out before they are made a text, by an index if there is one."""
        equal = "held.{0} = given.{0}" if self._columns[name].not_null else "held.{0} IS NOT DISTINCT FROM given.{0}"
        return sql.SQL(equal).format(identifier_of(name))

    def _key_value(self, name: str) -> sql.Composable:
        column = self._columns.get(name)
        return self._given(name) if column is not None and column.is_composite else sql.SQL("%s")

    def _given(self, name: str, *, exactly: bool = False) -> sql.Composable:
        """Cast a parameter to the type of a column; `exactly`: with its length or precision, as it is stored."""
        column = self._columns.get(name)
        if column is None:
            return sql.SQL("%s")
        return sql.SQL("%s::{}").format(_catalogued(column.exact_type if exactly else column.type))


def identifier_of(*names: str) -> sql.Identifier:
    """Name something in a statement that is executed with parameters, if with none of them: a % would be one."""
    return sql.Identifier(*(name.replace("%", "%%") for name in names))


def columns_of(names: Iterable[str]) -> sql.Composed:
    """List columns."""
    return _list(map(identifier_of, names))


def _list(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def _any_other(names: Iterable[str], compared: sql.SQL) -> sql.Composed:
    return sql.SQL("({})").format(sql.SQL(" OR ").join(compared.format(identifier_of(name)) for name in names))


def _catalogued(text: str) -> sql.SQL:
    """Make SQL of what the server itself wrote: the name of a type."""
    return sql.SQL(text.replace("%", "%%"))  # pyright: ignore[reportArgumentType] # the server's own
