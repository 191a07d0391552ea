"""The port of a store of tables. `tests/contract/table_store_contract.py` holds what every store promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outlast import Dependency, Fault
    from outlast.tables._model import FieldType, Range, TableCounts, TableRecord, Tags

ReadRow: TypeAlias = "tuple[int, Tags, int, tuple[Any, ...]]"
"""Series id, tags, time, and a value for each field that was asked for; None where the point has not that field."""


@dataclass(slots=True)
class TableRows:
    """Rows to write into one table, all with the same fields: `[series id, time, *values]`, no two with the same two first.

    A value fits the type of its field: an integer for a FLOAT is one that a double holds exactly.
    """

    table: TableRecord
    fields: tuple[str, ...]
    rows: list[list[Any]]


@dataclass(frozen=True, slots=True)
class RowRefusal:
    """A row that the store refuses for what it is: number `row` of group `group` of the call."""

    group: int
    row: int
    fault: Fault


@dataclass(frozen=True, slots=True)
class Wrote:
    """The end of a write. What is neither refused nor stale is durable; of a write of all or nothing only if both are empty."""

    refused: Sequence[RowRefusal] = ()
    stale: frozenset[int] = frozenset()
    """Groups of which nothing was written, for the table is not as the record says: dropped, or changed by another process, or by
    hand. Fields that others added, and the retention, make nothing stale. A shape puts right what was done by hand."""


@dataclass(frozen=True, slots=True)
class SeriesFound:
    """The end of a look for series: for each its id, or 0 where it would be one too many."""

    ids: Sequence[int]
    full: Mapping[int, str]
    """For each that is 0, by its place: the tag that has `tag_values_max` values already."""


class TableStore(Protocol):
    """Tables of points and their catalogue, shared by any number of processes.

    Every call is one transaction unless it says otherwise, and may be cancelled: it is done or not, and leaves none open. What it
    raises is what the dependency's `use` raises: classified, `Unavailable` while that is down. After an error it is unknown
    whether the call was done; to repeat it is harmless.
    """

    @property
    def dependency(self) -> Dependency:
        """The dependency that its users need; procedures lie in it too."""
        ...

    @property
    def fields_limit(self) -> int:
        """The fields that a table may have at most, whatever the settings say: dropped ones may count."""
        ...

    async def open(self) -> None:
        """Make the catalogue, or bring it to the newest format. Raises `NewerFormatError`. Many processes may call it at once."""
        ...

    async def close(self) -> None:
        """Let go of what the store itself holds, not of the dependency. May be called again."""
        ...

    async def tables(self, *, after: str = "", count: int = 1_000) -> list[TableRecord]:
        """Return tables in the order of their names, by bytes; those whose name is greater than `after`."""
        ...

    async def table(self, name: str) -> TableRecord | None:
        """Return one table; None if there is none."""
        ...

    async def shape(
        self, name: str, fields: Mapping[str, FieldType], *, fields_max: int, retention_s: float | None = None
    ) -> TableRecord:
        """Make a table and the fields that it lacks, and return what it is then: DDL and catalogue in one transaction.

        Many fields of a table that is there may be made in several, some at a time. What somebody dropped by hand is made again.
        May be called any number of times, and by many processes at once. INTEGER and FLOAT together become NUMBER; another
        conflict leaves the field as it is, and a field beyond `fields_max` (or `fields_limit`) is left out: compare what is
        returned. `retention_s` is that of a table that is made by this call. Raises `NameTakenError` where a view, or a table
        of somebody else, has the name.
        """
        ...

    async def drop(self, name: str) -> bool:
        """Drop a table with all it holds; return whether there was one.

        It is gone for everybody at once. What it holds may be deleted in many short transactions after that, and what a call that
        ended early has left of it is deleted by the next, of whatever table: so to drop it again ends it.
        """
        ...

    async def set_retention(self, name: str, retention_s: float | None) -> bool:
        """Set how long points are kept, None forever; return whether there is such a table."""
        ...

    async def series(self, table: TableRecord, tags: Sequence[Tags], *, tag_values_max: int) -> SeriesFound:
        """Return the ids of series, those made that are not there; no two of `tags` are equal.

        A tag gets at most `tag_values_max` values: a series that would bring one more is refused, and the known go on. Many may
        take several transactions. Raises `StaleTableError` where the table is gone.
        """
        ...

    async def write(self, groups: Sequence[TableRows], *, whole: bool = False) -> Wrote:
        """Write rows, all durable when this returns: in one transaction if nothing is refused.

        A row whose series and time are there already is changed field by field: the new values win, fields that it does not name
        keep theirs. A row that the store refuses for what it is (not: fails to take) is found out, and the rest is written.
        `whole`: nothing of the call is written if a row is refused or a group is stale, and both are told all the same.
        """
        ...

    async def read(self, ask: Range, *, after: tuple[int, int] | None = None, count: int = 10_000) -> list[ReadRow]:
        """Return points in the order of series id and time.

        `after` is the series and time of the last one that was read. Points with none of the fields are left out.
        Fields are those of `ask`, or all in the order of the catalogue; one that is not there is None everywhere. Empty for a
        table that is not there, and for one whose points somebody dropped by hand.
        """
        ...

    async def newest(self, table: str, tags: Mapping[str, tuple[str, ...]], count: int) -> list[ReadRow]:
        """Return the newest point of each series, up to `count` series, in the form of `read`, all fields."""
        ...

    async def tag_names(self, table: str = "", *, prefix: str = "", count: int = 25) -> list[str]:
        """Return names of tags, sorted, without repetition; "" stands for all tables."""
        ...

    async def tag_values(self, tag: str = "", *, table: str = "", prefix: str = "", count: int = 25) -> list[str]:
        """Return values of tags, sorted, without repetition; "" stands for all tags, or tables."""
        ...

    async def series_of(self, ask: Range, *, after: int = 0, count: int = 1_000) -> list[tuple[int, Tags]]:
        """Return series that have these tags, in the order of their ids, those above `after`; the time does not matter."""
        ...

    async def counts(self, name: str) -> TableCounts | None:
        """Return what a table holds; None if there is none. Counts exactly only what is quickly counted."""
        ...

    async def expire(self, name: str, before_ns: int, count: int) -> int:
        """Delete up to `count` points older than `before_ns`; return how many, 0 when there are no more.

        It may take several short transactions; the next call goes on where this one ended. It makes room, and so it goes on while
        room is low. A series without points is kept: its tags are known.
        """
        ...
