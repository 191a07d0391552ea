"""Writes pgoutput, for tests: messages to bytes, as the PostgreSQL manual has them, and hypothesis strategies for messages."""

from __future__ import annotations

import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from outlast.changes._decoding.messages import (
    MESSAGE_NAMES,
    UNCHANGED,
    AnyMessage,
    Begin,
    Column,
    Commit,
    Delete,
    Insert,
    Message,
    Origin,
    Relation,
    ReplicaIdentity,
    StreamAbort,
    StreamCommit,
    StreamStart,
    StreamStop,
    Truncate,
    Type,
    Update,
    Values,
)

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
TAGS = {name: bytes([tag]) for tag, name in MESSAGE_NAMES.items()}


def micros(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def row(values: Values) -> bytes:
    parts = [struct.pack(">H", len(values))]
    for value in values:
        match value:
            case None:
                parts.append(b"n")
            case str():
                raw = value.encode()
                parts.append(b"t" + struct.pack(">I", len(raw)) + raw)
            case _:
                assert value is UNCHANGED
                parts.append(b"u")
    return b"".join(parts)


def key_row(relation: Relation, key: Values) -> bytes:
    by_place = dict(zip(relation.key_places, key, strict=True))
    return row(tuple(by_place.get(place) for place in range(len(relation.columns))))


def old(change: Update | Delete) -> bytes:
    if change.old_key is not None:
        return b"K" + key_row(change.relation, change.old_key)
    return b"" if change.old_row is None else b"O" + row(change.old_row)


def encode(message: AnyMessage) -> bytes:
    """The payload of one message."""
    tag = TAGS[type(message).__name__]
    xid = getattr(message, "xid", None)
    if tag in b"IUDTRYM" and xid is not None:
        tag += struct.pack(">I", xid)
    return tag + _body(message)


def _body(message: Any) -> bytes:  # noqa: PLR0911 - one case a message
    match message:
        case Begin():
            return struct.pack(">QqI", message.final_lsn, micros(message.commit_at), message.xid)
        case Commit():
            return struct.pack(">BQQq", 0, message.lsn, message.end_lsn, micros(message.commit_at))
        case Origin():
            return struct.pack(">Q", message.lsn) + text(message.name)
        case Relation():
            columns = [bytes([c.is_key]) + text(c.name) + struct.pack(">Ii", c.type_oid, c.type_mod) for c in message.columns]
            head = struct.pack(">I", message.id) + text(message.schema) + text(message.name)
            return head + message.replica_identity.value.encode() + struct.pack(">H", len(columns)) + b"".join(columns)
        case Type():
            return struct.pack(">I", message.oid) + text(message.schema) + text(message.name)
        case Insert():
            return struct.pack(">I", message.relation.id) + b"N" + row(message.new)
        case Update():
            return struct.pack(">I", message.relation.id) + old(message) + b"N" + row(message.new)
        case Delete():
            return struct.pack(">I", message.relation.id) + old(message)
        case Truncate():
            flags = message.cascade | message.restart_identity << 1
            ids = [relation.id for relation in message.relations]
            return struct.pack(f">IB{len(ids)}I", len(ids), flags, *ids)
        case Message():
            head = struct.pack(">BQ", message.transactional, message.lsn) + text(message.prefix)
            return head + struct.pack(">I", len(message.content)) + message.content
        case _:
            return _stream(message)


def _stream(message: Any) -> bytes:
    match message:
        case StreamStart():
            return struct.pack(">IB", message.xid, message.first)
        case StreamStop():
            return b""
        case StreamCommit():
            return struct.pack(">IBQQq", message.xid, 0, message.lsn, message.end_lsn, micros(message.commit_at))
        case StreamAbort():
            return struct.pack(">II", message.xid, message.subxid)
        case _:
            raise AssertionError(message)


lsns = st.integers(0, 2**64 - 1)
xids = st.integers(1, 2**32 - 1)
oids = st.integers(0, 2**32 - 1)
moments = st.datetimes(timezones=st.just(UTC))
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
schemas = names.map(lambda name: name or "pg_catalog")
values = st.none() | st.just(UNCHANGED) | st.text(max_size=300)
"""`UNCHANGED` anywhere: the decoder need not know where the server would not send it."""
columns = st.builds(Column, names, oids, st.integers(-(2**31), 2**31 - 1), st.booleans())
relations = st.builds(
    Relation, oids, schemas, names, st.sampled_from(ReplicaIdentity), st.lists(columns, max_size=6).map(tuple), st.none()
)
plain = st.one_of(
    st.builds(Begin, lsns, moments, xids),
    st.builds(Commit, lsns, lsns, moments),
    st.builds(Origin, lsns, names),
    st.builds(Type, oids, schemas, names),
    st.builds(Message, st.booleans(), lsns, names, st.binary(max_size=50)),
    st.builds(StreamCommit, xids, lsns, lsns, moments),
    st.builds(StreamAbort, xids, xids),
)
"""Messages that need no relation and may come outside of a piece."""


def rows_of(relation: Relation) -> st.SearchStrategy[Values]:
    return st.tuples(*[values] * len(relation.columns))


@st.composite
def row_changes(draw: st.DrawFn) -> tuple[Relation, AnyMessage]:
    """A relation, and a change of it."""
    relation = draw(relations)
    row_values = rows_of(relation)
    keys = st.tuples(*[values] * len(relation.key_places))
    old_keys = st.builds(lambda key: (key, None), keys) if relation.key_places else st.nothing()
    old_rows = st.builds(lambda whole: (None, whole), row_values)
    match draw(st.sampled_from("IUDT")):
        case "I":
            return relation, Insert(relation, draw(row_values))
        case "U":
            return relation, Update(relation, draw(row_values), *draw(st.just((None, None)) | old_keys | old_rows))
        case "D":
            return relation, Delete(relation, *draw(old_keys | old_rows))
        case _:
            return relation, Truncate((relation,) * draw(st.integers(0, 3)), draw(st.booleans()), draw(st.booleans()))


def in_piece(message: Any, xid: int, relation: Relation) -> Any:
    """The same message as it comes within a piece: with an xid, about a relation that was described there."""
    match message:
        case Insert() | Update() | Delete():
            return message._replace(relation=relation, xid=xid)
        case Truncate():
            return replace(message, relations=(relation,) * len(message.relations), xid=xid)
        case _:
            return replace(message, xid=xid)
