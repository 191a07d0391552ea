"""Reads the messages of pgoutput that carry no rows: where transactions begin and end, origins, types, logical messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast.changes._decoding.messages import (
    Begin,
    BeginPrepare,
    Commit,
    CommitPrepared,
    Message,
    Origin,
    Prepare,
    RollbackPrepared,
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
    Type,
)

if TYPE_CHECKING:
    from outlast.changes._decoding.messages import AnyMessage
    from outlast.changes._decoding.reading import Reading

_PARALLEL_SINCE = 4
"""The protocol version from which StreamAbort may say where and when."""


def read_plain(reading: Reading, tag: bytes, xid: int | None, proto_version: int) -> AnyMessage:
    """The message whose tag has been read; `xid` is that of a message within a streamed piece."""
    match tag:
        case b"B":
            return Begin(reading.lsn("the final LSN"), reading.time("the commit time"), reading.xid())
        case b"C":
            reading.flags(0)
            return Commit(reading.lsn("the commit LSN"), reading.lsn("the end LSN"), reading.time("the commit time"))
        case b"O":
            return Origin(reading.lsn("the origin's LSN"), reading.text("the origin's name"))
        case b"Y":
            oid = reading.u32("the type's id")
            return Type(oid, reading.text("the schema's name") or "pg_catalog", reading.text("the type's name"), xid)
        case b"M":
            transactional = reading.flags(1) == 1
            lsn, prefix = reading.lsn("the message's LSN"), reading.text("the prefix")
            return Message(transactional, lsn, prefix, reading.take(reading.u32("the content's length"), "the content"), xid)
        case _:
            return _read_stream(reading, tag, proto_version) or _read_two_phase(reading, tag)


def _read_stream(reading: Reading, tag: bytes, proto_version: int) -> AnyMessage | None:
    match tag:
        case b"S":
            return StreamStart(reading.xid(), reading.flags(1) == 1)
        case b"E":
            return StreamStop()
        case b"c":
            xid = reading.xid()
            reading.flags(0)
            lsn, end_lsn = reading.lsn("the commit LSN"), reading.lsn("the end LSN")
            return StreamCommit(xid, lsn, end_lsn, reading.time("the commit time"))
        case b"A":
            xid, subxid = reading.xid(), reading.xid()
            if proto_version < _PARALLEL_SINCE or reading.at == len(reading.data):
                return StreamAbort(xid, subxid)
            return StreamAbort(xid, subxid, reading.lsn("the abort LSN"), reading.time("the abort time"))
        case _:
            return None


def _read_two_phase(reading: Reading, tag: bytes) -> AnyMessage:
    if tag != b"b":
        reading.flags(0)
    first, second, at = reading.lsn("the first LSN"), reading.lsn("the end LSN"), reading.time("the time")
    if tag == b"r":
        rollback_at = reading.time("the time of the rollback")
        return RollbackPrepared(first, second, at, rollback_at, reading.xid(), reading.text("the transaction's name"))
    xid, gid = reading.xid(), reading.text("the transaction's name")
    match tag:
        case b"b":
            return BeginPrepare(first, second, at, xid, gid)
        case b"P":
            return Prepare(first, second, at, xid, gid)
        case b"K":
            return CommitPrepared(first, second, at, xid, gid)
        case _:
            return StreamPrepare(first, second, at, xid, gid)
