"""The values that etcd stores and answers."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast import Fault


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key and its value, as they were at one revision of the store."""

    key: bytes
    value: bytes
    create_revision: int
    """The revision at which the key was made."""
    mod_revision: int
    """The revision of its last change: what a compare-and-swap compares."""
    version: int
    """The number of changes since it was made, that one included."""
    lease: int = 0
    """The lease that it ends with; 0: none."""


@dataclass(frozen=True, slots=True)
class Range:
    """The keys below a prefix, in their order, all of one revision."""

    kvs: Sequence[KeyValue]
    revision: int
    """The revision of the store at which they were read: a watch goes on from here."""
    more: bool = False
    """Whether there are more than were asked for."""
    count: int = 0
    """The number of keys below the prefix, read or not."""


@dataclass(frozen=True, slots=True)
class Compare:
    """A condition of a transaction. Made by `absent`, `exists`, `mod_revision`, `created` and `value_is`."""

    key: bytes
    target: Literal["MOD", "CREATE", "VALUE"]
    result: Literal["EQUAL", "GREATER", "LESS", "NOT_EQUAL"]
    number: int = 0
    value: bytes = b""

    @classmethod
    def absent(cls, key: bytes) -> Compare:
        """Return the condition that the key is not there."""
        return cls(key, "CREATE", "EQUAL")

    @classmethod
    def exists(cls, key: bytes) -> Compare:
        """Return the condition that the key is there."""
        return cls(key, "CREATE", "NOT_EQUAL")

    @classmethod
    def mod_revision(cls, key: bytes, revision: int) -> Compare:
        """Return the condition that the key was last changed at this revision."""
        return cls(key, "MOD", "EQUAL", revision)

    @classmethod
    def created(cls, key: bytes, revision: int) -> Compare:
        """Return the condition that the key was made at this revision: it is not another one of the same name."""
        return cls(key, "CREATE", "EQUAL", revision)

    @classmethod
    def value_is(cls, key: bytes, value: bytes) -> Compare:
        """Return the condition that the key has this value."""
        return cls(key, "VALUE", "EQUAL", value=value)


@dataclass(frozen=True, slots=True)
class Put:
    """Write a key in a transaction."""

    key: bytes
    value: bytes
    lease: int = 0
    """The lease that the key ends with; 0: none."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a key in a transaction, or with `is_prefix` every key that begins with it."""

    key: bytes
    is_prefix: bool = False


@dataclass(frozen=True, slots=True)
class Get:
    """Read a key in a transaction, or with `is_prefix` the first `limit` keys that begin with it."""

    key: bytes
    is_prefix: bool = False
    limit: int = 100


Op = Put | Delete | Get


@dataclass(frozen=True, slots=True)
class TxnResult:
    """The outcome of a transaction."""

    succeeded: bool
    """Whether the comparisons held, and `then` was done; else `otherwise` was. Neither is an error."""
    revision: int
    """The revision of the store after it: that of the change, if it made one."""
    responses: Sequence[Range | int]
    """For each operation that was done, in their order: what a `Get` read, how many keys a `Delete` deleted, 0 for a `Put`."""


class Change(enum.Enum):
    """A way in which a key changes."""

    PUT = "put"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a key. Of a deletion `kv` has the key and the revision of the deletion, and no value."""

    change: Change
    kv: KeyValue


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """Changes in the order of their revisions. A revision is never divided between two batches."""

    events: Sequence[Event]
    revision: int
    """All changes up to this revision have been handed out: a later watch goes on after it."""


@dataclass(frozen=True, slots=True)
class Old:
    """The notice that what was handed out before may be old from now on."""

    fault: Fault
    """The reason: why etcd cannot be followed."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm of the cluster: "NOSPACE" or "CORRUPT"."""

    name: str
    member_id: int


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """The state of one member, as it says itself."""

    version: str
    member_id: int
    leader_id: int
    """0: it knows of no leader."""
    db_size_bytes: int
    """The size of its file, which the quota is for. Only `defragment` makes it smaller."""
    db_in_use_bytes: int
    """The part of that which is in use."""
    quota_bytes: int | None
    """Its quota; None: it does not say (before etcd 3.6)."""
