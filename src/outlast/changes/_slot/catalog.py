"""The things a server has for a change stream: its settings, our rights, the publication, the slot. Read, never changed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from psycopg import errors, sql
from psycopg.rows import class_row

from outlast import ConfigurationError
from outlast.postgres.replication import Slot, read_slot

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from outlast.postgres import Postgres

NAME_BYTES_MAX: Final = 63
"""NAMEDATALEN - 1 of the server: longer names are cut without a word."""
_SLOT_NAME: Final = re.compile(r"[a-z0-9_]{1,63}")
TABLES_MAX: Final = 10_000
"""Of one publication; what is beyond is not looked at, and said so."""


@dataclass(frozen=True, slots=True)
class Server:
    """Settings and rights that a change stream depends on."""

    version: int
    """As `server_version_num`: 150018 is 15.18."""
    database: str
    user: str
    in_recovery: bool
    read_only: bool
    read_only_from: str
    """The place where `default_transaction_read_only` was set: "database", "user", "configuration file" …"""
    wal_level: str
    may_replicate: bool
    is_rds: bool
    """Whether the right to replicate is a membership of `rds_replication` here."""
    may_create: bool
    """Whether this user may create a publication in this database; one for all tables needs a superuser besides."""
    is_superuser: bool
    slots_used: int
    slots_max: int
    idle_slots: list[str]
    """Slots nobody uses, the one that holds the most WAL first; at most five."""
    senders_used: int
    senders_max: int
    wal_keep_bytes: int | None
    """`max_slot_wal_keep_size`. None: a slot may fill the disk."""

    @property
    def has_failover_slots(self) -> bool:
        """Whether slots can be carried over to a standby (PostgreSQL 17)."""
        return self.version >= 170000


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A table, or one partition, that a publication publishes."""

    schema: str
    name: str
    identity: str
    """`pg_class.relreplident`: d(efault), n(othing), f(ull), i(ndex)."""
    has_primary_key: bool
    has_identity: bool
    """Whether an UPDATE or DELETE can be published; without it the server refuses them."""
    unique_index: str | None
    """An index that could serve as the identity."""

    @property
    def identifier(self) -> sql.Identifier:
        """Its name for a statement."""
        return sql.Identifier(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class Publication:
    """A publication and what it publishes."""

    name: str
    all_tables: bool
    operations: tuple[str, ...]
    """Of insert, update, delete, truncate."""
    tables: tuple[PublishedTable, ...]

    @property
    def needs_identity(self) -> bool:
        """Whether the server refuses an UPDATE or DELETE of a published table that has no replica identity."""
        return "update" in self.operations or "delete" in self.operations


@dataclass(frozen=True, slots=True)
class WantedTable:
    """A table that the publication shall publish, as the caller wrote it, and what the server has of that name."""

    written: str
    schema: str | None
    name: str | None
    publishable: bool
    """An ordinary or partitioned table that is neither temporary nor unlogged, nor one of the system's own."""
    published: bool
    """Whether the publication has it already, or its partitions."""

    @property
    def identifier(self) -> sql.Identifier:
        """Its name for a statement."""
        return sql.Identifier(self.schema, self.name) if self.schema and self.name else sql.Identifier(self.written)


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything that was looked at, in one transaction."""

    publication_name: str
    slot_name: str
    server: Server
    publication: Publication | None
    slot: Slot | None
    wanted: tuple[WantedTable, ...] = ()
    failover: bool = False
    """Whether the slot shall be carried over to a standby."""


_SERVER: Final = """
SELECT current_setting('server_version_num')::int AS version, current_database() AS database, current_user AS user,
    pg_is_in_recovery() AS in_recovery, current_setting('transaction_read_only') = 'on' AS read_only,
    coalesce((SELECT source FROM pg_settings WHERE name = 'default_transaction_read_only'), '') AS read_only_from,
    current_setting('wal_level') AS wal_level,
    rolsuper OR rolreplication OR coalesce((SELECT pg_has_role(current_user, oid, 'USAGE') FROM pg_roles
        WHERE rolname = 'rds_replication'), false) AS may_replicate,
    EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication') AS is_rds,
    has_database_privilege(current_database(), 'CREATE') AS may_create, rolsuper AS is_superuser,
    (SELECT count(*) FROM pg_replication_slots) AS slots_used, current_setting('max_replication_slots')::int AS slots_max,
    ARRAY(SELECT slot_name::text FROM pg_replication_slots WHERE active_pid IS NULL
        ORDER BY restart_lsn NULLS LAST LIMIT 5) AS idle_slots,
    (SELECT count(*) FROM pg_stat_replication) AS senders_used, current_setting('max_wal_senders')::int AS senders_max,
    (SELECT nullif(setting::bigint, -1) * 1048576 FROM pg_settings WHERE name = 'max_slot_wal_keep_size') AS wal_keep_bytes
FROM pg_roles WHERE rolname = current_user
"""
"""The columns are called as the fields of `Server`; so are those of the next queries for `PublishedTable` and `WantedTable`."""

_PUBLICATION: Final = """
SELECT puballtables, array_remove(ARRAY[CASE WHEN pubinsert THEN 'insert' END, CASE WHEN pubupdate THEN 'update' END,
    CASE WHEN pubdelete THEN 'delete' END, CASE WHEN pubtruncate THEN 'truncate' END], NULL)
FROM pg_publication WHERE pubname = %s
"""

_TABLES: Final = """
SELECT space.nspname AS schema, class.relname AS name, class.relreplident AS identity, key.present AS has_primary_key,
    class.relkind = 'p' OR class.relreplident = 'f' OR (class.relreplident = 'd' AND key.present)
        OR (class.relreplident = 'i' AND EXISTS (SELECT FROM pg_index
            WHERE indrelid = class.oid AND indisreplident AND indisvalid)) AS has_identity,
    (SELECT index.relname FROM pg_index JOIN pg_class AS index ON index.oid = indexrelid
        WHERE indrelid = class.oid AND indisunique AND indimmediate AND indisvalid AND indpred IS NULL AND indexprs IS NULL
            AND NOT EXISTS (SELECT FROM pg_attribute
                WHERE attrelid = class.oid AND attnum = ANY(indkey) AND NOT attnotnull)
        ORDER BY indnkeyatts, index.relname LIMIT 1) AS unique_index
FROM pg_publication_tables AS published
JOIN pg_namespace AS root_space ON root_space.nspname = published.schemaname
JOIN pg_class AS root ON root.relnamespace = root_space.oid AND root.relname = published.tablename
LEFT JOIN LATERAL (SELECT relid FROM pg_partition_tree(root.oid) WHERE isleaf) AS leaf ON true
JOIN pg_class AS class ON class.oid = coalesce(leaf.relid, root.oid)
JOIN pg_namespace AS space ON space.oid = class.relnamespace
CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM pg_index
    WHERE indrelid = class.oid AND indisprimary AND indimmediate AND indisvalid) AS present) AS key
