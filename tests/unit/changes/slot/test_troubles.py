"""What a walsender reports, by what to do: every row of the table, in English and in no language at all."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.pq import DiagnosticField

from outlast import Kind, Scope
from outlast.changes._slot.troubles import TABLE, TROUBLES, Meaning, Names, ReplicationRule, Row, meaning_of
from outlast.postgres import DeadlineExceededError
from outlast.postgres.replication import StreamEndedError

NAMES = Names(slot="shop", publication="shop_pub", user="app")
SAID = {
    ("55006", Meaning.SLOT_IN_USE): ['replication slot "shop" is active for PID 4797'],
    ("42704", Meaning.PUBLICATION_MISSING): ['publication "shop_pub" does not exist'],
    ("42704", Meaning.SLOT_MISSING): ['replication slot "shop" does not exist'],
    ("42501", Meaning.NO_RIGHT): [
        "must be superuser or replication role to use replication slots",
        "permission denied to use replication slots",
    ],
    ("53400", Meaning.SLOTS_USED_UP): ["all replication slots are in use"],
    ("53300", Meaning.SENDERS_USED_UP): ["number of requested standby connections exceeds max_wal_senders (currently 10)"],
    ("55000", Meaning.SLOT_SYNCED): ['cannot use replication slot "shop" for logical decoding'],
    ("55000", Meaning.SLOT_LOST): [
        'cannot read from logical replication slot "shop"',
        'can no longer get changes from replication slot "shop"',
        'can no longer access replication slot "shop"',
    ],
    ("58P01", Meaning.SLOT_LOST): ["requested WAL segment 000000010000000000000001 has already been removed"],
    ("0A000", Meaning.STANDBY): ["logical decoding cannot be used while in recovery"],
    ("55000", Meaning.SLOTS_USED_UP): ["replication slots can only be used if max_replication_slots > 0"],
    ("55000", Meaning.WAL_LEVEL): [
        "logical decoding requires wal_level >= logical",
        'logical decoding requires "wal_level" >= "logical"',
    ],
    ("0A000", Meaning.PROTOCOL): ["client sent proto_version=9 but we only support protocol 3 or lower"],
    ("25006", Meaning.STANDBY): ["cannot execute INSERT in a read-only transaction"],
    ("57P01", Meaning.SHUTTING_DOWN): ["terminating connection due to administrator command"],
    ("57P02", Meaning.SHUTTING_DOWN): ["terminating connection because of crash of another server process"],
    ("57P03", Meaning.SHUTTING_DOWN): ["the database system is shutting down"],
}


def error(state: str, text: str, function: str = "") -> psycopg.Error:
    info = {DiagnosticField.SQLSTATE: state.encode(), DiagnosticField.SOURCE_FUNCTION: function.encode() or None}
    return psycopg.errors.lookup(state)(text, info=info)  # type: ignore[arg-type]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.state} {row.meaning.value}")
def test_every_row_is_met_by_what_servers_say(row: Row) -> None:
    for text in SAID[row.state, row.meaning]:
        assert meaning_of(error(row.state, text)) is row.meaning


@pytest.mark.parametrize("row", [row for row in TABLE if row.functions], ids=lambda row: f"{row.state} {row.meaning.value}")
def test_the_language_of_the_server_does_not_matter(row: Row) -> None:
    for function in row.functions:
        assert meaning_of(error(row.state, "ein Text in einer anderen Sprache", function)) is row.meaning


@pytest.mark.parametrize("meaning", Meaning)
def test_every_meaning_has_a_rule_and_a_hint_that_can_be_pasted(meaning: Meaning) -> None:
    trouble = TROUBLES[meaning]
    fault = ReplicationRule(NAMES).fault(meaning)
    assert (fault.kind, fault.scope) == (trouble.kind, Scope.CALL)
    assert "{" not in fault.hint
    if trouble.kind in {Kind.PERMANENT, Kind.EXHAUSTED} and meaning not in {Meaning.PROTOCOL, Meaning.SLOT_ENDANGERED}:
        assert ";" in fault.hint, "the exact SQL"
    if any("{slot}" in text for text in trouble.statements):
        assert "'shop'" in fault.hint


def test_names_are_quoted_in_hints() -> None:
    rule = ReplicationRule(Names("shop", 'a"; DROP TABLE x; --', "o'neill"))
    assert 'CREATE PUBLICATION "a""; DROP TABLE x; --" FOR ALL TABLES' in rule.fault(Meaning.PUBLICATION_MISSING).hint
    assert 'ALTER ROLE "o\'neill" REPLICATION' in rule.fault(Meaning.NO_RIGHT).hint


def test_every_meaning_has_one_code_of_its_own_whatever_the_sqlstate() -> None:
    rule = ReplicationRule(NAMES)
    codes: dict[str, set[Meaning]] = {}
    for (state, meaning), texts in SAID.items():
        fault = rule(error(state, texts[0]), "replication")
        assert fault is not None
        assert fault.code == (TROUBLES[meaning].code or state)
        codes.setdefault(fault.code, set()).add(meaning)
    assert all(len(meanings) == 1 for meanings in codes.values()), codes
    assert len({trouble.code for trouble in TROUBLES.values()}) == len(TROUBLES)
    in_use = rule(error("55006", SAID["55006", Meaning.SLOT_IN_USE][0]), "replication")
    assert in_use is not None
    assert (in_use.kind, in_use.code) == (Kind.CONTENDED, "55006")


@pytest.mark.parametrize(
    ("text", "meaning", "code"),
    [
        (
            "FATAL:  number of requested standby connections exceeds max_wal_senders (currently 1)",
            Meaning.SENDERS_USED_UP,
            "53300",
        ),
        ("FATAL:  must be superuser or replication role to start walsender", Meaning.NO_RIGHT, "42501"),
        ("FATAL:  permission denied to start WAL sender", Meaning.NO_RIGHT, "42501"),
    ],
)
def test_a_refused_login_has_only_its_text(text: str, meaning: Meaning, code: str) -> None:
    refused = psycopg.OperationalError(f"connection failed: {text}")
    assert meaning_of(refused, "connect") is meaning
    fault = ReplicationRule(NAMES)(refused, "connect")
    assert fault is not None
    assert fault.code.startswith(code)


def test_a_session_that_breaks_off_concerns_itself_alone() -> None:
    fault = ReplicationRule(NAMES)(
        psycopg.OperationalError("consuming input failed: server closed the connection"), "replication"
    )
    assert fault is not None
    assert (fault.kind, fault.code, fault.scope) == (Kind.TRANSIENT, "ECONNRESET", Scope.CALL)
    assert meaning_of(StreamEndedError("the server ended the stream")) is Meaning.SHUTTING_DOWN


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("not the driver's"),
        DeadlineExceededError("has a fault already"),
        error("55000", 'replication slot "shop" was not created in this database', "CreateDecodingContext"),
        error("55000", "etwas anderes", "CreateDecodingContext"),
        error("42501", "permission denied for table orders", "aclcheck_error"),
        psycopg.OperationalError("connection refused"),
    ],
    ids=repr,
)
def test_what_it_does_not_know_is_left_to_others(exc: BaseException) -> None:
    phase = "connect" if type(exc) is psycopg.OperationalError else "replication"
    assert ReplicationRule(NAMES)(exc, phase) is None
