"""Values without behaviour: of points as they are written, of their outcome, and of what is kept of a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast import Fault

Value: TypeAlias = int | float | str | bool
Tags: TypeAlias = tuple[tuple[str, str], ...]
"""Names and values of tags, sorted by name; none has an empty value."""

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
TIME_MIN_NS: Final = INT64_MIN + 2
TIME_MAX_NS: Final = INT64_MAX - 1
"""The times that InfluxDB takes: 1677-09-21 to 2262-04-11. Its two smallest and its largest number have meanings of their own."""
NAME_BYTES_MAX: Final = 255
"""The bytes of the name of a table, tag or field, in UTF-8. The originals have 65,535 for a whole series."""
TAG_VALUE_BYTES_MAX: Final = 1_024
SERIES_BYTES_MAX: Final = 2_048
"""The bytes of the tags of a series as JSON: PostgreSQL takes no index row of more than 2,704."""
STRING_BYTES_MAX: Final = 65_535
"""The bytes of a value of type STRING, as in InfluxDB 1 and 2."""


class FieldType(Enum):
    """The type of a field. A field that has got one keeps it, but that INTEGER and FLOAT become NUMBER."""

    INTEGER = "integer"
    """64 bits with a sign."""
    FLOAT = "float"
    """A finite double; integers too which a double holds exactly."""
    NUMBER = "number"
    """Integers and doubles side by side, each exact."""
    STRING = "string"
    BOOLEAN = "boolean"


class PointOutcome(Enum):
    """The fate of a point."""

    STORED = "stored"
    """Durable (or, where the caller asked for no more, in line to be)."""
    NEVER = "never"
    """It can never be stored as it is: a bad line, a conflict of types, a hard limit, a time out of range."""
    LATER = "later"
    """It may be stored when it is sent again: the store is away or full, new tables come too quickly, a quota is used up."""
    PERSON = "waits for a person"
    """Its table cannot be made until somebody acts: the name is taken, a right is missing."""


class Series:
    """A table and the tags of it: one line of a graph. Interned: a parser returns the same object for the same head.

    `id` is its number in the store, 0 until that has told it. `of` is what the catalogue knew of its table when it did; when it
    is not what the catalogue has now, `id` means nothing.
    """

    __slots__ = ("id", "of", "table", "tags")

    def __init__(self, table: str, tags: Tags) -> None:
        self.table: Final = table
        self.tags: Final = tags
        self.id = 0
        self.of: object = None

    def __repr__(self) -> str:
        return f"Series({self.table!r}, {dict(self.tags)!r})"


@dataclass(slots=True)
class Rows:
    """The points of one body that have one table, and the same fields of the same types: a shape.

    A row is a list `[series, time_ns, *values]`, a value for each of `fields`; `time_ns` is None for a point without a time.
    `places` has the number of the line (from 1), or of the point (from 0 in an array), for each row.
    """

    table: str
    fields: tuple[str, ...]
    types: tuple[FieldType, ...]
    rows: list[list[Any]] = field(default_factory=list[list[Any]])
    places: list[int] = field(default_factory=list[int])


@dataclass(frozen=True, slots=True)
class PointRefusal:
    """A point that was not stored, and why."""

    place: int
    """The number of its line, from 1; or of the point, from 0, where they came as an array."""
    outcome: PointOutcome
    fault: Fault
    """Its reason names what was seen and what is allowed. `retry_after_s` where the outcome is LATER or PERSON."""
    text: str = ""
    """The line as it came, cut to 200 characters; "" where there was none."""

    @property
    def reason(self) -> str:
        """The reason of its fault."""
        return self.fault.reason


@dataclass(slots=True)
class Parsed:
    """A body that was read: rows by shape, and what cannot be a point."""

    rows: list[Rows] = field(default_factory=list[Rows])
    refused: list[PointRefusal] = field(default_factory=list[PointRefusal])
    points: int = 0
    """Points that it had, the refused too: a parser lists the first 1,000 of those, and counts them all."""
    source: bytes = b""
    """The body, where its places are numbers of lines: what is refused later is shown with its line."""


@dataclass(frozen=True, slots=True)
class Point:
    """One point to write, from Python."""

    table: str
    fields: Mapping[str, Value]
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    time_ns: int | None = None
    """Nanoseconds since 1970 in UTC; None: the time of the server, one for all points of a call."""


@dataclass(frozen=True, slots=True)
class Written:
    """The fate of the points of one call. `points` is `stored` and all that were refused."""

    points: int
    stored: int
    refused: tuple[PointRefusal, ...] = ()
    """The first 1,000 refusals in the order of their places; `counts` has all."""
    counts: Mapping[PointOutcome, int] = field(default_factory=dict[PointOutcome, int])
    retry_after_s: float | None = None
    """The seconds after which it is worth sending again: the longest of all that are LATER or PERSON; None if none is."""


@dataclass(frozen=True, slots=True)
class FieldRecord:
    """A field of a table. `stored` is the name of its column in the store."""

    name: str
    stored: str
    type: FieldType


@dataclass(frozen=True, slots=True)
class TableRecord:
    """A table as the catalogue of the store has it. `stored` is its name in the store."""

    id: int
    name: str
    stored: str
    fields: tuple[FieldRecord, ...]
    retention_s: float | None = None
    created_at: float = 0.0
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class TableCounts:
    """The contents of a table in numbers, counted when it was asked for. `points` may be an estimate (`is_exact`)."""

    series: int
    points: int
    is_exact: bool
    oldest_ns: int | None
    newest_ns: int | None
    stored_bytes: int | None
    """None where the store cannot tell it for one table."""


@dataclass(frozen=True, slots=True)
class Range:
    """A part of a table to read: its series by tags, and a stretch of time, `start_ns` and `end_ns` included."""

    table: str
    fields: tuple[str, ...] = ()
    """Empty: all."""
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """The values that a tag may have; an empty tuple: any, but the series has to have the tag. Tags not named do not matter."""
    start_ns: int = TIME_MIN_NS
    end_ns: int = TIME_MAX_NS


@dataclass(frozen=True, slots=True)
class ReadPoint:
    """A point that was read. A field that it does not have is not in `fields`."""

    tags: Tags
    time_ns: int
    fields: Mapping[str, Value]
