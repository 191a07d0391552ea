"""An append of a caller, checked, and as the log takes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from outlast.streams._commit import FRAME_BYTES
from outlast.streams._errors import AppendTooLargeError
from outlast.streams._format.frames import extend
from outlast.streams._format.producers import PRODUCER_ID_BYTES_MAX
from outlast.streams._format.record_headers import encode_headers
from outlast.streams._model import (
    APPEND_BYTES_MAX,
    LABELS_BYTES_MAX,
    NAME_BYTES_MAX,
    NUMBER_MAX,
    RECORDS_MAX,
    Entry,
    Headers,
)

if TYPE_CHECKING:
    from outlast.streams._model import Producer

Records: TypeAlias = "bytes | Sequence[bytes]"
HeadersOf: TypeAlias = "Headers | Sequence[Headers] | None"

RECORD_BYTES: Final = 8
"""Two lengths of 32 bits, of the record and of its headers."""
APPEND_BYTES: Final = 256
"""More than the fixed parts of a frame and of a producer's entry, without its id."""
NO_SEQUENCES: Final = frozenset({bytearray, memoryview, str})
"""Of these, each element is no record."""


def check_name(name: str, what: str = "stream", bytes_max: int = NAME_BYTES_MAX) -> None:
    """Raise `ValueError` for a name that is none: 1 to `bytes_max` bytes of UTF-8 without control characters."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ValueError(f"the name of a {what} is text that UTF-8 can hold, not {name!r}") from None
    if not 0 < size <= bytes_max:
        raise ValueError(f"the name of a {what} has 1 to {bytes_max} bytes of UTF-8, not {size}: {name[:40]!r}")
    if any(ord(each) < 0x20 or 0x7F <= ord(each) < 0xA0 for each in name):
        raise ValueError(f"the name of a {what} has no control characters: {name[:40]!r}")


def entry_of(
    stream: str,
    records: Records,
    headers: HeadersOf = None,
    producer: Producer | None = None,
    at: int | None = None,
    *,
    closes: bool = False,
) -> tuple[Entry, int]:
    """Return the entry and at least the bytes that it takes in the log.

    Raises `TypeError` and `ValueError` for what is no append, and `AppendTooLargeError` for one that is never taken.
    """
    given = (records,) if type(records) is bytes else _checked(records, may_be_none=closes)
    count = len(given)
    if count > RECORDS_MAX:
        raise AppendTooLargeError(stream, "records", count, RECORDS_MAX)
    try:
        entry = Entry(given, None, producer, at, closes)
    except OverflowError as error:
        raise _too_large(stream, error.args[0]) from None
    size = len(entry.payload) + RECORD_BYTES * count + APPEND_BYTES
    if size >= FRAME_BYTES:
        # It has a frame to itself. What is done now is done while the disk is at the frame before it.
        entry.crc = extend(0, entry.payload)
    if headers is not None and count:
        entry.headers = _stored(headers, count)
        size += sum(map(len, entry.headers))
    if producer is not None:
        size += _check_producer(producer)
    if at is not None and not 0 <= at <= NUMBER_MAX:
        raise ValueError(f"an append is to be at a position from 0 to {NUMBER_MAX}, not {at}")
    if size > APPEND_BYTES_MAX:
        raise _too_large(stream, size)
    return entry, size


def _too_large(stream: str, size: int) -> AppendTooLargeError:
    return AppendTooLargeError(stream, "bytes, headers and framing included,", size, APPEND_BYTES_MAX)


def check_labels(stream: str, labels: Mapping[str, str]) -> dict[str, str]:
    """Return a copy. Raises `ValueError` for what are no labels: texts, at most `LABELS_BYTES_MAX` as JSON."""
    copied = dict(labels)
    if any(type(text) is not str for each in copied.items() for text in each):
        raise ValueError(f"stream {stream!r}: labels are texts by texts, not {labels!r:.100}")
    try:
        size = len(json.dumps(copied, ensure_ascii=False, separators=(",", ":")).encode())
    except UnicodeEncodeError:
        raise ValueError(f"stream {stream!r}: labels are texts that UTF-8 can hold, not {labels!r:.100}") from None
    if size > LABELS_BYTES_MAX:
        raise ValueError(f"stream {stream!r}: labels have at most {LABELS_BYTES_MAX} bytes as JSON, not {size}")
    return copied


def _checked(records: object, *, may_be_none: bool) -> tuple[bytes, ...]:
    """Return records of a sequence; a caller may change it later."""
    if type(records) in NO_SEQUENCES or not isinstance(records, Sequence):
        raise TypeError(f"an append takes bytes, or a sequence of bytes, not {type(records).__name__}")
    given = tuple(cast("Sequence[object]", records))
    if not given:
        if may_be_none:
            return ()
        raise ValueError("an append has at least one record; a record may be empty: b''")
    kinds = set(map(type, given))
    if kinds != {bytes}:
        names = ", ".join(sorted(kind.__name__ for kind in kinds - {bytes}))
        raise TypeError(f"a record is bytes, not {names}")
    return cast("tuple[bytes, ...]", given)


def _stored(headers: Headers | Sequence[Headers], count: int) -> Sequence[bytes]:
    if isinstance(headers, Mapping):
        return (encode_headers(headers),) * count
    if len(headers) != count:
        raise ValueError(f"there are {count} records and headers for {len(headers)}: give one mapping for all, or one for each")
    return tuple(map(encode_headers, headers))


def _check_producer(producer: Producer) -> int:
    check_name(producer.id, "producer", PRODUCER_ID_BYTES_MAX)
    for what, number in (("epoch", producer.epoch), ("sequence", producer.sequence)):
        if type(number) is not int or not 0 <= number <= NUMBER_MAX:
            raise ValueError(f"the {what} of a producer is a number from 0 to {NUMBER_MAX}, not {number!r}")
    return len(producer.id.encode())
