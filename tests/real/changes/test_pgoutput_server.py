"""The decoder against a real server: every kind of message, read with the SQL function, so without a replication connection.

`python tests/real/changes/test_pgoutput_server.py DIRECTORY` captures the corpus of the unit tests from the server it finds.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from outlast.changes import (
    UNCHANGED,
    Assembler,
    Decoder,
    Delete,
    FileSpool,
    Insert,
    Interval,
    Message,
    PgOutputError,
    Transaction,
    TransactionPart,
    Truncate,
    Update,
)
from outlast.changes._decoding.messages import (
    Begin,
    Commit,
    Origin,
    Relation,
    ReplicaIdentity,
    StreamAbort,
    StreamCommit,
    StreamStart,
    Type,
)
from outlast.testing import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = {"wal_level": "logical", "max_replication_slots": "10", "max_wal_senders": "10", "max_prepared_transactions": "10"}


class Source:
    """A database whose changes are read through a slot."""

    def __init__(self, server: PostgresServer, *, two_phase: bool = False) -> None:
        self.server = server
        self.conn = self.connect()
        self.version = self.conn.info.server_version // 10_000
        self.sql("DROP SCHEMA IF EXISTS public CASCADE", "CREATE SCHEMA public", "CREATE PUBLICATION pub FOR ALL TABLES")
        self.sql(f"SELECT pg_create_logical_replication_slot('pgoutput_test', 'pgoutput', false, {two_phase})")
        # The smallest there is: whatever is larger is streamed.
        self.sql("SET logical_decoding_work_mem = '64kB'")

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.server.dsn(), autocommit=True)

    def sql(self, *statements: str) -> None:
        for statement in statements:
            self.conn.execute(statement.encode())

    def transaction(self, *statements: str) -> None:
        self.sql("BEGIN", *statements, "COMMIT")

    def payloads(self, version: int = 1, **options: str) -> list[bytes]:
        given = {"proto_version": str(version), "publication_names": "pub", **options}
        name = "pg_logical_slot_get_binary_changes"
        pairs = ", ".join(f"'{key}', '{value}'" for key, value in given.items())
        return [
            bytes(data)
            for (data,) in self.conn.execute(f"SELECT data FROM {name}('pgoutput_test', NULL, NULL, {pairs})".encode())
        ]

    def messages(self, version: int = 1, *, typed: bool = False, **options: str) -> list[Any]:
        decoder = Decoder(version, typed=typed)
        return [decoder.decode(payload) for payload in self.payloads(version, **options)]

    def changes(self, version: int = 1, **options: Any) -> list[Any]:
        return [said for said in self.messages(version, **options) if isinstance(said, Insert | Update | Delete | Truncate)]

    def remove(self) -> None:
        self.sql(
            "SELECT pg_drop_replication_slot('pgoutput_test')",
            "DROP PUBLICATION pub",
            "SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin",
        )
        self.conn.close()


@pytest.fixture(scope="module")
def logical_server() -> Iterator[PostgresServer]:
    with PostgresServer(settings=SETTINGS) as server:
        yield server


@pytest.fixture
def source(logical_server: PostgresServer) -> Iterator[Source]:
    opened = Source(logical_server)
    yield opened
    opened.remove()


@pytest.fixture
def two_phase_source(logical_server: PostgresServer) -> Iterator[Source]:
    opened = Source(logical_server, two_phase=True)
    yield opened
    opened.remove()


@pytest.mark.short
def test_a_transaction_from_begin_to_commit(source: Source) -> None:
    source.sql("CREATE TABLE item (id int PRIMARY KEY, name text)")
    source.transaction("INSERT INTO item VALUES (1, 'a'), (2, NULL)")
    begin, relation, first, second, commit = source.messages()[-5:]
    assert isinstance(begin, Begin)
    assert isinstance(commit, Commit)
    assert (begin.final_lsn, begin.commit_at) == (commit.lsn, commit.commit_at)
    assert commit.end_lsn > commit.lsn
    (now,) = source.conn.execute("SELECT now()").fetchone() or ()
    assert 0 <= (now - begin.commit_at).total_seconds() < 60
    assert isinstance(relation, Relation)
    assert (relation.qualified_name, relation.names, relation.key_names) == ("public.item", ("id", "name"), ("id",))
    assert [first, second] == [Insert(relation, ("1", "a")), Insert(relation, ("2", None))]


def test_updates_and_deletes_with_the_primary_key(source: Source) -> None:
    source.sql("CREATE TABLE item (name text, a int, b int, PRIMARY KEY (b, a))", "INSERT INTO item VALUES ('x', 1, 2)")
    source.sql("UPDATE item SET name = 'y'", "UPDATE item SET a = 5", "DELETE FROM item")
    _, same, moved, gone = source.changes()
    assert (same.new, same.old_key, same.old_row) == (("y", "1", "2"), None, None)
    assert same.old_as_dict() == {"a": "1", "b": "2"}
    assert (moved.new, moved.old_key) == (("y", "5", "2"), ("1", "2"))
    assert moved.old_as_dict() == {"a": "1", "b": "2"}
    assert (gone.old_key, gone.old_row) == (("5", "2"), None)
    assert gone.old_as_dict() == {"a": "5", "b": "2"}


def test_the_whole_old_row(source: Source) -> None:
    source.sql("CREATE TABLE item (id int, name text)", "ALTER TABLE item REPLICA IDENTITY FULL")
    source.sql("INSERT INTO item VALUES (1, NULL)", "UPDATE item SET name = 'y'", "DELETE FROM item")
    inserted, changed, gone = source.changes()
    assert inserted.relation.replica_identity is ReplicaIdentity.FULL
    assert (changed.old_key, changed.old_row, changed.new) == (None, ("1", None), ("1", "y"))
    assert gone.old_row == ("1", "y")


def test_an_index_as_identity_and_none_at_all(source: Source) -> None:
    source.sql("CREATE TABLE item (id int, code text NOT NULL UNIQUE)", "CREATE TABLE note (id int)")
    source.sql("ALTER TABLE item REPLICA IDENTITY USING INDEX item_code_key", "ALTER TABLE note REPLICA IDENTITY NOTHING")
    source.sql(
        "INSERT INTO item VALUES (1, 'a')", "UPDATE item SET code = 'b'", "DELETE FROM item", "INSERT INTO note VALUES (1)"
    )
    _, changed, gone, note = source.changes()
    assert changed.relation.replica_identity is ReplicaIdentity.INDEX
    assert (changed.relation.key_names, changed.old_key, gone.old_key) == (("code",), ("a",), ("b",))
    assert (note.relation.replica_identity, note.relation.key_names) == (ReplicaIdentity.NOTHING, ())
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        source.sql("UPDATE note SET id = 2")


def test_truncates(source: Source) -> None:
    source.sql("CREATE TABLE a (id int)", "CREATE TABLE b (id int PRIMARY KEY)", "CREATE TABLE c (id int REFERENCES b)")
    source.sql("TRUNCATE a, b RESTART IDENTITY CASCADE", "TRUNCATE a")
    everything, one = source.changes()
    assert {relation.name for relation in everything.relations} == {"a", "b", "c"}
    assert (everything.cascade, everything.restart_identity) == (True, True)
    assert [relation.name for relation in one.relations] == ["a"]
    assert (one.cascade, one.restart_identity) == (False, False)


def test_large_values_left_alone_are_marked_never_invented(source: Source) -> None:
    large = "7" * 10_000
    source.sql("CREATE TABLE item (id int PRIMARY KEY, body text, n int)", "ALTER TABLE item ALTER body SET STORAGE EXTERNAL")
    source.sql(f"INSERT INTO item VALUES (1, '{large}', 0)", "UPDATE item SET n = 1", "ALTER TABLE item REPLICA IDENTITY FULL")
    source.sql("UPDATE item SET n = 2")
    inserted, changed, full = source.changes()
    assert inserted.new == ("1", large, "0")
    assert changed.new == ("1", UNCHANGED, "1")
    assert full.new[1] is UNCHANGED or full.new[1] == large
    assert full.old_row == ("1", large, "1")


TYPES: dict[str, list[str]] = {
    "boolean": ["true", "false"],
    "smallint": ["-32768"],
    "integer": ["2147483647"],
    "bigint": ["-9223372036854775808"],
    "oid": ["4294967295"],
    "real": ["1.5", "'NaN'", "'Infinity'", "1e-10"],
    "double precision": ["0.1", "'-Infinity'", "1e300"],
    "numeric": [
        *("0", "0.00", "1.500", "-12345678.000100", "10000", "1e40", "1e-20", "-0.00012", "'NaN'", "9999.9999", "100000000.5"),
        *("'Infinity'", "'-Infinity'", "12340000"),
    ],
    "numeric(10,2)": ["12.30"],
    "bytea": ["'\\x00ff'", "''"],
    "date": ["'2026-11-21'", "'0001-01-01'", "'9999-12-31'", "'infinity'", "'-infinity'", "'0044-03-15 BC'", "'12026-01-01'"],
    "time": ["'04:05:06.789'", "'24:00'", "'00:00'"],
    "timetz": ["'04:05:06+05:30'", "'04:05:06.5-08'"],
    "timestamp": ["'2026-11-21 04:05:06.789'", "'infinity'", "'0044-03-15 BC'", "'1999-12-31 23:59:59.999999'", "'12026-01-01'"],
    "timestamptz": ["'2026-11-21 04:05:06.789+02'", "'-infinity'", "'0044-03-15 BC'"],
    "interval": [
        *("'1 year 2 mons 3 days 04:05:06.789'", "'-1 mons'", "'1 day -00:00:00.5'", "'0'", "'-1 year -2 mons +3 days 04:05'"),
        *("'100000 hours'", "'-13 months'"),
    ],
    "uuid": ["'12345678-1234-5678-1234-567812345678'"],
    "json": ["'{\"a\": [1, null]}'"],
    "jsonb": ["'{\"a\": [1, null]}'"],
    "text": ["'né'", "''"],
    "varchar(10)": ["'x'"],
    "integer[]": ["'{1,NULL,3}'", "'{}'", "'{{1,2},{3,4}}'", "'[0:1]={1,2}'"],
    "text[]": [r"""'{a,"b c","NULL","",NULL,"q\"\\,{}"}'"""],
    "numeric[]": ["'{1.50,NaN}'"],
    "boolean[]": ["'{t,f}'"],
    "bytea[]": [r"""'{"\\x00ff"}'"""],
    "timestamptz[]": ["'{\"2026-11-21 04:05:06+00\"}'"],
    "date[]": ["'{2026-11-21}'"],
    "interval[]": ['\'{"1 mon","02:00:00"}\''],
    "uuid[]": ["'{12345678-1234-5678-1234-567812345678}'"],
    "jsonb[]": [r"""'{"{\"a\": 1}"}'"""],
}


def test_values_are_as_the_driver_has_them(source: Source) -> None:
    cases = [(kind, value) for kind, values in TYPES.items() for value in values]
    for number, (kind, value) in enumerate(cases):
        source.sql(f"CREATE TABLE t{number} (v {kind})", f"INSERT INTO t{number} VALUES (CAST({value} AS {kind}))")
    changes = source.changes(typed=True)
    assert len(changes) == len(cases)
    for number, (case, change) in enumerate(zip(cases, changes, strict=True)):
        ours = change.new[0]
        if "interval" in case[0] or "json" in case[0] or isinstance(ours, str):
            continue
        (theirs,) = source.conn.execute(f"SELECT v FROM t{number}".encode()).fetchone() or ()
        assert str(theirs) == str(ours) or theirs == ours, case
    intervals = [change.new[0] for case, change in zip(cases, changes, strict=True) if case[0] == "interval"]
    assert intervals[0] == Interval(14, 3, 14_706_789_000)
    assert intervals[4] == Interval(-14, 3, 14_700_000_000)


def test_a_value_in_binary_form_is_refused(source: Source) -> None:
    source.sql("CREATE TABLE item (id int)", "INSERT INTO item VALUES (1)")
    with pytest.raises(PgOutputError, match="column id came in binary form; start the stream without the option binary"):
        source.changes(binary="true")


def test_types_that_are_not_built_in_are_named(source: Source) -> None:
    source.sql("CREATE TYPE mood AS ENUM ('sad', 'happy')", "CREATE TABLE item (m mood)", "INSERT INTO item VALUES ('happy')")
    messages = source.messages()
    (kind,) = [said for said in messages if isinstance(said, Type)]
    (relation,) = [said for said in messages if isinstance(said, Relation)]
    assert (kind.schema, kind.name, kind.oid) == ("public", "mood", relation.columns[0].type_oid)


def test_a_table_that_changes_in_the_middle(source: Source) -> None:
    source.sql("CREATE TABLE item (id int)", "INSERT INTO item VALUES (1)")
    source.transaction(
        "INSERT INTO item VALUES (2)",
        "ALTER TABLE item ADD COLUMN name text DEFAULT 'd'",
        "INSERT INTO item VALUES (3, 'x')",
        "ALTER TABLE item DROP COLUMN id",
        "INSERT INTO item VALUES ('y')",
    )
    source.sql("ALTER TABLE item RENAME TO thing", "INSERT INTO thing VALUES ('z')")
    assert [change.as_dict() for change in source.changes()] == [
        {"id": "1"},
        {"id": "2"},
        {"id": "3", "name": "x"},
        {"name": "y"},
        {"name": "z"},
    ]


def test_origins_and_logical_messages(source: Source) -> None:
    source.sql("CREATE TABLE item (id int)", "SELECT pg_replication_origin_create('elsewhere')")
    source.sql("SELECT pg_replication_origin_session_setup('elsewhere')")
    source.transaction("SELECT pg_replication_origin_xact_setup('0/ABCD', now())", "INSERT INTO item VALUES (1)")
    source.sql("SELECT pg_replication_origin_session_reset()")
    source.transaction(
        "SELECT pg_logical_emit_message(true, 'pre', 'né'::text)",
        r"SELECT pg_logical_emit_message(false, 'now', '\x00ff'::bytea)",
    )
    messages = source.messages(messages="true")
    assert [said for said in messages if isinstance(said, Origin)] == [Origin(0xABCD, "elsewhere")]
    said = {said.prefix: said for said in messages if isinstance(said, Message)}
    assert (said["pre"].transactional, said["pre"].content) == (True, "né".encode())
    assert (said["now"].transactional, said["now"].content) == (False, b"\x00\xff")


def stream(source: Source) -> None:
    """Two transactions streamed at the same time, with subtransactions rolled back, nested ones too, and one that is aborted."""
    source.sql("CREATE TABLE item (id int PRIMARY KEY, who text)")
    fill = "INSERT INTO item SELECT n, '{who}' || repeat('x', 50) FROM generate_series({first}, {last}) n"
    one, two, three = source.connect(), source.connect(), source.connect()

    def run(conn: psycopg.Connection[Any], *statements: str) -> None:
        for statement in statements:
            conn.execute(statement.encode())

    run(one, "BEGIN", fill.format(who="one", first=1, last=3_000))
    run(two, "BEGIN", fill.format(who="two", first=10_001, last=12_000))
    run(three, "BEGIN", fill.format(who="three", first=50_001, last=52_000))
    run(one, "SAVEPOINT a", fill.format(who="a", first=3_001, last=5_000), "SAVEPOINT b")
    run(one, fill.format(who="b", first=5_001, last=7_000), "ROLLBACK TO b", fill.format(who="c", first=7_001, last=7_100))
    run(
        two,
        "SAVEPOINT a",
        fill.format(who="kept", first=12_001, last=14_000),
        "RELEASE a",
        "UPDATE item SET who = 'u' WHERE id = 10001",
    )
    run(one, "ROLLBACK TO a", fill.format(who="d", first=7_201, last=9_000), "DELETE FROM item WHERE id < 11")
    run(three, "ROLLBACK")
    run(source.conn, "INSERT INTO item VALUES (99999, 'small')")
    run(one, "COMMIT")
    run(two, "COMMIT")
    for conn in (one, two, three):
        conn.close()


@pytest.mark.parametrize("version", [1, 2])
def test_streamed_transactions_become_what_the_table_has(source: Source, version: int, tmp_path: Path) -> None:
    stream(source)
    options = {"streaming": "on"} if version > 1 else {}
    payloads = source.payloads(version, **options)
    decoder = Decoder(version)
    kinds = {type(decoder.decode(payload)) for payload in payloads}
    if version > 1:
        assert {StreamStart, StreamCommit, StreamAbort} <= kinds
    spool = FileSpool(tmp_path)
    assembler = Assembler(Decoder(version), spool=spool, changes_max=500)
    table: dict[str, str] = {}
    ends: list[int] = []
    for payload in payloads:
        for unit in assembler.feed(payload):
            assert isinstance(unit, Transaction | TransactionPart)
            assert len(unit.changes) <= 500
            ends.extend([unit.end_lsn] if unit.end_lsn is not None else [])
            for change in unit.changes:
                match change:
                    case Insert(_, (key, who)):
                        assert key not in table
                        table[str(key)] = str(who)
                    case Update(_, (key, who)):
                        table[str(key)] = str(who)
                    case Delete(_, (key,)):
                        del table[str(key)]
                    case _:
                        raise AssertionError(change)
    assert table == {str(key): who for key, who in source.conn.execute("SELECT id, who FROM item")}
    assert len(table) > 5_000
    assert ends == sorted(ends)
    assert (assembler.in_progress, spool.bytes_held) == (0, 0)


def test_a_slot_with_two_phase_sends_what_is_refused_with_what_to_do(two_phase_source: Source) -> None:
    source = two_phase_source
    source.sql("CREATE TABLE item (id int)", "BEGIN", "INSERT INTO item VALUES (1)", "PREPARE TRANSACTION 'kept'")
    source.sql("COMMIT PREPARED 'kept'")
    with pytest.raises(PgOutputError, match="two-phase commit is not supported; create the slot without two_phase"):
        source.messages()


def capture(directory: Path) -> None:
    """Write the corpus: messages of every kind, each with its length before it; the protocol version is in the name."""
    with PostgresServer(settings=SETTINGS) as server:
        source = Source(server)
        number = source.version
        source.sql("CREATE TABLE item (id int PRIMARY KEY, at timestamptz, tags text[], doc jsonb, price numeric, big text)")
        source.sql(
            "ALTER TABLE item ALTER big SET STORAGE EXTERNAL", "CREATE TYPE mood AS ENUM ('sad')", "CREATE TABLE n (m mood)"
        )
        source.sql(
            "INSERT INTO item VALUES (1, '2026-11-21 04:05:06+00', '{a,\"b c\",NULL}', '{\"a\": 1}', 1.50, repeat('7', 3000))"
        )
        source.sql("UPDATE item SET price = NULL", "UPDATE item SET id = 2", "DELETE FROM item", "INSERT INTO n VALUES ('sad')")
        source.sql("ALTER TABLE item REPLICA IDENTITY FULL", "INSERT INTO item VALUES (3, 'infinity', '{}')")
        source.sql("UPDATE item SET tags = '{né}'", "DELETE FROM item", "TRUNCATE item, n CASCADE")
        source.sql("SELECT pg_replication_origin_create('elsewhere')", "SELECT pg_replication_origin_session_setup('elsewhere')")
        source.transaction("SELECT pg_replication_origin_xact_setup('0/ABCD', now())", "INSERT INTO n VALUES (NULL)")
        source.sql("SELECT pg_replication_origin_session_reset()", "SELECT pg_logical_emit_message(false, 'now', 'né')")
        source.transaction("SELECT pg_logical_emit_message(true, 'then', '')", "INSERT INTO n VALUES (NULL)")
        write(directory / f"plain-{number}-v1.bin", source.payloads(messages="true"))
        source.sql("DROP TABLE item")
        stream(source)
        thinned(directory / f"streamed-{number}-v2.bin", source.payloads(2, streaming="on"))
        source.remove()


def thinned(path: Path, payloads: list[bytes]) -> None:
    """Rows in great numbers are much alike: one in a hundred will do."""
    kept = [payload for place, payload in enumerate(payloads) if payload[:1] != b"I" or place % 100 == 0]
    write(path, kept)


def write(path: Path, payloads: list[bytes]) -> None:
    path.write_bytes(b"".join(struct.pack(">I", len(payload)) + payload for payload in payloads))


if __name__ == "__main__":
    capture(Path(sys.argv[1]))
