"""The commands that a walsender takes before it streams, composed, and its answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from psycopg import sql

from outlast import ConfigurationError
from outlast.postgres.replication._lsn import format_lsn

if TYPE_CHECKING:
    from collections.abc import Mapping

SLOT_NAME: Final = re.compile(r"[a-z0-9_]{1,63}")
IDENTIFY: Final = sql.SQL("IDENTIFY_SYSTEM")
TIMEOUT_QUERY: Final = sql.SQL("SELECT setting::bigint AS ms FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'")
_PG15: Final = 150_000
_PG17: Final = 170_000


@dataclass(frozen=True, slots=True)
class System:
    """The answer to IDENTIFY_SYSTEM."""

    system_id: str
    timeline: int
    flushed_lsn: int
    """The position up to which the server's own log is durable."""
    database: str


@dataclass(frozen=True, slots=True)
class CreatedSlot:
    """A slot that was just made: changes after `consistent_lsn` come from it, those before are in the snapshot."""

    name: str
    consistent_lsn: int
    snapshot: str | None
    """For SET TRANSACTION SNAPSHOT, on another connection, until this session's next command or its end."""


def create_slot_command(
    server_version: int,
    name: str,
    plugin: str,
    *,
    snapshot: Literal["export", "nothing"],
    failover: bool,
    two_phase: bool,
    temporary: bool,
) -> sql.Composed:
    """Compose CREATE_REPLICATION_SLOT for that version. Raises `ConfigurationError` for an option that it does not have."""
    check_slot_name(name)
    if failover and server_version < _PG17:
        raise ConfigurationError(f"slot {name}: failover slots need PostgreSQL 17, this is {server_version // 10_000}")
    words: list[sql.Composable] = [sql.SQL("CREATE_REPLICATION_SLOT"), sql.Identifier(name)]
    words += [sql.SQL("TEMPORARY")] if temporary else []
    words += [sql.SQL("LOGICAL"), sql.Identifier(plugin)]
    if server_version < _PG15:
        words.append(sql.SQL("EXPORT_SNAPSHOT") if snapshot == "export" else sql.SQL("NOEXPORT_SNAPSHOT"))
        words += [sql.SQL("TWO_PHASE")] if two_phase else []
        return sql.SQL(" ").join(words)
    options = [sql.SQL("SNAPSHOT {}").format(sql.Literal(snapshot))]
    options += [sql.SQL("TWO_PHASE true").format()] if two_phase else []
    options += [sql.SQL("FAILOVER true").format()] if failover else []
    return sql.SQL(" ").join([*words, sql.SQL("({})").format(sql.SQL(", ").join(options))])


def drop_slot_command(name: str, *, wait: bool) -> sql.Composed:
    """Compose DROP_REPLICATION_SLOT."""
    check_slot_name(name)
    return sql.SQL("DROP_REPLICATION_SLOT {} WAIT" if wait else "DROP_REPLICATION_SLOT {}").format(sql.Identifier(name))


def start_command(slot: str, lsn: int, options: Mapping[str, str]) -> sql.Composed:
    """Compose START_REPLICATION of a logical slot, with the options of its plugin."""
    check_slot_name(slot)
    pairs = [sql.SQL("{} {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in options.items()]
    start = sql.SQL("START_REPLICATION SLOT {} LOGICAL {}").format(
        sql.Identifier(slot),
        sql.SQL(format_lsn(lsn)),  # pyright: ignore[reportArgumentType] # hexadecimal digits and a slash
    )
    return start + sql.SQL(" ({})").format(sql.SQL(", ").join(pairs)) if pairs else start


def check_slot_name(name: str) -> None:
    """Raise `ConfigurationError` for a name that PostgreSQL does not accept for a slot."""
    if SLOT_NAME.fullmatch(name) is None:
        raise ConfigurationError(f"{name!r} is no name for a slot: 1 to 63 of a-z, 0-9 and _")
