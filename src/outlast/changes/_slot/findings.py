"""From what a server has to what is wrong with it: classified faults, each with the exact SQL that puts it right.

Pure: a `Survey` in, findings out. Statements are composed by psycopg.sql alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from psycopg import sql

from outlast import Fault, Kind, Scope
from outlast.changes._slot.troubles import CREATE, DROP, LOGICAL, Meaning, fault_of, hint_of, lost_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast.changes._slot.catalog import PublishedTable, Server, Survey, WantedTable
    from outlast.postgres.replication import Slot

PLUGIN: Final = "pgoutput"
VERSION_MIN: Final = 140000
"""PostgreSQL 14: the first whose pgoutput streams large transactions."""
NAMED_MAX: Final = 20
"""Of findings that concern one table each; the others are counted."""
ROOM: Final = 10
"""The number of slots or senders that a statement of ours asks for beyond those there are: its effect needs a restart."""
RESTART: Final = "and restart the server"
MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or will be.

    `statements` is the SQL to run, in this order, by somebody who may; `fault.hint` repeats it for people.
    """

    fault: Fault
    statements: tuple[str, ...] = ()
    blocks: bool = True
    """Whether the stream cannot work until it is put right. What does not block is a danger, or resolves itself."""
    creatable: bool = False
    """Whether `set_up(..., create=True)` runs the statements itself."""
    advice: str = ""
    """Something else to do, or who has to do it."""


def findings_of(survey: Survey) -> tuple[Finding, ...]:
    """Return everything that is wrong: the server first, then rights, room, the publication, the slot."""
    return (*_server(survey.server), *_room(survey), *_publication(survey), *_slot(survey))


def _finding(
    kind: Kind,
    code: str,
    reason: str,
    *statements: sql.Composable,
    advice: str = "",
    blocks: bool = True,
    creatable: bool = False,
) -> Finding:
    texts = tuple(statement.as_string(None) for statement in statements)
    return Finding(Fault(kind, code, reason, scope=Scope.CALL, hint=hint_of(texts, advice)), texts, blocks, creatable, advice)


def _known(
    meaning: Meaning,
    reason: str,
    *statements: sql.Composable,
    advice: str | None = None,
    blocks: bool = True,
    creatable: bool = False,
) -> Finding:
    """Return a trouble of the catalogue as a finding, with more exact statements and advice where there are any."""
    texts = tuple(statement.as_string(None) for statement in statements)
    return Finding(fault_of(meaning, reason, texts, advice), texts, blocks, creatable, advice or "")


def _server(server: Server) -> Iterator[Finding]:
    if server.version < VERSION_MIN:
        reason = f"the server is PostgreSQL {server.version // 10000}; a change stream needs {VERSION_MIN // 10000} or newer"
        yield _finding(Kind.PERMANENT, "0A000", reason, advice="upgrade the server")
    if server.in_recovery:
        reason = "the server is a standby: it has neither the lock nor the slot of the primary"
        yield _known(Meaning.STANDBY, reason)
    elif server.read_only:
        reason = f"the server lets us read only: default_transaction_read_only is set by the {server.read_only_from}"
        yield _known(Meaning.STANDBY, reason, *_make_writable(server), advice="")
    if server.wal_level != "logical":
        yield _known(Meaning.WAL_LEVEL, f"wal_level is {server.wal_level}, not logical", sql.SQL(LOGICAL))
    if not server.may_replicate:
        user = sql.Identifier(server.user)
        text = "GRANT rds_replication TO {}" if server.is_rds else "ALTER ROLE {} REPLICATION"
        reason = f"user {server.user} may not replicate"
        yield _known(Meaning.NO_RIGHT, reason, sql.SQL(text).format(user), advice="as a superuser")


def _make_writable(server: Server) -> tuple[sql.Composable, ...]:
    match server.read_only_from:
        case "database":
            name = sql.Identifier(server.database)
            return (sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name),)
        case "user":
            return (sql.SQL("ALTER ROLE {} RESET default_transaction_read_only").format(sql.Identifier(server.user)),)
        case "client" | "session":
            return (sql.SQL("SET default_transaction_read_only = off"),)
        case _:
            return sql.SQL("ALTER SYSTEM SET default_transaction_read_only = off"), sql.SQL("SELECT pg_reload_conf()")


