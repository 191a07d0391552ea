"""The statements that carry changes out in tables of PostgreSQL, without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast.changes import UNCHANGED, Column, Delete, Insert, Relation, ReplicaIdentity, Truncate, Update
from outlast.changes.row_statements import STATEMENTS_MAX, RowStatements

if TYPE_CHECKING:
    from outlast.changes import Change

ITEM = Relation(1, "public", "item", ReplicaIdentity.DEFAULT, (Column("id", 20, -1, True), Column("name", 25, -1, False)))
UPSERT = (
    'INSERT INTO "public"."item" ("id", "name") OVERRIDING SYSTEM VALUE VALUES (%s, %s) '
    'ON CONFLICT ("id") DO UPDATE SET "name" = excluded."name"'
)
MOVE = 'UPDATE "public"."item" SET "id" = %s, "name" = %s WHERE "id" = %s'
MAKE_ROOM = 'DELETE FROM "public"."item" WHERE "id" = %s AND EXISTS (SELECT FROM "public"."item" WHERE "id" = %s)'


def row(number: int, name: str = "x") -> Insert:
    return Insert(ITEM, (str(number), name))


def statements(*changes: Change, again: bool = False) -> list[tuple[str, list[tuple[object, ...]]]]:
    return [(statement.as_string(None), rows) for statement, rows in RowStatements().grouped(changes, again=again)]


def test_runs_of_changes_are_one_statement_and_keep_their_order() -> None:
    delete = 'DELETE FROM "public"."item" WHERE "id" = %s'
    assert statements(row(1), row(2), Delete(ITEM, old_key=("1",)), row(1)) == [
        (UPSERT, [("1", "x"), ("2", "x")]),
        (delete, [("1",)]),
        (UPSERT, [("1", "x")]),
    ]


def test_an_update_sets_what_it_was_given_where_the_old_key_stood() -> None:
    assert statements(Update(ITEM, ("1", UNCHANGED))) == [('UPDATE "public"."item" SET "id" = %s WHERE "id" = %s', [("1", "1")])]
    assert statements(Update(ITEM, ("2", "y"), old_key=("1",))) == [(MOVE, [("2", "y", "1")])]


def test_where_later_rows_may_be_there_an_update_of_a_key_makes_room_and_makes_sure() -> None:
    moved = Update(ITEM, ("2", "y"), old_key=("1",))
    assert statements(moved, again=True) == [(MAKE_ROOM, [("2", "1")]), (MOVE, [("2", "y", "1")]), (UPSERT, [("2", "y")])]
    incomplete = Update(ITEM, ("2", UNCHANGED), old_key=("1",))
    assert statements(incomplete, again=True) == [
        (MAKE_ROOM, [("2", "1")]),
        ('UPDATE "public"."item" SET "id" = %s WHERE "id" = %s', [("2", "1")]),
    ]
    assert statements(Update(ITEM, ("1", "y")), again=True) == [(UPSERT, [("1", "y")])]


def test_a_whole_old_row_is_compared_with_its_nulls() -> None:
    full = Relation(2, "public", "log", ReplicaIdentity.FULL, tuple(Column(name, 25, -1, True) for name in ("a", "b")))
    where = '"a" IS NOT DISTINCT FROM %s AND "b" IS NOT DISTINCT FROM %s'
    assert statements(Delete(full, old_row=("x", None))) == [(f'DELETE FROM "public"."log" WHERE {where}', [("x", None)])]
    changed = Update(full, ("y", None), old_row=("x", None))
    expected = [(f'UPDATE "public"."log" SET "a" = %s, "b" = %s WHERE {where}', [("y", None, "x", None)])]
    assert statements(changed) == statements(changed, again=True) == expected


def test_tables_are_emptied_together_under_the_names_they_have_there() -> None:
    rows = RowStatements(lambda relation: ("copy", f"{relation.schema}_{relation.name}"))
    (found,) = rows.grouped([Truncate((ITEM, ITEM), cascade=False, restart_identity=True)])
    assert found[0].as_string(None) == 'TRUNCATE "copy"."public_item", "copy"."public_item" RESTART IDENTITY'


def test_what_is_kept_of_statements_is_bounded() -> None:
    rows = RowStatements()
    for number in range(STATEMENTS_MAX + 10):
        rows.upsert(Relation(number, "public", f"t{number}", ReplicaIdentity.DEFAULT, ITEM.columns))
    assert len(rows._statements) <= STATEMENTS_MAX
