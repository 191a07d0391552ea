"""What is wrong with a server, from what was seen of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast import ConfigurationError, Fault, Kind
from outlast._core.faults import attached
from outlast.changes._slot.blockers import Blockers, SlotCreationError
from outlast.changes._slot.catalog import Publication, PublishedTable, Server, Survey, WantedTable, check_names
from outlast.changes._slot.findings import NAMED_MAX, Finding, findings_of
from outlast.changes._slot.setup import Findings, NotReadyError
from outlast.postgres.replication import Slot
from outlast.postgres.sessions import Session

SINCE = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
SERVER = Server(
    version=150018,
    database="shop",
    user="app",
    in_recovery=False,
    read_only=False,
    read_only_from="default",
    wal_level="logical",
    may_replicate=True,
    is_rds=False,
    may_create=True,
    is_superuser=False,
    slots_used=1,
    slots_max=10,
    idle_slots=[],
    senders_used=0,
    senders_max=10,
    wal_keep_bytes=None,
)
TABLE = PublishedTable("public", "orders", "d", True, True, "orders_pkey")
PUBLICATION = Publication("pub", False, ("insert", "update", "delete", "truncate"), (TABLE,))
SLOT = Slot(
    name="slot",
    plugin="pgoutput",
    database="shop",
    holder=None,
    confirmed_lsn=None,
    restart_lsn=None,
    wal_status="reserved",
    safe_wal_bytes=None,
    inactive_s=None,
    temporary=False,
    two_phase=False,
    failover=False,
    invalidation=None,
)
GOOD = Survey("pub", "slot", SERVER, PUBLICATION, SLOT)
WANTED = WantedTable("orders", "public", "orders", True, True)


def seen(**changes: Any) -> Survey:
    server = {name: changes.pop(name) for name in list(changes) if hasattr(SERVER, name)}
    return replace(GOOD, server=replace(SERVER, **server), **changes)


def found(survey: Survey) -> tuple[Kind, str, tuple[str, ...], bool, bool]:
    """The only finding, in short."""
    (finding,) = findings_of(survey)
    assert all(statement in finding.fault.hint for statement in finding.statements)
    assert finding.fault.hint or not finding.blocks, "an operator is told what to do"
    return finding.fault.kind, finding.fault.code, finding.statements, finding.blocks, finding.creatable


def test_nothing_is_wrong() -> None:
    assert findings_of(GOOD) == ()


def test_the_server() -> None:
    assert found(seen(version=130009))[:2] == (Kind.PERMANENT, "0A000")
    assert found(seen(in_recovery=True, read_only=True))[:3] == (Kind.TRANSIENT, "25006", ())
    statements = ("ALTER SYSTEM SET wal_level = 'logical'",)
    assert found(seen(wal_level="replica")) == (Kind.PERMANENT, "55000 wal_level", statements, True, False)
    assert "restart" in findings_of(seen(wal_level="replica"))[0].fault.hint


@pytest.mark.parametrize(
    ("source", "statement"),
    [
        ("database", 'ALTER DATABASE "shop" RESET default_transaction_read_only'),
        ("user", 'ALTER ROLE "app" RESET default_transaction_read_only'),
        ("client", "SET default_transaction_read_only = off"),
        ("configuration file", "ALTER SYSTEM SET default_transaction_read_only = off"),
    ],
)
def test_read_only(source: str, statement: str) -> None:
    kind, code, statements, blocks, _ = found(seen(read_only=True, read_only_from=source))
    assert (kind, code, blocks) == (Kind.TRANSIENT, "25006", True)
    assert statements[0] == statement


def test_the_right_to_replicate() -> None:
    statements = ('ALTER ROLE "a""b" REPLICATION',)
    assert found(seen(may_replicate=False, user='a"b')) == (Kind.PERMANENT, "42501", statements, True, False)
    assert found(seen(may_replicate=False, is_rds=True))[2] == ('GRANT rds_replication TO "app"',)


def test_room_for_a_slot_matters_only_when_one_is_to_be_made() -> None:
    full = {"slots_used": 10, "idle_slots": ["old"]}
    assert findings_of(seen(**full)) == ()
    no_room, missing = findings_of(seen(slot=None, **full))
    assert (no_room.fault.kind, no_room.fault.code, no_room.creatable) == (Kind.EXHAUSTED, "53400", False)
    assert no_room.statements == ("ALTER SYSTEM SET \"max_replication_slots\" = '20'",)
    assert "SELECT pg_drop_replication_slot('old')" in no_room.fault.hint
    assert missing.fault.code == "42704 slot missing"


def test_room_for_a_sender() -> None:
    kind, code, statements, *_ = found(seen(senders_used=10))
    assert (kind, code, statements) == (Kind.EXHAUSTED, "53300", ("ALTER SYSTEM SET \"max_wal_senders\" = '20'",))
    held = replace(SLOT, holder=Session(7))
    assert [each.fault.code for each in findings_of(seen(senders_used=10, slot=held))] == ["55006"], "one of them is the holder's"


def test_a_missing_publication() -> None:
    statements = ('CREATE PUBLICATION "pub" FOR TABLE "public"."orders"',)
    neither = {"publication": None, "slot": None}
    missing, slot = findings_of(seen(wanted=(WANTED,), **neither))
    assert (missing.statements, missing.creatable, slot.creatable) == (statements, True, True)
    for_all, _ = findings_of(seen(**neither))
    assert (for_all.statements, for_all.creatable) == (('CREATE PUBLICATION "pub" FOR ALL TABLES',), False)
    assert "superuser" in for_all.fault.hint
    assert findings_of(seen(is_superuser=True, **neither))[0].creatable
    assert not findings_of(seen(may_create=False, wanted=(WANTED,), **neither))[0].creatable


def test_a_slot_that_is_older_than_its_publication_is_not_repaired_unasked() -> None:
    _, _, statements, blocks, creatable = found(seen(publication=None, wanted=(WANTED,)))
    assert statements[1] == "SELECT pg_replication_slot_advance('slot', pg_current_wal_lsn())"
    assert (blocks, creatable) == (True, False)


def test_what_the_publication_shall_publish() -> None:
    unpublished = replace(WANTED, published=False)
    kind, code, statements, blocks, creatable = found(seen(wanted=(unpublished,)))
    assert (kind, code, blocks, creatable) == (Kind.PERMANENT, "42704", True, False)
    assert statements == ('ALTER PUBLICATION "pub" ADD TABLE "public"."orders"',)
    assert found(seen(wanted=(WantedTable("nowhere", None, None, False, False),)))[1] == "42P01"
    assert found(seen(wanted=(replace(unpublished, publishable=False),)))[1] == "42809"
    assert found(seen(publication=replace(PUBLICATION, tables=())))[3] is False


def test_a_table_that_cannot_be_published_keeps_the_publication_from_being_made() -> None:
    bad = WantedTable("nowhere", None, None, False, False)
    assert [each.creatable for each in findings_of(seen(publication=None, slot=None, wanted=(WANTED, bad)))] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("table", "how"),
    [
        (replace(TABLE, identity="n", has_identity=False), "DEFAULT"),
        (replace(TABLE, has_primary_key=False, has_identity=False, unique_index="by_code"), 'USING INDEX "by_code"'),
        (replace(TABLE, has_primary_key=False, has_identity=False, unique_index=None), "FULL"),
    ],
)
def test_a_table_without_replica_identity(table: PublishedTable, how: str) -> None:
    kind, code, statements, blocks, _ = found(seen(publication=replace(PUBLICATION, tables=(table,))))
    assert (kind, code, blocks) == (Kind.PERMANENT, "55000", False)
    assert statements == (f'ALTER TABLE "public"."orders" REPLICA IDENTITY {how}',)
    inserts_only = replace(PUBLICATION, tables=(table,), operations=("insert",))
    assert findings_of(seen(publication=inserts_only)) == ()


def test_many_tables_without_replica_identity_are_counted() -> None:
    tables = tuple(replace(TABLE, name=f"t{number}", has_identity=False) for number in range(NAMED_MAX + 7))
    findings = findings_of(seen(publication=replace(PUBLICATION, tables=tables)))
    assert len(findings) == NAMED_MAX + 1
    assert findings[-1].fault.reason.startswith("7 more tables")


def test_a_missing_slot() -> None:
    statements = ("SELECT pg_create_logical_replication_slot('slot', 'pgoutput')",)
    assert found(seen(slot=None)) == (Kind.PERMANENT, "42704 slot missing", statements, True, True)


def test_a_failover_slot() -> None:
    too_old, missing = findings_of(seen(slot=None, failover=True))
    assert (too_old.fault.code, missing.creatable) == ("0A000", False)
    (missing,) = findings_of(seen(slot=None, failover=True, version=170002))
    assert missing.statements == ("SELECT pg_create_logical_replication_slot('slot', 'pgoutput', failover => true)",)
    _, code, statements, blocks, _ = found(seen(failover=True, version=170002))
    assert (code, statements, blocks) == ("failover", ('ALTER_REPLICATION_SLOT "slot" ( FAILOVER true )',), False)
    assert findings_of(seen(failover=True, version=170002, slot=replace(SLOT, failover=True))) == ()


def test_a_slot_that_does_not_fit() -> None:
    drop = ("SELECT pg_drop_replication_slot('slot')",)
    assert found(seen(slot=replace(SLOT, plugin="test_decoding")))[1:3] == ("55000", drop)
    assert found(seen(slot=replace(SLOT, plugin=None, database=None)))[1:3] == ("55000", drop)
    assert found(seen(slot=replace(SLOT, database="other")))[1:3] == ("55000", drop)
    assert found(seen(slot=replace(SLOT, temporary=True, holder=Session(7)))) == (Kind.PERMANENT, "55006", (), True, False)


def test_a_slot_that_is_used_is_stood_by_for() -> None:
    survey = seen(slot=replace(SLOT, holder=Session(4711, "pg_recvlogical", "ops", SINCE)))
    kind, code, statements, blocks, _ = found(survey)
    assert (kind, code, blocks) == (Kind.CONTENDED, "55006", False)
    assert statements == ("SELECT * FROM pg_stat_activity WHERE pid = 4711",), "a live owner is not ended"
    reason = findings_of(survey)[0].fault.reason
    assert "pid 4711 (pg_recvlogical of user ops, since 2026-01-31T12:00:00+00:00)" in reason


def test_a_slot_that_is_lost_or_nearly() -> None:
    kind, code, statements, blocks, creatable = found(seen(slot=replace(SLOT, wal_status="lost")))
    assert (kind, code, blocks, creatable) == (Kind.PERMANENT, "55000 slot lost", True, False)
    assert statements[0] == "SELECT pg_drop_replication_slot('slot')"
    assert len(statements) == 2
    assert "idle_timeout" in findings_of(seen(slot=replace(SLOT, invalidation="idle_timeout")))[0].fault.reason
    nearly = seen(slot=replace(SLOT, wal_status="unreserved"), wal_keep_bytes=2**34)
    kind, code, statements, blocks, _ = found(nearly)
    assert (kind, code, blocks) == (Kind.EXHAUSTED, "wal", False)
    assert statements[0] == "ALTER SYSTEM SET max_slot_wal_keep_size = '32768MB'"


@pytest.mark.parametrize("slot", ["", "Upper", "has space", "x" * 64, "quo'te", "line\n"])
def test_a_bad_name_of_a_slot(slot: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot name a replication slot"):
        check_names("pub", slot)


@pytest.mark.parametrize("publication", ["", "x" * 64, "ü" * 32, "nul\0"])
def test_a_bad_name_of_a_publication(publication: str) -> None:
    check_names("ü" * 31, "slot_1")
    with pytest.raises(ConfigurationError, match="cannot name a publication"):
        check_names(publication, "slot")


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(NAMES, NAMES)
def test_names_of_any_spelling_are_quoted(publication: str, slot: str) -> None:
    survey = seen(publication_name=publication, slot_name=slot, publication=None, slot=None, is_superuser=True)
    create, make = (finding.statements[0] for finding in findings_of(survey))
    quoted = publication.replace('"', '""')
    assert create == f'CREATE PUBLICATION "{quoted}" FOR ALL TABLES'
    literal = slot.replace("'", "''")
    if "\\" in slot:
        literal = literal.replace("\\", "\\\\")
    assert f"'{literal}', 'pgoutput'" in make


def test_what_blocks_first_is_the_fault_that_is_raised() -> None:
    idle, wrong = findings_of(seen(publication=replace(PUBLICATION, tables=()))), findings_of(seen(wal_level="minimal"))
    Findings(GOOD, idle).require()
    findings = Findings(GOOD, (*idle, *wrong, *wrong))
    assert not findings.ready
    assert not findings.creatable
    with pytest.raises(NotReadyError, match=r"wal_level is minimal.*1 more.*ALTER SYSTEM") as raised:
        findings.require()
    assert attached(raised.value) == wrong[0].fault


def test_whoever_blocks_is_named_once_and_no_more_than_five_are(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "outlast.changes")
    blockers = Blockers("slot")
    for _ in range(3):
        for pid in range(1, 9):
            blockers.found(Session(pid, "psql", "ops", SINCE), None, "idle in transaction")
    assert len(caplog.records) == len(blockers.faults) == 5
    assert all(record.levelname == "INFO" for record in caplog.records)
    assert "waits for the transaction of pid 1 (psql of user ops, idle in transaction), open since 2026" in caplog.text
    assert blockers.faults[0].kind is Kind.CONTENDED


def test_a_prepared_transaction_is_named_by_its_name() -> None:
    told: list[Fault] = []
    Blockers("slot", told.append).found(Session(0, "", "ops", SINCE), "it's", "prepared")
    assert told[0].hint.endswith("ROLLBACK PREPARED 'it''s'")
    error = SlotCreationError("slot", 5.0, told[0])
    assert "not created within 5 s" in str(error)
    assert attached(error) == told[0]


def test_a_finding_blocks_unless_it_says_otherwise() -> None:
    assert Finding(Fault(Kind.PERMANENT, "x", "y")).blocks
