"""The statements that carry changes out in tables of PostgreSQL, without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from outlast.changes import UNCHANGED, Column, Delete, Insert, Message, Relation, ReplicaIdentity, Truncate, Update
from outlast.changes._sinks.row_statements import STATEMENTS_MAX, RowStatements
from outlast.changes._sinks.tables import SinkColumn, SinkTable
from outlast.changes._snapshot.copy_text import without

if TYPE_CHECKING:
    from outlast.changes import Change

ITEM = Relation(1, "public", "item", ReplicaIdentity.DEFAULT, (Column("id", 20, -1, True), Column("name", 25, -1, False)))
LOG = Relation(2, "public", "log", ReplicaIdentity.FULL, tuple(Column(name, 25, -1, True) for name in ("a", "b")))
ID = SinkColumn("id", "bigint", "bigint", is_ordered=True, not_null=True)
ALWAYS = SinkColumn("id", "bigint", "bigint", is_ordered=True, not_null=True, is_always_identity=True)
NAME = SinkColumn("name", "text", "text", is_ordered=True)
UPSERT = (
    'INSERT INTO "public"."item" ("id", "name") OVERRIDING SYSTEM VALUE VALUES (%s, %s) '
    'ON CONFLICT ("id") DO UPDATE SET "name" = excluded."name"'
)
MOVE = 'UPDATE ONLY "public"."item" SET "id" = %s, "name" = %s WHERE "id" = %s'
DELETE = 'DELETE FROM ONLY "public"."item" WHERE "id" = %s'
MAKE_ROOM = f'{DELETE} AND EXISTS (SELECT FROM ONLY "public"."item" WHERE "id" = %s)'


def row(number: int, name: str = "x") -> Insert:
    return Insert(ITEM, (str(number), name))


def table(*columns: SinkColumn, key: tuple[str, ...] = (), kind: str = "r") -> SinkTable:
    return SinkTable(kind, columns, (key,) if key else ())


def statements(
    *changes: Change, again: bool = False, like: SinkTable | None = None
) -> list[tuple[str, list[tuple[object, ...]]]]:
    rows = RowStatements()
    names = rows.names(changes)
    rows.learn(names, {} if like is None else dict.fromkeys(names, like))
    return [(statement.as_string(None), values) for statement, values in rows.grouped(changes, again=again)]


def test_runs_of_changes_are_one_statement_and_keep_their_order() -> None:
    assert statements(row(1), row(2), Delete(ITEM, old_key=("1",)), row(1)) == [
        (UPSERT, [("1", "x"), ("2", "x")]),
        (DELETE, [("1",)]),
        (UPSERT, [("1", "x")]),
    ]


def test_an_update_sets_what_changed_where_the_old_key_stood() -> None:
    assert statements(Update(ITEM, ("1", UNCHANGED))) == [], "of one that only left things alone nothing is left"
    assert statements(Update(ITEM, ("2", "y"), old_key=("1",))) == [(MOVE, [("2", "y", "1")])]
    wide = Relation(3, "public", "wide", ReplicaIdentity.DEFAULT, (*ITEM.columns, Column("body", 25, -1, False)))
    assert statements(Update(wide, ("1", "y", UNCHANGED))) == [
        ('UPDATE ONLY "public"."wide" SET "name" = %s WHERE "id" = %s', [("y", "1")])
    ]


def test_where_later_rows_may_be_there_an_update_of_a_key_makes_room_and_makes_sure() -> None:
    moved = Update(ITEM, ("2", "y"), old_key=("1",))
    assert statements(moved, again=True) == [(MAKE_ROOM, [("2", "1")]), (MOVE, [("2", "y", "1")]), (UPSERT, [("2", "y")])]
    incomplete = Update(ITEM, ("2", UNCHANGED), old_key=("1",))
    assert statements(incomplete, again=True) == [
        (MAKE_ROOM, [("2", "1")]),
        ('UPDATE ONLY "public"."item" SET "id" = %s WHERE "id" = %s', [("2", "1")]),
    ]
    assert statements(Update(ITEM, ("1", "y")), again=True) == [(UPSERT, [("1", "y")])]


def test_a_large_part_of_a_key_that_was_left_alone_is_the_old_one() -> None:
    """The server sends the old key then, although it may not have changed."""
    pair = Relation(4, "public", "pair", ReplicaIdentity.DEFAULT, (Column("a", 25, -1, True), Column("b", 25, -1, True)))
    moved = Update(pair, (UNCHANGED, "2"), old_key=("large", "1"))
    make_room, move = statements(moved, again=True)
    assert make_room[1] == [("large", "2", "large", "1")]
    assert move == ('UPDATE ONLY "public"."pair" SET "b" = %s WHERE "a" = %s AND "b" = %s', [("2", "large", "1")])
    assert statements(Update(pair, (UNCHANGED, "1"), old_key=("large", "1")), again=True) == []


def test_without_a_key_one_row_that_looks_the_same_is_meant() -> None:
    like = table(SinkColumn("a", "bpchar", "character(3)", is_ordered=True, not_null=True), SinkColumn("b", "json", "json"))
    where = (
        'ctid = (SELECT held.ctid FROM ONLY "public"."log" AS held, (SELECT %s::character(3) AS "a", %s::json AS "b") AS given '
        'WHERE held."a" = given."a" AND ROW("held"."a", "held"."b")::text COLLATE "C" = ROW("given"."a", "given"."b")::text '
        'COLLATE "C" LIMIT 1)'
    )
    deleted = Delete(LOG, old_row=("x", None))
    assert statements(deleted, like=like) == [(f'DELETE FROM ONLY "public"."log" WHERE {where}', [("x", None)])]
    changed = Update(LOG, ("y", None), old_row=("x", None))
    expected = [(f'UPDATE ONLY "public"."log" SET "a" = %s WHERE {where}', [("y", "x", None)])]
    assert statements(changed, like=like) == statements(changed, again=True, like=like) == expected
    ((found, _),) = statements(deleted, like=table(*like.columns, kind="p"))
    assert found.startswith(
        'DELETE FROM "public"."log" WHERE (tableoid, ctid) = (SELECT held.tableoid, held.ctid FROM "public"."log"'
    )
    ((found, _),) = statements(deleted, like=table(*like.columns, kind="v"))
    assert found.startswith('DELETE FROM ONLY "public"."log" AS held WHERE EXISTS (SELECT FROM (SELECT %s::character(3) AS "a"')


def test_a_whole_old_row_is_found_by_a_key_of_the_sink() -> None:
    like = table(SinkColumn("a", "pair", "pair", is_composite=True, not_null=True), NAME, key=("a",))
    where = 'WHERE "a" = %s::pair'
    assert statements(Delete(LOG, old_row=("x", "1")), like=like) == [(f'DELETE FROM ONLY "public"."log" {where}', [("x",)])]
    changed = Update(LOG, ("y", "1"), old_row=("x", "1"))
    assert statements(changed, like=like) == [(f'UPDATE ONLY "public"."log" SET "a" = %s {where}', [("y", "x")])]
    assert statements(Update(LOG, ("x", "1"), old_row=("x", "1")), like=like) == []
    ((found, _),) = statements(Delete(LOG, old_row=("x", "1")), like=table(NAME, key=("id",)))
    assert "ctid" in found, "a key of columns that are not published says nothing"


def test_what_the_sink_generates_takes_no_value() -> None:
    like = table(ID, SinkColumn("name", "text", "text", is_generated=True), key=("id",))
    insert = 'INSERT INTO "public"."item" ("id") OVERRIDING SYSTEM VALUE VALUES (%s) ON CONFLICT ("id") DO NOTHING'
    assert statements(row(1), Update(ITEM, ("1", "y")), like=like) == [(insert, [("1",), ("1",)])]
    moved = Update(ITEM, ("2", "y"), old_key=("1",))
    assert statements(moved, like=like) == [('UPDATE ONLY "public"."item" SET "id" = %s WHERE "id" = %s', [("2", "1")])]
    assert list(without((b"1\ta\\tb\tz\n", b"\\N\t\t\\\\\n"), (1,))) == [b"1\tz\n", b"\\N\t\\\\\n"]
    assert list(without((b"1\ta\n",), ())) == [b"1\ta\n"]


def test_a_key_that_cannot_be_set_is_a_delete_and_an_insert_of_all_that_is_known() -> None:
    like = table(ALWAYS, NAME, SinkColumn("own", "text", "text"), key=("id",))
    carry = (
        f'WITH gone AS ({DELETE} RETURNING *) INSERT INTO "public"."item" ("id", "name", "own") OVERRIDING SYSTEM VALUE '
        'SELECT %s::bigint, {}, gone."own" FROM gone'
    )
    moved = Update(ITEM, ("2", UNCHANGED), old_key=("1",))
    assert statements(moved, like=like) == [(carry.format('gone."name"'), [("1", "2")])]
    assert statements(moved._replace(new=("2", "y")), like=like) == [(carry.format("%s::text"), [("1", "2", "y")])]
    assert statements(row(1), Update(ITEM, ("1", "y")), like=like) == [(UPSERT, [("1", "x"), ("1", "y")])]
    again = statements(moved._replace(new=("2", "y")), like=like, again=True)
    assert [values for _, values in again] == [[("2", "1")], [("1", "2", "y")], [("2", "y")]]
    ((found, values),) = statements(moved._replace(new=("2", "y")), like=table(ALWAYS, key=("id",)))
    assert '("id", "name") OVERRIDING' in found, "what the sink does not have is refused there, and not left out here"
    assert values == [("1", "2", "y")]


def test_another_column_that_cannot_be_set_makes_a_new_row_where_it_differs() -> None:
    numbered = Relation(5, "public", "item", ReplicaIdentity.DEFAULT, (*ITEM.columns, Column("n", 20, -1, False)))
    like = table(ID, NAME, SinkColumn("n", "bigint", "bigint", is_always_identity=True), key=("id",))
    carry = (
        'WITH gone AS (DELETE FROM ONLY "public"."item" WHERE "id" = %s AND ("n" IS DISTINCT FROM %s) RETURNING *) '
        'INSERT INTO "public"."item" ("id", "name", "n") OVERRIDING SYSTEM VALUE SELECT {}, {}, %s::bigint FROM gone'
    )
    upsert = UPSERT.replace('"name") O', '"name", "n") O').replace("VALUES (%s", "VALUES (%s, %s")
    assert statements(Update(numbered, ("1", "x", "7")), like=like) == [
        (carry.format("%s::bigint", "%s::text"), [("1", "7", "1", "x", "7")]),
        (upsert, [("1", "x", "7")]),
    ]
    assert statements(Update(numbered, ("1", UNCHANGED, "7")), like=like) == [
        (carry.format('gone."id"', 'gone."name"'), [("1", "7", "7")])
    ]
    assert statements(Update(numbered, ("2", UNCHANGED, "7"), old_key=("1",)), like=like) == [
        (carry.format("%s::bigint", 'gone."name"'), [("1", "7", "2", "7")]),
        ('UPDATE ONLY "public"."item" SET "id" = %s WHERE "id" = %s', [("2", "1")]),
    ]


def test_tables_are_emptied_together_under_the_names_they_have_there() -> None:
    rows = RowStatements(lambda relation: ("copy", f"{relation.schema}_{relation.name}"))
    truncate = Truncate((ITEM, LOG), cascade=True, restart_identity=True)
    assert rows.names([truncate]) == {("copy", "public_item"), ("copy", "public_log")}
    rows.learn([("copy", "public_item"), ("copy", "public_log")], {("copy", "public_log"): table(kind="p")})
    (found,) = rows.grouped([truncate])
    assert found[0].as_string(None) == 'TRUNCATE ONLY "copy"."public_item", "copy"."public_log" RESTART IDENTITY'


def test_what_is_asked_about_is_asked_once() -> None:
    rows = RowStatements()
    changes = [row(1), Message(True, 1, "p", b""), Delete(LOG, old_row=("x", "1")), Update(ITEM, ("1", "y"))]
    names = rows.names(changes)
    assert names == {("public", "item"), ("public", "log")}
    assert set(rows.unknown(names)) == names
    rows.learn(names, {("public", "item"): table(ID)})
    assert rows.unknown(names) == []
    assert rows.seen(names) == {("public", "item"): table(ID), ("public", "log"): None}
    rows.forget()
    assert set(rows.unknown(names)) == names


@pytest.mark.parametrize("odd", ["50%", "%s", '"'])
def test_names_may_have_any_character(odd: str) -> None:
    relation = Relation(6, "public", odd, ReplicaIdentity.DEFAULT, (Column(odd, 20, -1, True),))
    ((found, _),) = statements(Delete(relation, old_key=("1",)))
    quoted = '"' + odd.replace('"', '""').replace("%", "%%") + '"'
    assert found == f'DELETE FROM ONLY "public".{quoted} WHERE {quoted} = %s'


def test_what_is_kept_of_statements_is_bounded() -> None:
    rows = RowStatements()
    for number in range(STATEMENTS_MAX + 10):
        relation = Relation(number, "public", f"t{number}", ReplicaIdentity.DEFAULT, ITEM.columns)
        assert len(list(rows.grouped([Delete(relation, old_key=("1",))]))) == 1
    assert len(rows._statements) <= STATEMENTS_MAX
    assert len(rows._tables) <= STATEMENTS_MAX
