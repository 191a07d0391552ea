"""What streams and sinks note for themselves is left out of a stream, change by change, and nothing else is."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from pgoutput_encoder import EPOCH, encode, in_piece

from outlast.changes import (
    Assembler,
    Decoder,
    Delete,
    Insert,
    Transaction,
    TransactionPart,
    Truncate,
    Update,
)
from outlast.changes._decoding.messages import (
    Begin,
    Column,
    Commit,
    Relation,
    ReplicaIdentity,
    StreamCommit,
    StreamStart,
    StreamStop,
)
from outlast.changes._own_tables import OWN_TABLES, OwnTables
from outlast.changes._sinks.postgres import POSITIONS
from outlast.changes._snapshot.progress import RANGES
from outlast.postgres import schema
from outlast.postgres.ownership import _epochs as epochs

AT = EPOCH + timedelta(days=9_000)
THEIRS = Relation(1, "public", "orders", ReplicaIdentity.DEFAULT, (Column("id", 25, -1, is_key=True),))
OURS = Relation(2, "outlast", "change_positions", ReplicaIdentity.DEFAULT, (Column("stream", 25, -1, is_key=True),))


def table(schema: str, name: str, *columns: str) -> Relation:
    return Relation(3, schema, name, ReplicaIdentity.DEFAULT, tuple(Column(each, 25, -1, is_key=False) for each in columns))


def fed(*messages: Any, version: int = 1, sink: object = None, **options: Any) -> list[Any]:
    target = Assembler(Decoder(version, left_out=OwnTables("outlast", sink)), **options)
    return list(target.feed_all(map(encode, messages)))


def insert(relation: Relation, value: str) -> Insert:
    return Insert(relation, (value,) * len(relation.columns))


def test_the_position_that_a_sink_notes_beside_the_rows_is_left_out_of_their_transaction() -> None:
    kept = [insert(THEIRS, "1"), Update(THEIRS, ("2",)), Delete(THEIRS, old_key=("3",))]
    noted = [insert(OURS, "shop"), Update(OURS, ("shop",)), Update(OURS, ("a",), old_key=("b",)), Delete(OURS, old_key=("shop",))]
    mixed = [each for pair in zip(noted, [*kept, insert(THEIRS, "4")], strict=True) for each in pair]
    (unit,) = fed(Begin(100, AT, 7), THEIRS, OURS, *mixed, Commit(100, 110, AT))
    assert unit == Transaction(7, 100, 110, AT, None, (*kept, insert(THEIRS, "4")))


def test_a_transaction_of_nothing_else_does_not_come() -> None:
    ours = [Begin(100, AT, 7), OURS, insert(OURS, "shop"), Truncate((OURS,), cascade=False, restart_identity=False)]
    units = fed(*ours, Commit(100, 110, AT), Begin(200, AT, 8), Commit(200, 210, AT))
    assert [unit.commit_lsn for unit in units] == [200], "one that the server sends empty comes as it is"


def test_of_tables_that_are_emptied_together_the_others_are_told() -> None:
    together = Truncate((OURS, THEIRS), cascade=True, restart_identity=False)
    (unit,) = fed(Begin(100, AT, 7), OURS, THEIRS, together, Commit(100, 110, AT))
    assert unit.changes == (Truncate((THEIRS,), cascade=True, restart_identity=False),)


def test_what_is_left_out_makes_no_part_of_a_large_transaction() -> None:
    rows = [insert(THEIRS, str(number)) for number in range(4)]
    noted = [insert(OURS, "shop")] * 5
    units = fed(Begin(100, AT, 7), OURS, THEIRS, *rows[:2], *noted, *rows[2:], *noted, Commit(100, 110, AT), changes_max=2)
    assert [len(unit.changes) for unit in units] == [2, 2]
    assert [isinstance(unit, TransactionPart) and unit.last for unit in units] == [False, True]


@pytest.mark.parametrize("rows", [0, 1])
def test_it_is_left_out_of_a_transaction_that_was_streamed(rows: int) -> None:
    described = [in_piece(each, 7, each) for each in (OURS, THEIRS)]
    changes = [Insert(each, ("1",), 7) for each in [described[0], *[described[1]] * rows]]
    units = fed(StreamStart(7, first=True), *described, *changes, StreamStop(), StreamCommit(7, 100, 110, AT), version=2)
    assert [[change.relation.name for change in unit.changes] for unit in units] == [["orders"]] * rows


def test_ours_are_known_by_their_schema_and_elsewhere_by_their_columns() -> None:
    class Mirror:
        schema = "mirror"

    own = OwnTables("outlast", Mirror())
    for name, columns in OWN_TABLES.items():
        assert table("outlast", name, "whatever") in own
        assert table("mirror", name) in own
        assert table("another mirror", name, *columns, "and one that came later") in own
        assert table("public", name, *sorted(columns)[1:]) not in own, "somebody else's"
        assert table("outlast", f"{name}_2", *columns) not in own
    for name in ("jobs", "workers", "migrations"):
        assert table("outlast", name, "id") not in own, "what jobs keep is the user's"


def test_ours_are_all_that_are_made_and_have_the_columns_they_are_known_by() -> None:
    made = {}
    migrations = [each for tables in (epochs.TABLES, POSITIONS, RANGES) for each in tables.migrations]
    for statements in (*migrations, schema._CREATE):
        for name, columns in re.findall(
            r"CREATE TABLE (?:IF NOT EXISTS )?\{schema\}\.(\w+) \((.*?)^\)", statements, re.MULTILINE | re.DOTALL
        ):
            made[name] = set(re.findall(r"^    (\w+) ", columns, re.MULTILINE))
    made["epochs"] = made["change_epochs"] - {"stream"} | {"name"}
    assert made.keys() == OWN_TABLES.keys()
    for name, columns in OWN_TABLES.items():
        assert columns <= made[name]


def test_rows_of_other_tables_are_read_in_the_tight_loop_and_ours_never_are() -> None:
    """What the loop does not read is read again with care, so nothing but this and a bench would notice."""
    decoder = Decoder(1, left_out=OwnTables("outlast"))
    for described in (OURS, THEIRS):
        decoder.decode(encode(described))
    plain = [insert(THEIRS, "1"), Update(THEIRS, ("2",)), Update(THEIRS, ("2",), old_key=("3",)), Delete(THEIRS, old_key=("4",))]
    read: list[Any] = []
    assert decoder.decode_rows(map(encode, plain), read, 1_000)[1] is None
    assert read == plain
    for noted in (insert(OURS, "shop"), Update(OURS, ("shop",)), Delete(OURS, old_key=("shop",))):
        assert decoder.decode_rows([encode(noted)], read, 1_000) == (0, encode(noted))
    assert read == plain
