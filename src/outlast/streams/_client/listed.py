"""The values of a node of ours beside the protocol, and how they are read from JSON."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from outlast.streams._model import Delivered, Record


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """One stream as a node lists it: positions `oldest` to `tail` - 1 are there. `created` is in seconds since 1970.

    With `error` it cannot be read, and only its name is known.
    """

    name: str
    id: str = ""
    content_type: str = ""
    oldest: int = 0
    tail: int = 0
    size_bytes: int = 0
    segments: int = 0
    closed: bool = False
    created: float = 0.0
    volume: str = ""
    labels: dict[str, str] = field(default_factory=dict[str, str])
    error: str = ""


@dataclass(frozen=True, slots=True)
class VolumeUsage:
    """One disk of a node. `condition` is that of its room, `state` that of the dependency; `kind`, `code` and `cause` are the
    first cause while it refuses, for `since_s` seconds, and else empty.
    """

    name: str
    total_bytes: int | None = None
    available_bytes: int | None = None
    full_in_s: float | None = None
    condition: str = ""
    state: str = ""
    kind: str = ""
    code: str = ""
    cause: str = ""
    since_s: float | None = None
    streams: int = 0
    backlog_appends: int = 0
    backlog_bytes: int = 0


@dataclass(frozen=True, slots=True)
class VolumeCheck:
    """One disk of a node as `verify` found it. Each finding has the members of `Finding`, which prints as one line."""

    volume: str
    is_healthy: bool
    findings: tuple[dict[str, Any], ...]
    findings_left_out: int = 0
    streams: int = 0
    segments: int = 0
    records: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RecordPage:
    """Records of a stream as one answer has them. `next` is behind the last; `oldest` to `tail` - 1 are there."""

    records: tuple[Record, ...]
    next: int
    oldest: int
    tail: int
    closed: bool


@dataclass(frozen=True, slots=True)
class ConsumerInfo:
    """A consumer of a stream: where it is, and how many records it has not acknowledged (`lag`), or has under way (`open`)."""

    stream: str
    name: str
    next: int
    lag: int
    open: int = 0
    skipped: int = 0
    set_aside: tuple[range, ...] = ()


def stream_info(row: dict[str, Any]) -> StreamInfo:
    """Return a stream from its row. What a newer node says besides is left out."""
    known = {name: row[name] for name in StreamInfo.__dataclass_fields__ if name in row}
    if "created" in known:
        known["created"] = seconds(known["created"])
    return StreamInfo(**known)


def volume_usage(row: dict[str, Any]) -> VolumeUsage:
    """Return a disk from its row."""
    known = {name: row[name] for name in VolumeUsage.__dataclass_fields__ if name in row}
    known |= {name: known.get(name) or "" for name in ("kind", "code", "cause")}
    backlog = cast("dict[str, int]", row.get("backlog") or {})
    return VolumeUsage(**known, backlog_appends=backlog.get("appends", 0), backlog_bytes=backlog.get("bytes", 0))


def volume_check(row: dict[str, Any]) -> VolumeCheck:
    """Return what a check of a disk has found."""
    known = {name: row[name] for name in VolumeCheck.__dataclass_fields__ if name in row}
    known["findings"] = tuple(known.get("findings", ()))
    return VolumeCheck(**known)


def consumer_info(row: dict[str, Any]) -> ConsumerInfo:
    """Return a consumer from its row."""
    aside = tuple(range(first, behind) for first, behind in row.get("set_aside", ()))
    return ConsumerInfo(row["stream"], row["consumer"], row["next"], row["lag"], row.get("open", 0), row.get("skipped", 0), aside)


def record_page(found: dict[str, Any]) -> RecordPage:
    """Return records from the answer that has them."""
    records = tuple(record_of(row) for row in found["records"])
    return RecordPage(records, found["next"], found["oldest"], found["tail"], found["closed"])


def record_of(row: dict[str, Any]) -> Record:
    """Return a record from its row. Bytes that are no UTF-8 come as `data_base64`."""
    data = base64.b64decode(row["data_base64"]) if "data_base64" in row else row["data"].encode()
    return Record(row["position"], data, seconds(row["time"]), row.get("headers", {}))


def delivered_of(row: dict[str, Any]) -> Delivered:
    """Return a record that a consumer was handed."""
    return Delivered(record_of(row), row["deliveries"])


def seconds(moment: str) -> float:
    """Return the seconds since 1970 of an ISO 8601 time."""
    return datetime.fromisoformat(moment).timestamp()
