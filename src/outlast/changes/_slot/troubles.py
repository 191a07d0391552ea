"""What a walsender and its slot report, by what has to be done about it.

The SQLSTATE says too little here: 55000 is a wrong wal_level, a lost slot and more; 42704 is a missing slot and a missing
publication. The server's text is translated by its `lc_messages` and changes between versions; but it also sends the name
of the C function that reports, which is neither. That decides first, and the English words where it does not tell enough.
psycopg hides all but the text when it cannot connect: in another language the fault is then "session refused" (see
`outlast.postgres.replication._dial`), and `survey`, which asks the catalog by an ordinary connection, finds out.
"""

from __future__ import annotations

import enum
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psycopg

from outlast import Fault, Kind, Scope
from outlast.extend import clean
from outlast.postgres import DeadlineExceededError
from outlast.postgres.replication import PHASE, SlotWaitsError, StreamEndedError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Meaning", "Names", "ReplicationRule", "meaning_of"]


class Meaning(enum.Enum):
    """What an error of a replication session means; `RULES` says what follows."""

    SLOT_IN_USE = "slot in use"
    SLOT_MISSING = "slot missing"
    SLOT_LOST = "slot lost"
    """Ask the catalog before acting on it: what follows cannot be undone."""
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
    """What hints are about."""

    slot: str
    publication: str = ""
    user: str = ""


RULES: Final[Mapping[Meaning, tuple[Kind, str]]] = {
    Meaning.SLOT_IN_USE: (
        Kind.CONTENDED,
        "somebody else reads the slot: SELECT active_pid FROM pg_replication_slots WHERE slot_name = {slot};",
    ),
    Meaning.SLOT_MISSING: (
        Kind.PERMANENT,
        (
            "changes until now will never come: lost='snapshot' reads all tables anew, with a new slot; by hand: "
            "SELECT pg_create_logical_replication_slot({slot}, 'pgoutput'); and a new copy. After a failover it is missing "
            "unless it was made with failover = true (PostgreSQL 17)"
        ),
    ),
    Meaning.SLOT_LOST: (
        Kind.PERMANENT,
        (
            "the log that the slot needs is gone: lost='snapshot' reads all tables anew, with a new slot; by hand: "
            "SELECT pg_drop_replication_slot({slot}); and a new copy. "
            "To prevent it: ALTER SYSTEM SET max_slot_wal_keep_size = '…'; (where the reason is idle_timeout: "
            "idle_replication_slot_timeout;) SELECT pg_reload_conf();"
        ),
    ),
    Meaning.SLOT_SYNCED: (
        Kind.TRANSIENT,
        "this is a standby, and its copy of the slot is for after a failover: connect to the primary",
    ),
    Meaning.SLOT_WAITS: (
        Kind.CONTENDED,
        (
            "a slot is made when the transactions that are open now have ended: SELECT pid, xact_start, application_name "
            "FROM pg_stat_activity WHERE xact_start IS NOT NULL ORDER BY xact_start;"
        ),
    ),
    Meaning.SLOTS_USED_UP: (
        Kind.EXHAUSTED,
        (
            "drop a slot that nobody needs: SELECT slot_name FROM pg_replication_slots WHERE NOT active; "
            "SELECT pg_drop_replication_slot('…'); or ALTER SYSTEM SET max_replication_slots = …; and restart the server"
        ),
    ),
    Meaning.SENDERS_USED_UP: (
        Kind.EXHAUSTED,
        (
            "see who replicates: SELECT pid, application_name FROM pg_stat_replication; or ALTER SYSTEM SET max_wal_senders = …; "
            "and restart the server"
        ),
    ),
    Meaning.PUBLICATION_MISSING: (
        Kind.PERMANENT,
        (
            "CREATE PUBLICATION {publication} FOR ALL TABLES; (or FOR TABLE …). Changes from before it exists stay unreadable "
            "until PostgreSQL 17: SELECT pg_drop_replication_slot({slot}); and begin with a new one"
        ),
    ),
    Meaning.WAL_LEVEL: (Kind.PERMANENT, "ALTER SYSTEM SET wal_level = 'logical'; and restart the server"),
    Meaning.NO_RIGHT: (
        Kind.PERMANENT,
        "ALTER ROLE {user} REPLICATION; (hosted servers have a role for it: GRANT rds_replication TO {user};)",
    ),
    Meaning.PROTOCOL: (Kind.PERMANENT, "the server is older than the protocol that is asked for: ask for a lower proto_version"),
    Meaning.STANDBY: (
        Kind.TRANSIENT,
        "this server is a standby or read-only: SELECT pg_is_in_recovery(); name all hosts in the DSN to find the primary",
    ),
    Meaning.SHUTTING_DOWN: (Kind.TRANSIENT, ""),
    Meaning.BROKEN_OFF: (Kind.TRANSIENT, ""),
}
"""By meaning: the kind, and what an operator should do, with the exact SQL. All concern this session alone: the next login
tells whether the server is there, and that counts for everyone."""


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
"""What psycopg tells of a refused login, in the language of the server: in another one, a survey finds out."""
_AMBIGUOUS: Final = frozenset(state for state, count in Counter(row.state for row in TABLE).items() if count > 1)


def meaning_of(exc: BaseException, phase: str = PHASE) -> Meaning | None:
    """What an exception means for a replication session in `phase` ("connect", "replication"); None when nothing special."""
    found = _find(exc, phase)
    return None if found is None else found[0]


class ReplicationRule:
    """A rule for `Classifiers`, and for `Replication.connect`, that knows the names to put into the hints."""

    def __init__(self, names: Names) -> None:
        """Speak of these names."""
        self.names = names

    def __call__(self, exc: BaseException, phase: str) -> Fault | None:
        """The fault of what a replication session raised; None for what is no different there."""
        found = _find(exc, phase)
        return None if found is None else self.fault(found[0], found[1], _text(exc))

    def fault(self, meaning: Meaning, state: str = "", reason: str = "") -> Fault:
        """The fault of a meaning, however it was found out. Its code tells apart what shares a SQLSTATE."""
        kind, hint = RULES[meaning]
        code = f"{state} {meaning.value}" if state in _AMBIGUOUS else state or meaning.value
        literal = "'" + self.names.slot.replace("'", "''") + "'"
        publication, user = (_quoted(name) for name in (self.names.publication or "…", self.names.user or "…"))
        hint = hint.format(slot=literal, publication=publication, user=user)
        return Fault(kind, code, clean(reason or meaning.value), scope=Scope.CALL, hint=hint)


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


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(exc: BaseException) -> str:
    # The first line only: DETAIL and CONTEXT may quote rows.
    lines = str(exc).strip().splitlines()
    return lines[0] if lines else type(exc).__name__
