"""The catalogue of the troubles of a stream with its server: their kinds, codes and hints; and how errors are told apart.

The SQLSTATE says too little here: 55000 is a wrong wal_level, a lost slot and more; 42704 is a missing slot and a missing
publication. The server's text is translated by its `lc_messages` and changes between versions; but it also sends the name
of the C function that reports, which is neither. That decides first, and the English words where it does not say enough.
psycopg hides all but the text when it cannot connect: in another language the fault is then "session refused" (see
`outlast.postgres.replication._dial`), and `survey`, which asks the catalog by an ordinary connection, finds out.
"""

from __future__ import annotations

import enum
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, LiteralString

import psycopg
from psycopg import sql

from outlast import Fault, Kind, Scope
from outlast.extend import Once, clean
from outlast.postgres import DeadlineExceededError
from outlast.postgres.replication import PHASE, SlotWaitsError, StreamEndedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from psycopg.errors import Diagnostic

logger = logging.getLogger("outlast.changes")


class Meaning(enum.Enum):
    """A trouble of a stream with its server, however it was found out; `TROUBLES` says what follows."""

    SLOT_IN_USE = "slot in use"
    SLOT_MISSING = "slot missing"
    SLOT_LOST = "slot lost"
    """Ask the catalog before acting on it: what follows cannot be undone."""
    SLOT_ENDANGERED = "slot endangered"
    """The server is about to remove WAL that the slot needs."""
    SLOT_IDLE = "slot idle"
    """The server is about to give up a slot that nobody reads (PostgreSQL 18)."""
    SLOT_LAGS = "slot lags"
    SLOT_SYNCED = "slot synced"
    """A copy on a standby, kept up by PostgreSQL 17 for a failover: nobody reads it before."""
    SLOT_WAITS = "slot waits"
    """A slot cannot be made before the transactions that are open have ended."""
    SLOTS_USED_UP = "slots used up"
    SENDERS_USED_UP = "walsenders used up"
    PUBLICATION_MISSING = "publication missing"
    WAL_LEVEL = "wal_level"
    NO_RIGHT = "no replication right"
    PROTOCOL = "protocol"
    STANDBY = "standby"
    SHUTTING_DOWN = "shutting down"
    BROKEN_OFF = "broken off"