def _room(survey: Survey) -> Iterator[Finding]:
    server = survey.server
    if survey.slot is None and server.slots_used >= server.slots_max:
        drops = "; ".join(drop_slot(name).as_string(None) for name in server.idle_slots)
        advice = f"{RESTART}; or, if nobody needs them any more, drop slots that are not in use: {drops}" if drops else RESTART
        reason = f"all {server.slots_max} replication slots are used (max_replication_slots)"
        yield _known(Meaning.SLOTS_USED_UP, reason, _more("max_replication_slots", server.slots_max), advice=advice)
    streams = survey.slot is not None and survey.slot.holder is not None
    if server.senders_used >= server.senders_max and not streams:
        reason = f"all {server.senders_max} WAL senders are used (max_wal_senders)"
        advice = f"{RESTART}; the view pg_stat_replication shows who uses them"
        yield _known(Meaning.SENDERS_USED_UP, reason, _more("max_wal_senders", server.senders_max), advice=advice)


def _more(setting: str, now: int) -> sql.Composable:
    return sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(setting), sql.Literal(str(now + ROOM)))


# The publication.


def _publication(survey: Survey) -> Iterator[Finding]:
    name = survey.publication_name
    bad = [table for table in survey.wanted if not table.publishable]
    for table in bad[:NAMED_MAX]:
        yield _unpublishable(table)
    if survey.publication is None:
        yield _missing_publication(survey, creatable=not bad)
        return
    for table in survey.wanted:
        if table.publishable and not table.published:
            statement = sql.SQL("ALTER PUBLICATION {} ADD TABLE {}").format(sql.Identifier(name), table.identifier)
            reason = f"publication {name} does not publish {table.written}"
            yield _finding(Kind.PERMANENT, "42704", reason, statement, advice="as the owner of both")
    if not survey.publication.tables and not survey.wanted:
        statement = sql.SQL("ALTER PUBLICATION {} ADD TABLE …").format(sql.Identifier(name))
        yield _finding(Kind.PERMANENT, "42704", f"publication {name} publishes no table", statement, blocks=False)
    if survey.publication.needs_identity:
        bare = [table for table in survey.publication.tables if not table.has_identity]
        yield from map(_no_identity, bare[:NAMED_MAX])
        if len(bare) > NAMED_MAX:
            reason = f"{len(bare) - NAMED_MAX} more tables of publication {name} have no replica identity"
            yield _finding(Kind.PERMANENT, "55000", reason, blocks=False)


def create_publication(survey: Survey) -> sql.Composed:
    """Return the statement that creates it: for the tables that were named, or for all there are and will be."""
    name = sql.Identifier(survey.publication_name)
    if not survey.wanted:
        return sql.SQL("CREATE PUBLICATION {} FOR ALL TABLES").format(name)
    tables = sql.SQL(", ").join(table.identifier for table in survey.wanted)
    return sql.SQL("CREATE PUBLICATION {} FOR TABLE {}").format(name, tables)


def _missing_publication(survey: Survey, *, creatable: bool) -> Finding:
    name, server = survey.publication_name, survey.server
    statements: list[sql.Composable] = [create_publication(survey)]
    advice = ""
    if not server.may_create:
        creatable, advice = False, f"as a user with CREATE on database {server.database} who owns the tables"
    elif not survey.wanted and not server.is_superuser:
        creatable, advice = False, "as a superuser: all tables are theirs to publish; or name the tables"
    if survey.slot is not None:
        # The server decodes older changes as of their time, when there was no such publication, and fails on the first one.
        slot = sql.Literal(survey.slot_name)
        statements.append(sql.SQL("SELECT pg_replication_slot_advance({}, pg_current_wal_lsn())").format(slot))
        creatable = False
        advice += " (the slot is older than the publication: what it holds from before cannot be decoded, and is skipped)"
    reason = f"publication {name} does not exist in database {server.database}"
    return _known(Meaning.PUBLICATION_MISSING, reason, *statements, advice=advice.strip(), creatable=creatable)


def _unpublishable(table: WantedTable) -> Finding:
    if table.name is None:
        return _finding(Kind.PERMANENT, "42P01", f"table {table.written} does not exist", advice="was the migration run?")
    reason = f"{table.written} cannot be published: only permanent, logged tables of users can"
    return _finding(Kind.PERMANENT, "42809", reason, advice="name another table")


