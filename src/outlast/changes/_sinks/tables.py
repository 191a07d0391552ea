"""The tables of a sink, as far as it matters for writing to them: read from the catalogue of its server.

A table of a sink need not be like that of the source: it may be partitioned, have another key, generate a column itself, or
refuse that one is set.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from outlast import Fault, Kind, OutlastError, Scope

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import psycopg

Name: TypeAlias = tuple[str, str]
"""Schema and name."""
NAMED_MAX: Final = 5
_PARTITIONED: Final = "p"
_WITH_PLACES: Final = frozenset("rp")
"""Ordinary and partitioned tables: a row has a place of its own there (ctid). A view has none, a foreign table need not."""

_VERSION: Final = """
concat_ws(' ', class.oid, class.relkind, class.relnamespace::regnamespace, class.relname,
    ARRAY(SELECT xmin FROM pg_attribute WHERE attrelid = class.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum),
    ARRAY(SELECT xmin FROM pg_index WHERE indrelid = class.oid AND indisunique AND indisvalid ORDER BY indexrelid))
"""
"""Another one after every change of the table that may matter: each one writes the rows of the catalogue again."""
VERSIONS: Final = f"""
ARRAY(SELECT (SELECT {_VERSION} FROM pg_class AS class WHERE class.oid = given)
    FROM unnest(ARRAY(SELECT unnest(%s::oid[]))) AS given)
"""  # noqa: S608 - of constants
"""The versions of the tables whose numbers are the parameter, in their order; NULL for one that is gone. The array is hidden from
the planner, which would plan for its length again each time: that costs three times as much as all the rest."""
_LOOK: Final = f"""
SELECT space.nspname, class.relname, class.oid::bigint, {_VERSION}, class.relkind::text,
    (SELECT jsonb_agg(jsonb_build_array(attname, format_type(shown.type, -1), format_type(shown.type, shown.mod),
            base.typtype IN ('c', 'd'), base.typtype = 'e' OR EXISTS (SELECT FROM pg_opclass JOIN pg_am ON pg_am.oid = opcmethod
                WHERE amname = 'btree' AND opcdefault
                    AND opcintype = CASE base.oid WHEN 'varchar'::regtype THEN 'text'::regtype ELSE base.oid END),
            attnotnull, attgenerated <> '', attidentity = 'a') ORDER BY attnum)
        FROM pg_attribute JOIN pg_type AS declared ON declared.oid = atttypid
        CROSS JOIN LATERAL (SELECT CASE declared.typtype WHEN 'd' THEN declared.typbasetype ELSE atttypid END AS type,
            CASE declared.typtype WHEN 'd' THEN declared.typtypmod ELSE atttypmod END AS mod) AS shown
        JOIN pg_type AS base ON base.oid = shown.type
        WHERE attrelid = class.oid AND attnum > 0 AND NOT attisdropped)::text,
    (SELECT jsonb_agg(key.names ORDER BY indisprimary DESC, indisreplident DESC, indexrelid)
        FROM pg_index CROSS JOIN LATERAL (
            SELECT jsonb_agg(attname ORDER BY place) AS names,
                bool_and(attnotnull AND attgenerated = '' AND attcollation = indcollation[place - 1]) AS usable
            FROM unnest(indkey::int2[]) WITH ORDINALITY AS part(number, place)
            LEFT JOIN pg_attribute ON attrelid = indrelid AND attnum = number
            WHERE place <= indnkeyatts) AS key
        WHERE indrelid = class.oid AND indisunique AND indimmediate AND indisvalid AND indpred IS NULL AND indexprs IS NULL
            AND key.usable)::text
FROM unnest(%s::text[], %s::text[]) AS given(schema, name)
JOIN pg_namespace AS space ON space.nspname = given.schema
JOIN pg_class AS class ON class.relnamespace = space.oid AND class.relname = given.name
"""  # noqa: S608 - of constants
"""A domain is shown as what it is made of: what a row holds need not fulfil a condition that was added later. A unique index
that is checked at the end only does not count: for a while there are two rows of one key."""


@dataclass(frozen=True, slots=True)
class SinkColumn:
    """A column of a sink's table."""

    name: str
    type: str
    """As a cast names it, without its length or precision."""
    exact_type: str
    """With both, as a value looks once it is stored."""
    is_composite: bool = False
    """Whether `=` with a parameter needs a cast: the server cannot read a row of a type that it is not told."""
    is_ordered: bool = False
    """Whether its type has an order, and so a cheap `=` that holds for whatever looks the same."""
    not_null: bool = False
    is_generated: bool = False
    """The server computes it, and refuses a value for it."""
    is_always_identity: bool = False
    """GENERATED ALWAYS AS IDENTITY: it takes a value from an insert that insists, and from no update."""


@dataclass(frozen=True, slots=True)
class SinkTable:
    """A table of a sink. `keys`: the columns of each unique index without NULLs, the primary key first."""

    kind: str
    """`pg_class.relkind`."""
    columns: tuple[SinkColumn, ...]
    keys: tuple[tuple[str, ...], ...] = ()
    oid: int = 0
    version: str = ""
    """The same as long as the table is the same, and described in the same way."""

    @property
    def is_partitioned(self) -> bool:
        """Whether its rows are those of its partitions. The children of any other table are tables of their own (ONLY)."""
        return self.kind == _PARTITIONED

    @property
    def has_places(self) -> bool:
        """Whether one row of several that look the same can be told by its place."""
        return self.kind in _WITH_PLACES

    def key_within(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the first key that consists of such columns; () if there is none."""
        known = set(names)
        return next((key for key in self.keys if known.issuperset(key)), ())


class TableChangedError(OutlastError):
    """A table of the sink was changed while it was written; what was written is rolled back, and comes again."""

    def __init__(self, names: Collection[Name]) -> None:
        named = ", ".join(".".join(name) for name in sorted(names)[:NAMED_MAX])
        more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
        reason = f"{named}{more} changed while changes were written there: they are taken back, and written again"
        super().__init__(reason, Fault(Kind.TRANSIENT, "table changed", reason, scope=Scope.CALL))


async def read_tables(conn: psycopg.AsyncConnection[Any], names: Collection[Name]) -> dict[Name, SinkTable]:
    """Look at the tables of these names; one that is not there is left out."""
    if not names:
        return {}
    cursor = await conn.execute(_LOOK, ([schema for schema, _ in names], [name for _, name in names]))
    return dict(map(_table, await cursor.fetchall()))


def _table(row: tuple[Any, ...]) -> tuple[Name, SinkTable]:
    schema, name, oid, version, kind, columns, keys = row
    described = tuple(SinkColumn(*column) for column in json.loads(columns or "[]"))
    return (schema, name), SinkTable(kind, described, tuple(map(tuple, json.loads(keys or "[]"))), oid, version)