@dataclass(frozen=True, slots=True)
class Names:
    """The names that hints are about."""

    slot: str
    publication: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One row of the catalogue."""

    kind: Kind
    code: str
    """One for each meaning: a SQLSTATE, with the meaning where several share it. Empty: the SQLSTATE that came."""
    statements: tuple[LiteralString, ...] = ()
    """The SQL that puts it right, with {slot}, {publication} and {user}; who knows more of the server puts more exact ones."""
    advice: str = ""
    """Something else to do, or who has to do it."""

    def sql(self, names: Names) -> tuple[str, ...]:
        """Return the statements, about these names."""
        publication, user = (sql.Identifier(name or "…") for name in (names.publication, names.user))
        slot = sql.Literal(names.slot)
        made = (sql.SQL(text).format(slot=slot, publication=publication, user=user) for text in self.statements)
        return tuple(each.as_string(None) for each in made)


DROP: Final = "SELECT pg_drop_replication_slot({slot})"
CREATE: Final = "SELECT pg_create_logical_replication_slot({slot}, 'pgoutput')"
LOGICAL: Final = "ALTER SYSTEM SET wal_level = 'logical'"
TROUBLES: Final[Mapping[Meaning, Trouble]] = {
    Meaning.SLOT_IN_USE: Trouble(
        Kind.CONTENDED,
        "55006",
        ("SELECT active_pid FROM pg_replication_slots WHERE slot_name = {slot}",),
        "a stream stands by until it is free",
    ),
    Meaning.SLOT_MISSING: Trouble(
        Kind.PERMANENT,
        "42704 slot missing",
        (CREATE,),
        "changes until now never come: read all tables again (lost='snapshot' does both). After a failover it is missing "
        "unless it was made with failover = true (PostgreSQL 17)",
    ),
    Meaning.SLOT_LOST: Trouble(
        Kind.PERMANENT,
        "55000 slot lost",
        (DROP, CREATE),
        "and read all tables again (lost='snapshot' does all of it): what was not streamed never comes. To prevent it: "
        "ALTER SYSTEM SET max_slot_wal_keep_size = '…'; (where the reason is idle_timeout: idle_replication_slot_timeout;) "
        "SELECT pg_reload_conf()",
    ),
    Meaning.SLOT_ENDANGERED: Trouble(Kind.EXHAUSTED, "wal", advice="or speed up the consumer"),
    Meaning.SLOT_IDLE: Trouble(
        Kind.EXHAUSTED,
        "idle",
        ("ALTER SYSTEM SET idle_replication_slot_timeout = 0", "SELECT pg_reload_conf()"),
        "or start the consumer",
    ),
    Meaning.SLOT_LAGS: Trouble(Kind.TRANSIENT, "lag", advice="start the consumer, or drop the slot"),
    Meaning.SLOT_SYNCED: Trouble(
        Kind.TRANSIENT,
        "55000 slot synced",
        advice="this is a standby, and its copy of the slot is for after a failover: connect to the primary",
    ),
    Meaning.SLOT_WAITS: Trouble(
        Kind.CONTENDED,
        "55P03",
        ("SELECT pid, xact_start, application_name FROM pg_stat_activity WHERE xact_start IS NOT NULL ORDER BY xact_start",),
        "a slot is made when the transactions that are open now have ended",
    ),
    Meaning.SLOTS_USED_UP: Trouble(
        Kind.EXHAUSTED,
        "53400",
        ("SELECT slot_name FROM pg_replication_slots WHERE NOT active", "SELECT pg_drop_replication_slot('…')"),
        "drop a slot that nobody needs; or ALTER SYSTEM SET max_replication_slots = …, and restart the server",
    ),
    Meaning.SENDERS_USED_UP: Trouble(
        Kind.EXHAUSTED,
        "53300",
        ("SELECT pid, application_name FROM pg_stat_replication",),
        "see who replicates; or ALTER SYSTEM SET max_wal_senders = …, and restart the server",
    ),
    Meaning.PUBLICATION_MISSING: Trouble(
        Kind.PERMANENT,
        "42704 publication missing",
        ("CREATE PUBLICATION {publication} FOR ALL TABLES",),
        "(or FOR TABLE …). Changes from before it exists stay unreadable until PostgreSQL 17: drop the slot, and begin with "
        "a new one",
    ),
    Meaning.WAL_LEVEL: Trouble(Kind.PERMANENT, "55000 wal_level", (LOGICAL,), "and restart the server"),
    Meaning.NO_RIGHT: Trouble(
        Kind.PERMANENT,
        "42501",
        ("ALTER ROLE {user} REPLICATION",),
        "as a superuser (hosted servers have a role for it: GRANT rds_replication)",
    ),
    Meaning.PROTOCOL: Trouble(
        Kind.PERMANENT,
        "0A000 protocol",
        advice="the server is older than the protocol that is asked for: ask for a lower proto_version",
    ),
    Meaning.STANDBY: Trouble(
        Kind.TRANSIENT,
        "25006",
        advice="this server is a standby or read-only (SELECT pg_is_in_recovery()): name all hosts in the DSN to find the "
        "primary, or wait until it is promoted",
    ),
    Meaning.SHUTTING_DOWN: Trouble(Kind.TRANSIENT, ""),
    Meaning.BROKEN_OFF: Trouble(Kind.TRANSIENT, "ECONNRESET"),
}
"""All troubles with slots and publications, by meaning: the only place for their kinds, codes and hints. All concern this session
alone: the next login shows whether the server is there, and that counts for everyone."""


def hint_of(statements: Iterable[str], advice: str) -> str:
    """Join what an operator has to do: the SQL first."""
    return "; ".join(filter(None, (*statements, advice)))


def fault_of(meaning: Meaning, reason: str, statements: Iterable[str], advice: str | None = None, source: str = "") -> Fault:
    """Return the fault of a meaning, with statements and, unless it is None, advice of whoever knows more of the server."""
    row = TROUBLES[meaning]
    hint = hint_of(statements, row.advice if advice is None else advice)
    return Fault(row.kind, row.code, reason, source, Scope.CALL, hint=hint)


def lost_text(slot: str, invalidation: str | None) -> str:
    """Return the reason of `Meaning.SLOT_LOST`, with that of the server."""
    return f"replication slot {slot} is lost ({invalidation or 'its WAL was removed'})"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table. `functions` and `words`, if given, tell meanings of one SQLSTATE apart; either is enough."""

    state: str
    meaning: Meaning
    functions: frozenset[str] = frozenset()
    words: str = ""


def _row(state: str, meaning: Meaning, functions: str = "", words: str = "") -> Row:
    return Row(state, meaning, frozenset(functions.split()), words)


