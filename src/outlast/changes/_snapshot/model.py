"""The state of an initial snapshot: what it has read, what it has still to read, what a restart keeps of it. Pure values.

A snapshot reads every published table as it was where the slot begins; the stream then brings what happened since. It is
work of hours, so it is cut into ranges of primary keys, and each range keeps the key up to which the sink has it.

**When the exported snapshot is gone.** It lives as long as the session that exported it. After a restart the rest is read
under a newer one, whose position is known just as well: the stream leaves out what each table holds already
(`skip_until_lsn`). So a table that was read under one snapshot is right from the beginning, whatever it is like.

A table that was half read begins again, or goes on in its ranges under two snapshots, if all of this holds:

- It has a primary key, which is its replica identity, so that a row which is there can be replaced: the stream then brings
  changes again that some of its rows hold, in their order, and the copy is right once it has passed `consistent_lsn`.
- The sink can replace a row whatever else is there: it has no other unique index on it.
- It has no large (TOASTed) values. An update that changes a primary key *and* leaves such a value alone, from a key that was
  not read yet to a range that was, would come without the value, and nobody would have it. Where no primary key ever
  changes (`keys_change=False`) this does not matter.

When the slot itself is another one, everything begins again: changes are missing between the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

from outlast import OutlastError
from outlast.changes._snapshot.copy_text import Row, parse_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.changes._decoding.messages import Relation

Key: TypeAlias = tuple[str, ...]
"""The values of a primary key, as the text that the server writes."""


class SnapshotGoneError(OutlastError):
    """The session that exported the snapshot has ended. Begin again under another one: what was read is kept."""


@dataclass(frozen=True, slots=True)
class Source:
    """A snapshot to read under: the one that was exported with a slot, which may be a temporary one."""

    lsn: int
    """The consistent point of that slot: it has the transactions whose commit begins before, and no others."""
    name: str
    """The name that `SET TRANSACTION SNAPSHOT` takes."""


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
        """Return the range as it is read on under `source`."""
        mixed = self.mixed or (self.source is not None and self.source != source)
        return replace(self, source=source, mixed=mixed)

    def advanced(self, rows: int, position: Key | None) -> RangeState:
        """Return the range after a batch of so many rows became durable."""
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
        """Leave out the stream's changes of this table that were committed before; 0: carry all of them out."""
        sources = {each.source for each in self.ranges}
        if len(sources) == 1 and not any(each.mixed for each in self.ranges):
            (source,) = sources
            if source is not None:
                return source.lsn
        return 0

    @property
    def consistent_lsn(self) -> int:
        """From where in the stream on the copy of this table equals the table."""
        return max((each.source.lsn for each in self.ranges if each.source is not None), default=0)

    def with_range(self, state: RangeState) -> TableState:
        """Return the table after one of its ranges has changed."""
        return replace(self, ranges=tuple(state if each.number == state.number else each for each in self.ranges))


@dataclass(frozen=True, slots=True)
class SnapshotState:
    """A whole snapshot. `origin_lsn` is the consistent point of the slot that it belongs to."""

    origin_lsn: int
    tables: tuple[TableState, ...] = field(default=())

    def table(self, schema: str, name: str) -> TableState | None:
        """Return the state of a table; None when the snapshot does not have it."""
        return next((each for each in self.tables if (each.schema, each.name) == (schema, name)), None)


def carried_over(stored: TableState, key: tuple[str, ...], *, mixable: bool) -> bool:
    """Return whether what was read of a table stays; if not, it is planned and read again. `mixable`: under two snapshots."""
    return stored.key == key and (stored.done or not stored.begun or (bool(key) and mixable))


@dataclass(frozen=True, slots=True)
class SnapshotBatch:
    """Rows of one table as the server wrote them, in the order of `relation.columns`."""

    relation: Relation
    lines: tuple[bytes, ...]
    """As COPY writes them in its text format, in UTF-8, each with its line end: COPY takes them as they are."""
    number: int
    """Of the range they come from. Batches of one range come in order, ranges of a table at the same time."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """The values, parsed again at each call."""
        return tuple(map(parse_line, self.lines))


class SnapshotSink(Protocol):
    """Takes the rows. Each may come more than once: a row that is there is replaced."""

    async def prepare(self, relations: Sequence[Relation]) -> None:
        """Begin a snapshot of these tables, of which nothing is kept. Raise if what is in them must not be replaced."""
        ...

    async def replaces(self, relation: Relation) -> bool:
        """Return whether an older row can be replaced by a newer one of the same key, whatever else is in the table."""
        ...

    async def begin(self, relation: Relation) -> None:
        """Drop what there is of the table: it is read from its beginning. Durable when this returns; may come twice."""
        ...

    async def write(self, batch: SnapshotBatch) -> None:
        """Take the rows. They are durable when this returns."""
        ...


class SnapshotProgress(Protocol):
    """Keeps the state of snapshots by the name of their stream. Each call is durable when it returns."""

    async def load(self, stream: str) -> SnapshotState | None:
        """Return what was kept; None if nothing was."""
        ...

    async def replace(self, stream: str, state: SnapshotState) -> None:
        """Keep this instead of whatever was kept."""
        ...

    async def save(self, stream: str, table: TableState, state: RangeState) -> None:
        """Keep the new state of one range of a table that `replace` had."""
        ...

    async def forget(self, stream: str) -> None:
        """Drop it."""
        ...


class SnapshotTarget(SnapshotSink, Protocol):
    """The part of a sink that a stream needs to read everything first, and to read it again after a loss."""

    @property
    def due(self) -> bool:
        """Whether everything is to be read: it was begun, or `again` was called, and it is not finished."""
        ...

    @property
    def copied_until(self) -> int:
        """The highest `consistent_lsn` of the tables that `finish` had; 0 if it was not called since `again`."""
        ...

    @property
    def progress(self) -> SnapshotProgress:
        """The store of the state, beside the rows."""
        ...

    async def finish(self, origin_lsn: int, tables: Sequence[TableState]) -> None:
        """Record that all of `tables` was read: from now on `open` returns `origin_lsn`, until the stream has moved it."""
        ...

    async def again(self) -> None:
        """Forget the position, and what was read: everything is read again. What is in the tables may be replaced."""
        ...
