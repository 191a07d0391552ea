"""The messages of pgoutput, as values: those of logical replication, protocol versions 1 and 2.

Formats: "Logical Replication Message Formats" in the PostgreSQL manual. A position in the log (LSN) is an int, the number
of bytes since the beginning of the log. Inside a streamed transaction each message carries the `xid` it belongs to, that of
the subtransaction; elsewhere it is None.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class Unchanged(enum.Enum):
    """The type of `UNCHANGED`: a name in one place, equal to itself only, the same after pickling."""

    UNCHANGED = "unchanged"

    def __repr__(self) -> str:
        """Return a short text, for rows that are printed."""
        return "UNCHANGED"


UNCHANGED: Final = Unchanged.UNCHANGED
"""Stands for a large value (TOAST) that an update left alone: the server does not send it, and nobody may invent it."""


Value: TypeAlias = object
"""A column: None (NULL), a str, `UNCHANGED`, or what `typed` makes of it (see `values`)."""
Values: TypeAlias = tuple[Value, ...]


class ReplicaIdentity(enum.Enum):
    """The part of an old row that the server sends with an update or delete (`ALTER TABLE … REPLICA IDENTITY`)."""

    DEFAULT = "d"
    """The primary key."""
    NOTHING = "n"
    """Nothing; the server refuses updates and deletes of a table that publishes them."""
    FULL = "f"
    """The whole row."""
    INDEX = "i"
    """The columns of a unique index."""


@dataclass(frozen=True, slots=True)
class Column:
    """A published column: `type_oid` and `type_mod` as in pg_attribute; `is_key`: part of the replica identity."""

    name: str
    type_oid: int
    type_mod: int
    is_key: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as it looks from here on: sent before its first change, and again after the table was changed."""

    id: int
    schema: str
    name: str
    replica_identity: ReplicaIdentity
    columns: tuple[Column, ...]
    xid: int | None = field(default=None, compare=False)
    """Does not count when relations are compared: they are equal when they describe the same table in the same way."""
    names: tuple[str, ...] = field(init=False, compare=False, repr=False)
    """The names of the columns, in the order of a row's values."""
    key_places: tuple[int, ...] = field(init=False, compare=False, repr=False)
    """The places in a row of the values of the replica identity."""
    key_names: tuple[str, ...] = field(init=False, compare=False, repr=False)
    """The names of the columns of the replica identity, in the order of `old_key` and `key`."""

    def __post_init__(self) -> None:
        """Find the names and places once, not for each row."""
        places = tuple(place for place, column in enumerate(self.columns) if column.is_key)
        object.__setattr__(self, "names", tuple(column.name for column in self.columns))
        object.__setattr__(self, "key_places", places)
        object.__setattr__(self, "key_names", tuple(self.columns[place].name for place in places))

    @property
    def qualified_name(self) -> str:
        """Schema and name for people: `public.orders`. Not quoted, so no part of a statement."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Begin:
    """A transaction begins that is already committed: `final_lsn` is where its commit stands, `commit_at` when it was."""

    final_lsn: int
    commit_at: datetime
    xid: int


@dataclass(frozen=True, slots=True)
class Commit:
    """The end of a transaction: confirm `end_lsn` once it is durable. `lsn` equals `final_lsn` of its Begin."""

    lsn: int
    end_lsn: int
    commit_at: datetime


@dataclass(frozen=True, slots=True)
class Origin:
    """The transaction was replicated to this server from `name`, where it was committed at `lsn`."""

    lsn: int
    name: str


@dataclass(frozen=True, slots=True)
class Type:
    """The name of a column's type that is not built in; sent before the relation that uses it."""

    oid: int
    schema: str
    name: str
    xid: int | None = None


class Insert(NamedTuple):
    """A row was inserted. (Row changes are tuples because they are made a million times a second.)"""

    relation: Relation
    new: Values
    xid: int | None = None

    def as_dict(self) -> dict[str, Value]:
        """Return the new row by column name."""
        return dict(zip(self.relation.names, self.new, strict=True))

    def __eq__(self, other: object) -> bool:
        """Return whether it is the same change, of the same kind: tuples of other kinds are never equal to it."""
        return isinstance(other, Insert) and tuple(self) == tuple(other)

    def __ne__(self, other: object) -> bool:
        """Return the opposite of `__eq__`, where a tuple would decide for itself."""
        return not self == other

    def __hash__(self) -> int:
        """Return the hash of a tuple."""
        return hash(tuple(self))