TABLE: Final[tuple[Row, ...]] = (
    _row("55006", Meaning.SLOT_IN_USE),
    _row("42704", Meaning.PUBLICATION_MISSING, "get_publication_oid GetPublicationByName", r"^publication "),
    _row("42704", Meaning.SLOT_MISSING, "ReplicationSlotAcquire ReplicationSlotAcquireInternal", r"^replication slot "),
    _row("42501", Meaning.NO_RIGHT, "CheckSlotPermissions check_permissions InitPostgres", r"replication|WAL sender|walsender"),
    _row("53400", Meaning.SLOTS_USED_UP, "ReplicationSlotCreate", r"all replication slots are in use"),
    _row("53300", Meaning.SENDERS_USED_UP, "", r"max_wal_senders"),
    # 15: the walsender; 16 and 17: the decoding context; 18: taking the slot.
    _row("55000", Meaning.SLOT_SYNCED, "", r"^cannot use replication slot .* for logical decoding"),
    _row("55000", Meaning.SLOT_LOST, "StartLogicalReplication", r"^cannot read from logical replication slot"),
    _row("55000", Meaning.SLOT_LOST, "ReplicationSlotAcquire", r"^can no longer (get changes from|access) replication slot"),
    _row("58P01", Meaning.SLOT_LOST, "WalSndSegmentOpen XLogReadRecord", r"^requested WAL segment .* has already been removed"),
    _row("0A000", Meaning.STANDBY, "CheckLogicalDecodingRequirements", r"while in recovery|on a standby|on the standby"),
    _row("55000", Meaning.SLOTS_USED_UP, "", r"max_replication_slots"),
    _row("55000", Meaning.WAL_LEVEL, "CheckLogicalDecodingRequirements CheckSlotRequirements", r"wal_level"),
    _row("0A000", Meaning.PROTOCOL, "parse_output_parameters pgoutput_startup", r"proto_version|protocol version"),
    _row("25006", Meaning.STANDBY),
    _row("57P01", Meaning.SHUTTING_DOWN),
    _row("57P02", Meaning.SHUTTING_DOWN),
    _row("57P03", Meaning.SHUTTING_DOWN),
)
"""In order: the first row that fits. Sources: slot.c, walsender.c, logical.c, pgoutput.c, postinit.c and proc.c of 15 to 18."""

_CONNECTING: Final[tuple[tuple[str, Meaning, str], ...]] = (
    (r"max_wal_senders", Meaning.SENDERS_USED_UP, "53300"),
    (r"to start (walsender|WAL sender)", Meaning.NO_RIGHT, "42501"),
)
"""The texts by which psycopg reports a refused login, in English: in another language, a survey finds out."""


def meaning_of(exc: BaseException, phase: str = PHASE) -> Meaning | None:
    """Return what an exception means for a replication session in `phase` ("connect", "replication"); None: nothing special."""
    found = _find(exc, phase)
    return None if found is None else found[0]


class ReplicationRule:
    """A rule for `Classifiers`, and for `Replication.connect`, that knows the names to put into the hints."""

    def __init__(self, names: Names) -> None:
        self.names = names

    def __call__(self, exc: BaseException, phase: str) -> Fault | None:
        """Return the fault of what a replication session raised; None for what is no different there."""
        found = _find(exc, phase)
        return None if found is None else self.fault(found[0], found[1], _text(exc))

    def fault(self, meaning: Meaning, state: str = "", reason: str = "") -> Fault:
        """Return the fault of a meaning, however it was found out."""
        trouble = TROUBLES[meaning]
        hint = hint_of(trouble.sql(self.names), trouble.advice)
        code = trouble.code or state or meaning.value
        return Fault(trouble.kind, code, clean(reason or meaning.value), scope=Scope.CALL, hint=hint)


class PublicationNotice:
    """Logs, once a session, that the server leaves changes out because the publication was not there when they were made.

    PostgreSQL 18 only warns of it, and goes on; older ones end the session (`Meaning.PUBLICATION_MISSING`).
    """

    def __init__(self, stream: str, names: Names) -> None:
        self._stream, self._names = stream, names
        self._once = Once()

    def __call__(self, notice: Diagnostic) -> None:
        """Take a notice of the session."""
        if notice.source_function != "LoadPublications" or not self._once.news():
            return
        logger.error(
            "changes %s: the server leaves out what changes while there is no publication %s; "
            "look for it (SELECT * FROM pg_publication), CREATE PUBLICATION again, and take a new snapshot of what was left out",
            self._stream,
            self._names.publication,
        )


def _find(exc: BaseException, phase: str) -> tuple[Meaning, str] | None:
    if not isinstance(exc, psycopg.Error):
        return None
    state, text = exc.sqlstate or "", _text(exc)
    if not state:
        return _without_state(exc, text, phase)
    function = exc.diag.source_function or ""
    for row in TABLE:
        if row.state != state:
            continue
        if not row.functions and not row.words:
            return row.meaning, state
        if function in row.functions or (row.words and re.search(row.words, text, re.IGNORECASE)):
            return row.meaning, state
    return None


def _without_state(exc: psycopg.Error, text: str, phase: str) -> tuple[Meaning, str] | None:
    if phase == "connect":
        return next(((meaning, state) for words, meaning, state in _CONNECTING if re.search(words, text)), None)
    if isinstance(exc, SlotWaitsError):
        return Meaning.SLOT_WAITS, ""
    if isinstance(exc, StreamEndedError):
        return Meaning.SHUTTING_DOWN, ""
    if phase == PHASE and isinstance(exc, psycopg.OperationalError) and not isinstance(exc, DeadlineExceededError):
        return Meaning.BROKEN_OFF, "ECONNRESET"
    return None


def _text(exc: BaseException) -> str:
    # The first line only: DETAIL and CONTEXT may quote rows.
    lines = str(exc).strip().splitlines()
    return lines[0] if lines else type(exc).__name__
