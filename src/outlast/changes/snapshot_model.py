"""What an initial snapshot has read and what it has still to read, and what a restart keeps of it. Pure values.

A snapshot reads every published table as it was where the slot begins; the stream then brings what happened since. It is
work of hours, so it is cut into ranges of primary keys, and each range keeps the key up to which the sink has it.

**When the exported snapshot is gone.** It lives as long as the session that exported it. After a restart the rest is read
under a newer snapshot, and rows then come that already hold changes which the stream brings again, in their order:

- A table *with a primary key* goes on where it stood. An insert of a row that is there replaces it, a delete of one that is
  not does nothing, so the copy is right again once the stream has passed `consistent_lsn`, and not before.
- One case cannot be put right like that: an update that changes a primary key *and* leaves a large (TOASTed) value alone, from
  a key that was not read yet to a range that was. The stream does not repeat the value, and nobody has it. Where
  primary keys change, choose `Resume.TABLES`: a table that is not finished is then read again as a whole, under one snapshot.
- A table *without a primary key* is one range and always begins anew. Its rows cannot be replaced, so it needs a
  snapshot whose position is known exactly, and the stream must leave out its changes up to `skip_until_lsn`.

When the slot itself is another one, everything begins anew: changes are missing between the two.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

from outlast import OutlastError

if TYPE_CHECKING:
    from outlast.changes.messages import Relation

Key: TypeAlias = tuple[str, ...]
"""The values of a primary key, as the text that the server writes."""
Row: TypeAlias = tuple[str | None, ...]


class Resume(enum.Enum):
    """What a restart does with tables that were begun under a snapshot that is gone."""

    RANGES = "ranges"
    """Go on in each range where it stood."""
    TABLES = "tables"
    """Read each unfinished table again, under one snapshot."""


class KeylessTableError(OutlastError):
    """A table without primary key cannot be read under a snapshot whose position is not known exactly."""


class SnapshotGoneError(OutlastError):
    """The session that exported the snapshot has ended. Begin again under another one: what was read is kept."""


@dataclass(frozen=True, slots=True)
class Source:
    """A snapshot to read under."""

    lsn: int
    """Where it stands: with `exact` it has just the transactions that were committed up to here, else no later ones."""
    name: str
    """What `SET TRANSACTION SNAPSHOT` takes."""
    exact: bool = False


@dataclass(frozen=True, slots=True)
class RangeState:
    """Rows with `low` < key <= `high`; None: no bound. Those up to `position` are durable in the sink."""

    number: int
    low: Key | None = None
    high: Key | None = None
    position: Key | None = None
    rows: int = 0
    done: bool = False
    source: Source | None = None
    """The snapshot it was read under last; None: not begun. With `mixed` there was another one before."""
    mixed: bool = False

    def began(self, source: Source) -> RangeState:
        """Read on under `source`."""
        mixed = self.mixed or (self.source is not None and self.source != source)
        return replace(self, source=source, mixed=mixed)

    def advanced(self, rows: int, position: Key | None) -> RangeState:
        """After a batch of so many rows became durable."""
        return replace(self, rows=self.rows + rows, position=position)


@dataclass(frozen=True, slots=True)
class TableState:
    """One table: its ranges cover it without gap or overlap."""

    schema: str
    name: str
    key: tuple[str, ...]
    """The columns of the primary key, in its order; () for none: then there is one range without bounds."""
    rows_estimated: int
    ranges: tuple[RangeState, ...]

    @property
    def rows(self) -> int:
        """Rows that the sink has."""
        return sum(each.rows for each in self.ranges)

    @property
    def done(self) -> bool:
        """Whether all of it was read."""
        return all(each.done for each in self.ranges)

    @property
    def begun(self) -> bool:
        """Whether any of it was read, or may have been."""
        return any(each.source is not None for each in self.ranges)

    @property
    def skip_until_lsn(self) -> int:
        """Leave out the stream's changes of this table that were committed up to here; 0: carry all of them out."""
        sources = {each.source for each in self.ranges}
        if len(sources) == 1 and not any(each.mixed for each in self.ranges):
            (source,) = sources
            if source is not None and source.exact:
                return source.lsn
        return 0

    @property
    def consistent_lsn(self) -> int:
        """From where in the stream on the copy of this table equals the table."""
        return max((each.source.lsn for each in self.ranges if each.source is not None), default=0)

    def with_range(self, state: RangeState) -> TableState:
        """The table after one of its ranges has changed."""
        return replace(self, ranges=tuple(state if each.number == state.number else each for each in self.ranges))


@dataclass(frozen=True, slots=True)
class SnapshotState:
    """A whole snapshot. `origin_lsn` is the consistent point of the slot that it belongs to."""

    origin_lsn: int
    tables: tuple[TableState, ...] = field(default=())

    def table(self, schema: str, name: str) -> TableState | None:
        """The state of a table; None when the snapshot does not have it."""
        return next((each for each in self.tables if (each.schema, each.name) == (schema, name)), None)


def carried_over(stored: TableState, key: tuple[str, ...], source: Source, resume: Resume) -> bool:
    """Whether what was read of a table stays; if not it is planned and read anew."""
    if stored.key != key:
        return False
    if stored.done or not stored.begun:
        return True
    if all(each.source in {None, source} and not each.mixed for each in stored.ranges):
        # The snapshot still lives: nothing has changed but the process, or its luck.
        return bool(key)
    return bool(key) and resume is Resume.RANGES


@dataclass(frozen=True, slots=True)
class SnapshotBatch:
    """Rows of one table as the server wrote them, in the order of `relation.columns`."""

    relation: Relation
    rows: tuple[Row, ...]
    number: int
    """Of the range they come from. Batches of one range come in order, ranges of a table at the same time."""


class SnapshotSink(Protocol):
    """Takes the rows. Each may come more than once: a row that is there is replaced."""

    async def begin(self, relation: Relation) -> None:
        """Drop what there is of the table: it is read from its beginning. Durable when this returns; may come twice."""
        ...

    async def write(self, batch: SnapshotBatch) -> None:
        """Take the rows. They are durable when this returns."""
        ...


class SnapshotProgress(Protocol):
    """Keeps the state of snapshots by the name of their stream. Each call is durable when it returns."""

    async def load(self, stream: str) -> SnapshotState | None:
        """What was kept; None if nothing was."""
        ...

    async def replace(self, stream: str, state: SnapshotState) -> None:
        """Keep this instead of whatever was kept."""
        ...

    async def save(self, stream: str, table: TableState, state: RangeState) -> None:
        """Keep the new state of one range of a table that `replace` was told of."""
        ...

    async def forget(self, stream: str) -> None:
        """Drop it."""
        ...
