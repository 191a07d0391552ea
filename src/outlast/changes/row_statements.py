"""Which statements carry a change out in a table of PostgreSQL. They are composed once for each table and kind of change."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final, TypeAlias

from psycopg import sql

from outlast.changes.messages import UNCHANGED, Delete, Insert, Relation, ReplicaIdentity, Truncate, Update

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from outlast.changes.messages import Change, Value

    Statement = tuple[sql.Composed, tuple[Value, ...]]

Naming: TypeAlias = "Callable[[Relation], tuple[str, str]]"
STATEMENTS_MAX: Final = 2_000
"""What is kept; beyond it all are composed anew."""
IDENTIFIED: Final = frozenset({ReplicaIdentity.DEFAULT, ReplicaIdentity.INDEX})
"""Such a replica identity is a unique index without NULLs: `=` finds the one row that has it."""


def same_name(relation: Relation) -> tuple[str, str]:
    """Write into the table of the same schema and name."""
    return relation.schema, relation.name


class RowStatements:
    """Statements for the tables that `naming` gives."""

    def __init__(self, naming: Naming = same_name) -> None:
        """Begin with none."""
        self._naming = naming
        self._statements: dict[tuple[object, ...], sql.Composed] = {}

    def grouped(
        self, changes: Iterable[Change], *, again: bool = False
    ) -> Iterable[tuple[sql.Composed, list[tuple[Value, ...]]]]:
        """Give runs of changes that are one statement with many rows; the order stays.

        `again`: the tables may have later rows already, which a snapshot has read.
        """
        made = (statement for change in changes for statement in self._of(change, again=again))
        for _, group in groupby(made, key=lambda pair: id(pair[0])):
            pairs = list(group)
            yield pairs[0][0], [values for _, values in pairs]

    def _of(self, change: Change, *, again: bool) -> Iterable[Statement]:
        match change:
            case Insert():
                yield self.upsert(change.relation), change.new
            case Update():
                yield from self._update(change, again=again)
            case Delete():
                old = change.old_as_dict()
                yield self._delete(change.relation, tuple(old)), tuple(old.values())
            case Truncate():
                tables = sql.SQL(", ").join(self.table(relation) for relation in change.relations)
                restart = sql.SQL(" RESTART IDENTITY" if change.restart_identity else "")
                yield sql.SQL("TRUNCATE {}{}").format(tables, restart), ()
            case _:
                return

    def _update(self, change: Update, *, again: bool) -> Iterable[Statement]:
        relation, old = change.relation, change.old_as_dict()
        new = {name: value for name, value in change.as_dict().items() if value is not UNCHANGED}
        complete = len(new) == len(relation.names)
        keys = {name: old[name] for name in (relation.key_names or tuple(old))}
        same = all(new.get(name) == value for name, value in keys.items())
        identified = bool(relation.key_names) and relation.replica_identity in IDENTIFIED
        if complete and same and identified:
            yield self.upsert(relation), change.new
            return
        moved = again and identified and not same
        if moved:
            # Of two states of one row, under its old key and under its new one, the older takes part in what is repeated.
            values = tuple(new.get(name) for name in keys)
            yield self._delete_if_other(relation, tuple(keys)), (*values, *keys.values())
        yield self._set(relation, tuple(new), tuple(keys)), (*new.values(), *keys.values())
        if moved and complete:
            yield self.upsert(relation), change.new

    def table(self, relation: Relation) -> sql.Identifier:
        """Name the table that `relation` is written to."""
        return sql.Identifier(*self._naming(relation))

    def _made(self, key: tuple[object, ...], make: Callable[[], sql.Composed]) -> sql.Composed:
        """One object for each statement, so that runs of it are found by identity, and no more than some thousands of them."""
        if key not in self._statements:
            if len(self._statements) >= STATEMENTS_MAX:
                self._statements.clear()
            self._statements[key] = make()
        return self._statements[key]

    def upsert(self, relation: Relation) -> sql.Composed:
        """Compose the insert of a whole row, which replaces the one that is there if the replica identity can tell."""
        values = sql.SQL("VALUES ({})").format(_list([sql.Placeholder()] * len(relation.names)))
        return self._made(("upsert", relation), lambda: self._insert(relation, values))

    def upsert_from(self, relation: Relation, table: sql.Identifier) -> sql.Composed:
        """Compose the same for all rows of another table that has the same columns."""
        return self._insert(relation, sql.SQL("SELECT {} FROM {}").format(_columns(relation.names), table))

    def _insert(self, relation: Relation, rows: sql.Composed) -> sql.Composed:
        insert = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE {}").format(
            self.table(relation), _columns(relation.names), rows
        )
        if not relation.key_names or relation.replica_identity is ReplicaIdentity.FULL:
            return insert
        rest = [sql.Identifier(name) for name in relation.names if name not in relation.key_names]
        sets = [sql.SQL("{0} = excluded.{0}").format(name) for name in rest]
        action = sql.SQL("UPDATE SET {}").format(_list(sets)) if sets else sql.SQL("NOTHING")
        return sql.SQL("{} ON CONFLICT ({}) DO {}").format(insert, _columns(relation.key_names), action)

    def _set(self, relation: Relation, names: tuple[str, ...], keys: tuple[str, ...]) -> sql.Composed:
        def make() -> sql.Composed:
            sets = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder()) for name in names]
            return sql.SQL("UPDATE {} SET {} WHERE {}").format(self.table(relation), _list(sets), _where(relation, keys))

        return self._made(("set", relation, names, keys), make)

    def _delete_if_other(self, relation: Relation, keys: tuple[str, ...]) -> sql.Composed:
        """Of the row under one key, if there is one under another key."""

        def make() -> sql.Composed:
            where = _where(relation, keys)
            statement = sql.SQL("DELETE FROM {0} WHERE {1} AND EXISTS (SELECT FROM {0} WHERE {1})")
            return statement.format(self.table(relation), where)

        return self._made(("delete if other", relation, keys), make)

    def _delete(self, relation: Relation, keys: tuple[str, ...]) -> sql.Composed:
        return self._made(
            ("delete", relation, keys),
            lambda: sql.SQL("DELETE FROM {} WHERE {}").format(self.table(relation), _where(relation, keys)),
        )


def _list(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def _columns(names: Iterable[str]) -> sql.Composed:
    return _list(map(sql.Identifier, names))


def _where(relation: Relation, keys: tuple[str, ...]) -> sql.Composed:
    equal = sql.SQL("{} = {}" if relation.replica_identity in IDENTIFIED else "{} IS NOT DISTINCT FROM {}")
    return sql.SQL(" AND ").join(equal.format(sql.Identifier(name), sql.Placeholder()) for name in keys)
