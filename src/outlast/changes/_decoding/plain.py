"""Reads the messages of pgoutput that carry no rows: where transactions begin and end, origins, types, logical messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast.changes._decoding.messages import (
    Begin,
    Commit,
    Message,
    Origin,
    StreamAbort,
    StreamCommit,
    StreamStart,
    StreamStop,
    Type,
)

if TYPE_CHECKING:
    from outlast.changes._decoding.messages import AnyMessage
    from outlast.changes._decoding.payload import Reading


def read_plain(reading: Reading, tag: bytes, xid: int | None) -> AnyMessage:
    """Read the rest of the message whose tag has been read; `xid` is that of a message within a streamed piece."""
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
            return _read_stream(reading, tag)


def _read_stream(reading: Reading, tag: bytes) -> AnyMessage:
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
        case _:
            return StreamAbort(reading.xid(), reading.xid())