class Update(NamedTuple):
    """A row was updated. At most one of `old_key` and `old_row` is given, both None when the identity stayed the same.

    `old_key` has the values of `relation.key_names`, sent when they changed; `old_row` the whole row (REPLICA IDENTITY FULL).
    """

    relation: Relation
    new: Values
    old_key: Values | None = None
    old_row: Values | None = None
    xid: int | None = None

    def as_dict(self) -> dict[str, Value]:
        """Return the new row by column name. Large values the update left alone are `UNCHANGED`; `old_row` may have them."""
        return dict(zip(self.relation.names, self.new, strict=True))

    def old_as_dict(self) -> dict[str, Value]:
        """Return what identifies the old row, by column name: its old key, the old row, or the key it still has."""
        return _identity(self.relation, self.old_key, self.old_row or self.new, full=self.old_row is not None)

    def __eq__(self, other: object) -> bool:
        """Return whether it is the same change, of the same kind: tuples of other kinds are never equal to it."""
        return isinstance(other, Update) and tuple(self) == tuple(other)

    def __ne__(self, other: object) -> bool:
        """Return the opposite of `__eq__`, where a tuple would decide for itself."""
        return not self == other

    def __hash__(self) -> int:
        """Return the hash of a tuple."""
        return hash(tuple(self))


class Delete(NamedTuple):
    """A row was deleted. `old_key`: the values of `relation.key_names`; `old_row` instead: the row (REPLICA IDENTITY FULL)."""

    relation: Relation
    old_key: Values | None = None
    old_row: Values | None = None
    xid: int | None = None

    def old_as_dict(self) -> dict[str, Value]:
        """Return what identifies the row, by column name."""
        return _identity(self.relation, self.old_key, self.old_row or (), full=True)

    def __eq__(self, other: object) -> bool:
        """Return whether it is the same change, of the same kind: tuples of other kinds are never equal to it."""
        return isinstance(other, Delete) and tuple(self) == tuple(other)

    def __ne__(self, other: object) -> bool:
        """Return the opposite of `__eq__`, where a tuple would decide for itself."""
        return not self == other

    def __hash__(self) -> int:
        """Return the hash of a tuple."""
        return hash(tuple(self))


def _identity(relation: Relation, key: Values | None, row: Values, *, full: bool) -> dict[str, Value]:
    if key is not None:
        return dict(zip(relation.key_names, key, strict=True))
    if full:
        return dict(zip(relation.names, row, strict=True))
    return {relation.names[place]: row[place] for place in relation.key_places}


@dataclass(frozen=True, slots=True)
class Truncate:
    """Tables were emptied, all in one statement."""

    relations: tuple[Relation, ...]
    cascade: bool
    restart_identity: bool
    xid: int | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A message written with `pg_logical_emit_message`; one that is not transactional comes at once, outside of any."""

    transactional: bool
    lsn: int
    prefix: str
    content: bytes
    xid: int | None = None


@dataclass(frozen=True, slots=True)
class StreamStart:
    """A piece of a transaction that is still in progress follows, up to StreamStop. It may yet be aborted."""

    xid: int
    first: bool
    """Whether it is the transaction's first piece."""


@dataclass(frozen=True, slots=True)
class StreamStop:
    """The end of a piece."""


@dataclass(frozen=True, slots=True)
class StreamCommit:
    """A streamed transaction is committed: its pieces count."""

    xid: int
    lsn: int
    end_lsn: int
    commit_at: datetime


@dataclass(frozen=True, slots=True)
class StreamAbort:
    """`subxid` of the streamed transaction `xid` was rolled back; all of it when they are equal."""

    xid: int
    subxid: int


Change: TypeAlias = Insert | Update | Delete | Truncate | Message
"""One of the changes of a transaction. A `Message` here is a transactional one."""

AnyMessage: TypeAlias = Begin | Commit | Origin | Relation | Type | Change | StreamStart | StreamStop | StreamCommit | StreamAbort

MESSAGE_NAMES: Final[Mapping[int, str]] = {
    ord(tag): name
    for tag, name in {
        "B": "Begin",
        "C": "Commit",
        "O": "Origin",
        "R": "Relation",
        "Y": "Type",
        "I": "Insert",
        "U": "Update",
        "D": "Delete",
        "T": "Truncate",
        "M": "Message",
        "S": "StreamStart",
        "E": "StreamStop",
        "c": "StreamCommit",
        "A": "StreamAbort",
    }.items()
}
"""The first byte of each message, and what it is called."""
TWO_PHASE: Final = frozenset(b"bPKrp")
"""The first bytes of messages about prepared transactions: not read here, and sent at any version if the slot has `two_phase`."""
