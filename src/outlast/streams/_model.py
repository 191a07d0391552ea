"""Values of streams that users and the engine share."""

from __future__ import annotations

import itertools
import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NUMBER_MAX: Final = 2**53 - 1
"""The largest position, epoch and sequence: the largest integer that every reader of JSON keeps (RFC 8259, section 6)."""
NAME_BYTES_MAX: Final = 1024
LABELS_BYTES_MAX: Final = 1024
"""Bytes of the labels of one stream, as JSON: they are in its `meta` beside the name and the options, in 4 KiB together."""
RECORDS_MAX: Final = 65_536
"""Records of one append."""
APPEND_BYTES_MAX: Final = 32 << 20
"""Bytes of one append, headers and framing included; a frame may hold several appends and has the same limit."""

SEGMENT_BYTES_MIN: Final = 512
SEGMENT_BYTES_MAX: Final = 1 << 30
"""Offsets in a segment have 32 bits."""
PRODUCERS_MAX: Final = 100_000
"""The header of each segment holds the state of all of them: some 10 MiB."""

Headers: TypeAlias = "Mapping[str, str]"


@dataclass(frozen=True, slots=True)
class Producer:
    """The identity of an append, so that a retry is no duplicate: `sequence` counts the appends of one `epoch` from 0.

    A new epoch begins at sequence 0 and fences all older ones.
    """

    id: str
    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Appended:
    """The positions of an append that is stored: `first` to `next` - 1. `duplicate`: by an earlier attempt.

    Both are -1 for a duplicate that is not among the last 8 appends of its producer: it is stored, and where is not remembered.
    """

    first: int
    next: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it is read. `time` is when it was stored, in seconds since 1970."""

    position: int
    data: bytes
    time: float
    headers: Headers = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Delivered:
    """A record as a consumer is handed it. `deliveries` counts how often it was, this time included."""

    record: Record
    deliveries: int

    @property
    def position(self) -> int:
        """The position to acknowledge."""
        return self.record.position

    @property
    def data(self) -> bytes:
        """The content of the record."""
        return self.record.data


@dataclass(frozen=True, slots=True)
class Chunk:
    """The records `first` to `next` - 1, as one read found them. Iterate for a `Record` each; `records` alone costs less.

    An empty one, with `first` equal to `next`, is at the tail.
    """

    first: int
    next: int
    records: Sequence[bytes]
    times_us: Sequence[int]
    """The time at which each was stored, in microseconds since 1970."""
    headers: Sequence[bytes] | None
    """The headers of each as they are stored, a JSON object, or b"" for none; None: no record of it has any."""

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        headers = self.headers or itertools.repeat(b"")
        for position, data, time_us, stored in zip(itertools.count(self.first), self.records, self.times_us, headers):
            yield Record(position, data, time_us / 1e6, json.loads(stored) if stored else {})

    def part(self, first: int, end: int) -> Chunk:
        """Return the records of it that lie at `first` to `end` - 1. `first` lies in it, or is its `next`."""
        part = slice(first - self.first, max(first, end) - self.first)
        records = self.records[part]
        headers = None if self.headers is None else self.headers[part]
        return Chunk(first, first + len(records), records, self.times_us[part], headers)


@dataclass(frozen=True, slots=True)
class Retention:
    """The records that may be given up, whole segments at a time; none by default.

    A segment goes when all its records are older than `age_s`, or the stream is larger than `size_bytes`, or, with
    `when_low`, the disk has too little room. Never one with a record younger than `floor_s`, and never the one that is written
    to, which is closed when it is full, or after a quarter of `age_s`.
    """

    age_s: float | None = None
    size_bytes: int | None = None
    when_low: bool = False
    floor_s: float = 3600.0

    def __post_init__(self) -> None:
        """Raise `ValueError` for what cannot work."""
        if (
            (self.age_s is not None and not self.age_s >= 0)
            or self.floor_s < 0
            or (self.size_bytes is not None and self.size_bytes < 0)
        ):
            raise ValueError(f"retention needs age_s, size_bytes and floor_s of at least 0: {self}")

    @property
    def is_any(self) -> bool:
        """Whether anything is ever let go of."""
        return self.when_low or self.age_s is not None or self.size_bytes is not None


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """The way one stream is kept. It is stored with the stream."""

    sync_every_s: float = 0.0
    """0: an append is on disk when it is acknowledged. Above: it outlives the process at once, and a power cut after so long."""
    retention: Retention = Retention()
    quota_bytes: int | None = None
    """The most that the stream may take on the disk; appends beyond are refused (`LimitError`)."""
    segment_bytes: int = 64 << 20
    producers_max: int = 1000
    producer_idle_s: float = 7 * 86_400.0
    """A producer that was idle for so long may be forgotten when there are `producers_max`; its retries are refused then."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for what cannot work."""
        if not SEGMENT_BYTES_MIN <= self.segment_bytes <= SEGMENT_BYTES_MAX:
            raise ValueError(f"segment_bytes of a stream is {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}, not {self.segment_bytes}")
        if not self.sync_every_s >= 0 or not self.producer_idle_s >= 0:
            raise ValueError(f"sync_every_s and producer_idle_s are at least 0: {self.sync_every_s} and {self.producer_idle_s}")
        if not 1 <= self.producers_max <= PRODUCERS_MAX:
            raise ValueError(f"producers_max of a stream is 1 to {PRODUCERS_MAX}, not {self.producers_max}")
        if self.quota_bytes is not None and self.quota_bytes < 1:
            raise ValueError(f"quota_bytes of a stream is at least 1, not {self.quota_bytes}; None is no quota")


@dataclass(frozen=True, slots=True)
class Listed:
    """The entry of a stream in the catalogue: `id` is that of its folder, `created` in seconds since 1970."""

    name: str
    id: str
    created: float
    labels: Mapping[str, str]


@dataclass(slots=True)
class Entry:
    """One append on its way into the log. `headers` is as long as `records`, each as it is stored, or None."""

    records: Sequence[bytes]
    headers: Sequence[bytes] | None = None
    producer: Producer | None = None
    at: int | None = None
    """The tail it demands."""
    closes: bool = False
    """Whether the stream is closed with it. Only then it may have no record."""
    lengths: bytes = field(init=False, repr=False)
    """The bytes of each record as a frame has them: u32 each. Counted once: there may be 10,000."""
    payload: bytes = field(init=False, repr=False)
    """The records joined."""
    crc: int | None = None
    """The CRC-32C of the payload, where that was worth the while before its frame is made."""

    def __post_init__(self) -> None:
        """Raise `OverflowError` for records that no append may have: they are not joined."""
        lengths = list(map(len, self.records))
        if (size := sum(lengths)) > APPEND_BYTES_MAX:
            raise OverflowError(size)
        self.lengths = struct.pack(f"<{len(lengths)}I", *lengths)
        self.payload = b"".join(self.records)