def _no_identity(table: PublishedTable) -> Finding:
    how: sql.Composable
    if table.has_primary_key:
        how = sql.SQL("DEFAULT")
    elif table.unique_index is not None:
        how = sql.SQL("USING INDEX {}").format(sql.Identifier(table.unique_index))
    else:
        how = sql.SQL("FULL")
    statement = sql.SQL("ALTER TABLE {} REPLICA IDENTITY {}").format(table.identifier, how)
    reason = f"{table.schema}.{table.name} has no replica identity: the server refuses every UPDATE and DELETE on it"
    return _finding(Kind.PERMANENT, "55000", reason, statement, blocks=False)


# The slot.


def _slot(survey: Survey) -> Iterator[Finding]:
    slot, server = survey.slot, survey.server
    if survey.failover and not server.has_failover_slots:
        reason = f"PostgreSQL {server.version // 10000} has no failover slots"
        yield _finding(Kind.PERMANENT, "0A000", reason, advice="they came with PostgreSQL 17; ask for none, or upgrade")
    if slot is None:
        creatable = not survey.failover or server.has_failover_slots
        statement = create_slot(survey.slot_name, failover=survey.failover)
        reason = f"replication slot {survey.slot_name} does not exist"
        yield _known(Meaning.SLOT_MISSING, reason, statement, advice="", creatable=creatable)
        return
    yield from _unfit(slot, server)
    if slot.is_lost:
        how = drop_slot(slot.name), create_slot(slot.name, failover=survey.failover)
        yield _known(Meaning.SLOT_LOST, lost_text(slot.name, slot.invalidation), *how)
    elif slot.wal_status == "unreserved":
        reason = f"replication slot {slot.name} holds more WAL than the server keeps: it is lost at the next checkpoint"
        yield _known(Meaning.SLOT_ENDANGERED, reason, *keep_more(server.wal_keep_bytes), blocks=False)
    if survey.failover and server.has_failover_slots and not slot.failover:
        alter = sql.SQL("ALTER_REPLICATION_SLOT {} ( FAILOVER true )").format(sql.Identifier(slot.name))
        reason = f"replication slot {slot.name} is not carried over to a standby"
        yield _finding(Kind.PERMANENT, "failover", reason, alter, advice="over a replication connection", blocks=False)


def create_slot(name: str, *, failover: bool = False) -> sql.Composed:
    """Return the statement that creates the slot, as a function call that any connection may make."""
    call = "SELECT pg_create_logical_replication_slot({slot}, 'pgoutput', failover => true)" if failover else CREATE
    return sql.SQL(call).format(slot=sql.Literal(name))


def drop_slot(name: str) -> sql.Composed:
    """Return the statement that drops the slot."""
    return sql.SQL(DROP).format(slot=sql.Literal(name))


def _unfit(slot: Slot, server: Server) -> Iterator[Finding]:
    drop = drop_slot(slot.name)
    advice = "if nobody needs it any more; or choose another name for the slot"
    if slot.plugin != PLUGIN:
        what = "a physical slot" if slot.plugin is None else f"made for the plugin {slot.plugin}, not {PLUGIN}"
        yield _finding(Kind.PERMANENT, "55000", f"replication slot {slot.name} is {what}", drop, advice=advice)
    if slot.database is not None and slot.database != server.database:
        reason = f"replication slot {slot.name} belongs to database {slot.database}, not to {server.database}"
        yield _finding(Kind.PERMANENT, "55000", reason, drop, advice=f"in database {slot.database}, {advice}")
    if slot.temporary:
        reason = f"replication slot {slot.name} is temporary: it belongs to {slot.holder or 'a session'} and ends with it"
        yield _finding(Kind.PERMANENT, "55006", reason, advice="choose another name for the slot")
    elif slot.holder is not None:
        look = sql.SQL("SELECT * FROM pg_stat_activity WHERE pid = {}").format(sql.Literal(slot.holder.pid))
        reason = f"replication slot {slot.name} is used by {slot.holder}"
        yield _known(Meaning.SLOT_IN_USE, reason, look, blocks=False)


def keep_more(limit_bytes: int | None) -> tuple[sql.Composable, sql.Composable]:
    """Return the statements that make the server keep twice as much WAL for slots, 1 GiB at least."""
    mib = max(1024, 2 * (limit_bytes or 0) // MIB)
    raise_limit = sql.SQL("ALTER SYSTEM SET max_slot_wal_keep_size = {}").format(sql.Literal(f"{mib}MB"))
    return raise_limit, sql.SQL("SELECT pg_reload_conf()")