WHERE published.pubname = %s
ORDER BY 1, 2 LIMIT %s
"""
"""A partitioned table is looked at by its partitions: there the server checks the replica identity."""

_WANTED: Final = """
SELECT written, nspname AS schema, relname AS name, coalesce(relkind IN ('r', 'p') AND relpersistence = 'p'
    AND nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast'), false) AS publishable,
    EXISTS (SELECT FROM pg_publication_tables AS published
        JOIN pg_namespace AS space ON space.nspname = published.schemaname
        JOIN pg_class AS class ON class.relnamespace = space.oid AND class.relname = published.tablename
        WHERE pubname = %s AND (class.oid = pg_class.oid
            OR class.oid IN (SELECT relid FROM pg_partition_tree(pg_class.oid) WHERE isleaf))) AS published
FROM unnest(%s::text[]) WITH ORDINALITY AS given(written, place)
LEFT JOIN pg_class ON pg_class.oid = to_regclass(written)
LEFT JOIN pg_namespace ON pg_namespace.oid = relnamespace
ORDER BY place
"""


def check_names(publication: str, slot: str) -> None:
    """Raise `ConfigurationError` for a name that the server would refuse, or, worse, cut."""
    if not _SLOT_NAME.fullmatch(slot):
        msg = f"{slot!r} cannot name a replication slot: 1 to {NAME_BYTES_MAX} of a-z, 0-9 and _"
        raise ConfigurationError(msg)
    if not 0 < len(publication.encode("utf-8", "replace")) <= NAME_BYTES_MAX or "\0" in publication:
        msg = f"{publication[: 2 * NAME_BYTES_MAX]!r} cannot name a publication: 1 to {NAME_BYTES_MAX} bytes without NUL"
        raise ConfigurationError(msg)


async def survey(
    db: Postgres, publication: str, slot: str, *, tables: Sequence[str] | None = None, failover: bool = False
) -> Survey:
    """Look at everything in one transaction. Raises `Unavailable`, the driver's errors, `ConfigurationError` for a bad name."""
    check_names(publication, slot)
    if tables is not None and len(tables) > TABLES_MAX:
        msg = f"publication {publication}: {len(tables)} tables were named; at most {TABLES_MAX}"
        raise ConfigurationError(msg)
    async with db.connection() as conn:
        await settle(conn)
        return Survey(
            publication,
            slot,
            await _server(conn),
            await _publication(conn, publication),
            await read_slot(conn, slot),
            await _wanted(conn, publication, tables or ()),
            failover,
        )


async def settle(conn: psycopg.AsyncConnection[Any]) -> None:
    """Prepare a transaction for looks at the catalog, whatever the settings of the database and the role are.

    The planner expects thousands of rows of the functions in its views, and would compile a query for half a second; and
    psycopg reads times in the ISO style only.
    """
    await conn.execute("SELECT set_config('jit', 'off', true), set_config('datestyle', 'ISO', true)")


async def _server(conn: psycopg.AsyncConnection[Any]) -> Server:
    async with conn.cursor(row_factory=class_row(Server)) as cursor:
        server = await (await cursor.execute(_SERVER)).fetchone()
    assert server is not None, "the query returns one row for the user who asks"  # noqa: S101 - for the type checker
    return server


async def _publication(conn: psycopg.AsyncConnection[Any], name: str) -> Publication | None:
    row = await (await conn.execute(_PUBLICATION, (name,))).fetchone()
    if row is None:
        return None
    async with conn.cursor(row_factory=class_row(PublishedTable)) as cursor:
        tables = await (await cursor.execute(_TABLES, (name, TABLES_MAX))).fetchall()
    return Publication(name, row[0], tuple(row[1]), tuple(tables))


async def _wanted(conn: psycopg.AsyncConnection[Any], publication: str, tables: Sequence[str]) -> tuple[WantedTable, ...]:
    if not tables:
        return ()
    try:
        async with conn.cursor(row_factory=class_row(WantedTable)) as cursor:
            return tuple(await (await cursor.execute(_WANTED, (publication, list(tables)))).fetchall())
    except (errors.InvalidName, errors.SyntaxError, errors.FeatureNotSupported) as error:
        msg = f"a table's name cannot be read ({str(error).splitlines()[0]}): write schema.table, with double quotes as in SQL"
        raise ConfigurationError(msg) from None
