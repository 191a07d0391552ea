"""The statements that carry changes out in tables of PostgreSQL, composed once for each table and kind of change."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final, TypeAlias

from psycopg import sql

from outlast.changes._decoding.messages import Delete, Insert, Relation, Truncate, Update
from outlast.changes._sinks.table_statements import TableStatements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from outlast.changes._decoding.messages import Change, Value
    from outlast.changes._sinks.table_statements import Statement
    from outlast.changes._sinks.tables import Name, SinkTable

Naming: TypeAlias = "Callable[[Relation], tuple[str, str]]"
STATEMENTS_MAX: Final = 2_000
"""The statements that are kept, and the tables that they are for; beyond it all are composed again."""


def same_name(relation: Relation) -> tuple[str, str]:
    """Write into the table of the same schema and name."""
    return relation.schema, relation.name


class RowStatements:
    """Statements for the tables that `naming` returns, as `learn` recorded them."""

    def __init__(self, naming: Naming = same_name) -> None:
        self.naming = naming
        self._seen: dict[Name, SinkTable | None] = {}
        """Of one session, so no more than its decoder knows."""
        self._tables: dict[int, TableStatements] = {}
        """By the identity of the relation, which they hold: to compare what describes a table costs more than all the rest."""
        self._statements: dict[tuple[object, ...], sql.Composed] = {}

    def learn(self, names: Iterable[Name], tables: Mapping[Name, SinkTable]) -> None:
        """Record what tables of the sink are like, before they are written to; one that is not in `tables` is not there."""
        self._seen.update((name, tables.get(name)) for name in names)

    def forget(self) -> None:
        """Forget all tables and their statements."""
        for each in (self._seen, self._tables, self._statements):
            each.clear()

    def seen(self, names: Iterable[Name]) -> dict[Name, SinkTable | None]:
        """Return what `learn` recorded of these; None: it was not there."""
        return {name: self._seen.get(name) for name in names}

    def unknown(self, names: Iterable[Name]) -> list[Name]:
        """Return those that `learn` has no record of."""
        return [name for name in names if name not in self._seen]

    def names(self, changes: Iterable[Change]) -> set[Name]:
        """Return the tables of the sink that changes are written to."""
        relations: dict[int, Relation] = {}
        last: Relation | None = None
        for change in changes:
            if isinstance(change, Insert | Update | Delete):
                if change.relation is not last:
                    last = change.relation
                    relations[id(last)] = last
            elif isinstance(change, Truncate):
                relations.update((id(relation), relation) for relation in change.relations)
        return set(map(self.naming, relations.values()))

    def grouped(
        self, changes: Iterable[Change], *, again: bool = False
    ) -> Iterable[tuple[sql.Composed, list[tuple[Value, ...]]]]:
        """Yield runs of changes that are one statement with many rows; the order stays.

        `again`: the tables may have later rows already, which a snapshot has read.
        """
        made = (statement for change in changes for statement in self._of(change, again=again))
        for _, group in groupby(made, key=lambda pair: id(pair[0])):
            pairs = list(group)
            yield pairs[0][0], [values for _, values in pairs]

    def _of(self, change: Change, *, again: bool) -> Iterable[Statement]:
        match change:
            case Insert():
                return self.table(change.relation).insert(change.new)
            case Update():
                return self.table(change.relation).update(change, again=again)
            case Delete():
                return self.table(change.relation).delete(change)
            case Truncate():
                tables = sql.SQL(", ").join(self.table(relation).target for relation in change.relations)
                restart = sql.SQL(" RESTART IDENTITY" if change.restart_identity else "")
                return ((sql.SQL("TRUNCATE {}{}").format(tables, restart), ()),)
            case _:
                return ()

    def table(self, relation: Relation) -> TableStatements:
        """Return the statements for one table."""
        found = self._tables.get(id(relation))
        if found is None:
            if len(self._tables) >= STATEMENTS_MAX:
                self._tables.clear()
                self._statements.clear()
            name = self.naming(relation)
            found = self._tables[id(relation)] = TableStatements(relation, name, self._seen.get(name), self._made)
        return found

    def _made(self, key: tuple[object, ...], make: Callable[[], sql.Composed]) -> sql.Composed:
        """Return one object for each statement, so that runs of it are found by identity, and keep some thousands at most."""
        found = self._statements.get(key)
        if found is None:
            if len(self._statements) >= STATEMENTS_MAX:
                self._statements.clear()
            found = self._statements[key] = make()
        return found
