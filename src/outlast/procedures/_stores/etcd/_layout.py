"""The keys of the store, and what their values hold.

Below `a/` lies what every process keeps a mirror of: small values alone. A record that is live or dead lies under its kind and
key, so that etcd itself sees to it that there is one; when it has ended otherwise it moves to its id. Payload, body, result and
signals lie below `v/`, and are read when they are needed: a claim writes a few hundred bytes, however large the payload is.

    a/k/KIND NUL KEY   the head of a record that is live or dead      a/d/ID    the head of one that has ended
    a/l/NAME           the id of the record that holds the lock        a/w/ID    a runner; it ends with the runner's lease
    a/s/ID/MARK        the name of a signal                            a/e/MARK  an event: its number is its revision
    a/p/KIND NUL KEY   a pause                                         a/o       the newest event that is no longer kept
    a/c                the clock                                       a/z       written by each change: who reads knows how far
    v/ID/p b r         payload, body, result                           v/ID/s/MARK   the payload of a signal
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from outlast.etcd import Put
from outlast.procedures._model import Priority, ProcedureRecord, ProcedureState, Signal
from outlast.procedures._stores.clock import KeptClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.etcd import KeyValue

MIRRORED: Final = b"a/"
HEADS: Final = b"a/k/"
ENDED: Final = b"a/d/"
LOCKS: Final = b"a/l/"
RUNNERS: Final = b"a/w/"
SIGNALS: Final = b"a/s/"
EVENTS: Final = b"a/e/"
PAUSES: Final = b"a/p/"
FORGOTTEN: Final = b"a/o"
CLOCK: Final = b"a/c"
FENCE: Final = b"a/z"
TEXTS: Final = b"v/"
_FIELDS: Final = (
    "id",
    "kind",
    "key",
    "version",
    "created_at",
    "token",
    "revivals",
    "owner",
    "deaths",
    "failures",
    "waits_for",
    "cancel_requested",
    "progress",
    "first_fault",
    "last_fault",
    "due_at",
    "deadline_at",
    "began_at",
    "ended_at",
    "until_at",
)
_EMPTY: Final = (None, "", 0, False)


@dataclass(frozen=True, slots=True)
class Head:
    """A record without its texts, as it is in etcd."""

    record: ProcedureRecord
    key: bytes
    revision: int
    """The revision of its last change: what a change of it compares."""
    body: str = ""
    """A short digest of its body: whoever records the same body again records nothing else again."""


def pair(kind: str, key: str) -> bytes:
    """Return the end of a key for a kind and a key. Neither has control characters."""
    return f"{kind}\0{key}".encode()


def unpair(text: bytes) -> tuple[str, str]:
    """Return the kind and the key of a `pair`."""
    kind, _, key = text.decode().partition("\0")
    return kind, key


def texts_of(the_id: str) -> bytes:
    """Return the prefix of a record's texts."""
    return TEXTS + the_id.encode() + b"/"


def signals_of(the_id: str) -> bytes:
    """Return the prefix of a record's signals."""
    return SIGNALS + the_id.encode() + b"/"


def key_of(record: ProcedureRecord) -> bytes:
    """Return the key of a record's head."""
    if record.state in {ProcedureState.DONE, ProcedureState.CANCELLED, ProcedureState.EXPIRED}:
        return ENDED + record.id.encode()
    return HEADS + pair(record.kind, record.key)


def digest(body: str) -> str:
    """Return a short digest of a body."""
    return hashlib.blake2b(body.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest() if body else ""


def encode(record: ProcedureRecord, body: str, mark: str) -> bytes:
    """Return the value of a head. `mark` names the attempt to write it, by which the writer knows it again."""
    fields: dict[str, Any] = {name: value for name in _FIELDS if (value := getattr(record, name)) not in _EMPTY}
    fields |= {"state": record.state.value, "priority": int(record.priority), "w": mark}
    if record.locks:
        fields["locks"] = record.locks
    if body:
        fields["b"] = body
    return _json(fields)


def decode(kv: KeyValue) -> Head:
    """Return the head of a key."""
    fields: dict[str, Any] = json.loads(kv.value)
    del fields["w"]
    body = fields.pop("b", "")
    fields |= {
        "state": ProcedureState(fields["state"]),
        "priority": Priority(fields["priority"]),
        "locks": tuple(fields.get("locks", ())),
    }
    return Head(ProcedureRecord(**fields, payload_json="", read_at=0.0), kv.key, kv.mod_revision, body)


def mark_of(value: bytes) -> str:
    """Return the mark of the attempt that wrote this head."""
    fields: dict[str, Any] = json.loads(value)
    return str(fields["w"])


def event_value(what: str, kind: str, key: str, text: str) -> bytes:
    """Return the value of an event."""
    return _json([what, kind, key, text])


def signal_value(name: str, payload_json: str) -> bytes:
    """Return the value of a signal's payload."""
    return _json([name, payload_json])


def with_texts(record: ProcedureRecord, kvs: Sequence[KeyValue], read_at: float) -> ProcedureRecord:
    """Return a record with what lies below its prefix of texts."""
    start = len(texts_of(record.id))
    found = {kv.key[start:]: kv for kv in kvs}
    texts = {name: found[name].value.decode() for name in (b"p", b"b", b"r") if name in found}
    signals = sorted((kv for name, kv in found.items() if name.startswith(b"s/")), key=lambda kv: (kv.create_revision, kv.key))
    return replace(
        record,
        payload_json=texts.get(b"p", ""),
        body_json=texts.get(b"b", ""),
        result_json=texts.get(b"r"),
        signals=tuple(Signal(*json.loads(kv.value)) for kv in signals),
        read_at=read_at,
    )


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def clock_of(kv: KeyValue | None) -> KeptClock | None:
    """Return what is kept of the clock."""
    if kv is None:
        return None
    fields: dict[str, Any] = json.loads(kv.value)
    return KeptClock(fields["boot"], float(fields["offset"]), float(fields["at"]))


def clock_put(kept: KeptClock) -> Put:
    """Return the write that keeps the clock."""
    return Put(CLOCK, json.dumps({"boot": kept.boot_id, "offset": kept.offset_s, "at": round(kept.seen_at, 3)}).encode())
