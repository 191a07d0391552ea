"""Reads pgoutput, the binary form in which PostgreSQL sends changes, protocol versions 1 and 2: bytes in, messages out.

There are two ways through it. `Decoder.decode_rows` reads rows in a tight loop that checks little and cannot be fooled: it
gives up at the slightest oddity. `Reading` then reads the message again, with care: it decodes what is merely rare (very
large rows), and says of what is wrong where and how. Every other message is read with care at once.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from outlast.changes._decoding.messages import (
    UNCHANGED,
    AnyMessage,
    Begin,
    Commit,
    Delete,
    Insert,
    Message,
    Relation,
    StreamAbort,
    StreamCommit,
    StreamStart,
    StreamStop,
    Truncate,
    Update,
)
from outlast.changes._decoding.payload import EPOCH, Converters, Known, PgOutputError, Plan, Reading
from outlast.changes._decoding.plain import read_plain
from outlast.changes._decoding.values import text_decoder

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping

    from outlast.changes._decoding.messages import Change, Value

__all__ = ["PROTOCOL_VERSIONS", "RELATIONS_MAX", "Decoder", "PgOutputError"]

PROTOCOL_VERSIONS: Final = (1, 2)
"""1: PostgreSQL 10; 2, streamed transactions: 14."""
RELATIONS_MAX: Final = 100_000
"""Tables, partitions counted one by one, whose shape is kept: at some 2 KB each for ten columns, 200 MB."""

_HEAD: Final = slice(1, 8)
_HEAD_IN_PIECE: Final = slice(5, 12)
"""After the tag, and after the xid within a piece."""
_INSERT: Final = ord("I")
_DELETE: Final = ord("D")
_OLD_AND_NEW: Final = frozenset(b"UD")
_ROWS: Final = frozenset(b"IUD")
_B: Final = ord("B")
_BOUNDS: Final = frozenset(b"BC")
_BEGIN: Final = struct.Struct(">xQqI")
_COMMIT: Final = struct.Struct(">xBQQq")
_NEW: Final = ord("N")
_KEY: Final = ord("K")
_OLD: Final = ord("O")
_TEXT: Final = ord("t")
_NULL: Final = ord("n")
_NO_VALUE: Final = {_NULL: None, ord("u"): UNCHANGED}
_ODD: Final = (IndexError, KeyError, struct.error, ValueError, ArithmeticError, RecursionError)
"""The errors that the tight loop meets in a message that it should not have tried; UnicodeDecodeError is a ValueError."""
_change_head: Final = struct.Struct(">IB").unpack_from
"""The relation, the mark before the row."""
_count: Final = struct.Struct(">H").unpack_from
_length: Final = struct.Struct(">I").unpack_from
_new: Final = cast("Any", tuple.__new__)  # pyright: ignore[reportUnknownMemberType] - typed where it is used
_new_insert: Final[Callable[[type[Insert], tuple[object, ...]], Insert]] = _new
_new_update: Final[Callable[[type[Update], tuple[object, ...]], Update]] = _new
_new_delete: Final[Callable[[type[Delete], tuple[object, ...]], Delete]] = _new
"""The same as calling the class of a named tuple, without the call in Python."""
_OF_STREAMS: Final = b"SEcA"
_WITHIN_PIECES: Final = b"IUDTRYMOE"
_WITH_XID: Final = b"IUDTRYM"


class Decoder:
    """Turns the messages of one replication connection, in order, into values.

    It remembers the tables that the server has described, as the server describes them once a connection: use a new one for
    each connection. `typed` returns Python values for the common types instead of text, with `json`
    for json and jsonb too. At `relations_max` tables the next new one is refused with `PgOutputError`: nothing may be
    forgotten, since the server does not repeat itself; a new connection starts with none.

    `left_out`: tables whose changes `kept` does not give, and `decode_rows` never adds.

    Text must be UTF-8: connect with client_encoding=UTF8; a database in SQL_ASCII converts nothing, so it has to hold UTF-8.
    It does no I/O and is not for two threads at once.
    """

    __slots__ = (
        "_head",
        "_json",
        "_known",
        "_left_out",
        "_relations",
        "_streams",
        "_typed",
        "_xid",
        "proto_version",
        "relations_max",
    )

    def __init__(
        self,
        proto_version: int = 1,
        *,
        typed: bool = False,
        json: bool = False,
        relations_max: int = RELATIONS_MAX,
        left_out: Container[Relation] = (),
    ) -> None:
        """Raise ValueError for a `proto_version` that is not known."""
        if proto_version not in PROTOCOL_VERSIONS:
            msg = f"protocol version {proto_version} of pgoutput is not known; known are {PROTOCOL_VERSIONS}"
            raise ValueError(msg)
        self.proto_version = proto_version
        self.relations_max = relations_max
        self._typed = typed
        self._json = json
        self._left_out = left_out
        self._relations = Known()
        self._streams: dict[int, Known] = {}
        """What was described inside transactions still in progress: it holds for them alone until they are committed."""
        self._known = self._relations
        """The tables that hold for the message at hand."""
        self._xid: int | None = None
        """The transaction whose piece is being streamed."""
        self._head = _HEAD
        """Where relation, mark and number of columns of an Insert stand."""

    @property
    def streaming_xid(self) -> int | None:
        """The transaction whose piece is being received, None outside of pieces."""
        return self._xid

    @property
    def relations(self) -> Mapping[int, Relation]:
        """The tables known by now, by id: a copy."""
        return {key: plan.relation for key, plan in self._known.plans.items()}

    def within_piece(self, xid: int) -> Decoder:
        """Return a decoder of the same kind that knows no tables and is within a piece of this transaction: to read a spool."""
        other = Decoder(
            self.proto_version,
            typed=self._typed,
            json=self._json,
            relations_max=self.relations_max,
            left_out=self._left_out,
        )
        other._learn_from(StreamStart(xid, first=True), Reading(b"S"))
        return other

    def kept(self, change: Change) -> Change | None:
        """Return what is not left out of a change: all of it, None, or a Truncate of the other tables."""
        if isinstance(change, Truncate):
            relations = tuple([each for each in change.relations if not self._leaves_out(each)])
            if len(relations) == len(change.relations):
                return change
            return replace(change, relations=relations) if relations else None
        return None if not isinstance(change, Message) and self._leaves_out(change.relation) else change

    def decode(self, payload: bytes | bytearray | memoryview) -> AnyMessage:
        """Decode one message, which comes without the header of XLogData (25 bytes).

        Raises `PgOutputError` for whatever is no such message, or has no business at this place of the stream; the decoder
        is then as it was before. Takes time and memory in proportion to the payload.
        """
        data = payload if isinstance(payload, bytes) else bytes(payload)
        tag = data[0] if data else None
        message: AnyMessage | None = None
        if tag in _ROWS:
            rows: list[Change] = []
            self.decode_rows((data,), rows, len(data))
            message = rows[0] if rows else None
        elif tag in _BOUNDS and self._xid is None:
            message = _bound(data)
        return self._carefully(data) if message is None else message

    def decode_rows(self, payloads: Iterable[bytes], into: list[Change], bytes_max: int) -> tuple[int, bytes | None]:
        """Add the rows at the beginning of `payloads` to `into`, as long as they take no more than `bytes_max` together.

        Return how many bytes they took, and the first payload that was not added: it is no row, it is no plain one (`decode`
        reads it), or there is no room; None when all were.
        """
        taken = 0
        heads, head, streaming = self._known.heads, self._head, self._xid is not None
        body = head.stop
        change: Change | None
        for data in payloads:
            try:
                if data[0] == _INSERT:
                    # The row is read in place: a call of its own costs a tenth of the whole.
                    relation, width, converters, _ = heads[data[head]]
                    at = body
                    # One byte, one character: slices are cheap, and those of ASCII only are right already.
                    text = str(data, "latin-1")
                    values: list[Value] = []
                    for _ in range(width):
                        kind = data[at]
                        if kind == _TEXT:
                            start = at + 5
                            at = start + _length(data, at + 1)[0]
                            values.append(text[start:at])
                        elif kind == _NULL:
                            at += 1
                            values.append(None)
                        else:
                            return taken, data
                    if at != len(data):
                        return taken, data
                    if converters or not text.isascii():
                        _finish(values, text, converters)
                    change = _new_insert(Insert, (relation, tuple(values), _xid(data) if streaming else None))
                else:
                    change = self._old_and_new(data) if data[0] in _OLD_AND_NEW else None
                    if change is None:
                        return taken, data
                    at = len(data)
            except _ODD:
                return taken, data
            if taken + at > bytes_max:
                return taken, data
            taken += at
            into.append(change)
        return taken, None

    def _old_and_new(self, data: bytes) -> Update | Delete | None:
        """Read an update or delete that is nothing out of the ordinary; return None, or raise one of `_ODD`, for any other."""
        at = self._head.start
        relation_id, mark = _change_head(data, at)
        plan = self._known.plans[relation_id]
        if plan.left_out:
            return None
        text = str(data, "latin-1")
        at += 5
        old_key = old_row = None
        if mark != _NEW:
            at, values = _row(data, text, at, plan)
            if mark == _OLD:
                old_row = tuple(values)
            elif mark == _KEY and plan.relation.key_places:
                old_key = tuple([values[place] for place in plan.relation.key_places])
            else:
                return None
        xid = None if self._xid is None else _xid(data)
        if data[0] == _DELETE:
            whole = at == len(data) and mark != _NEW
            return _new_delete(Delete, (plan.relation, old_key, old_row, xid)) if whole else None
        if mark != _NEW:
            if data[at] != _NEW:
                return None
            at += 1
        at, values = _row(data, text, at, plan)
        return _new_update(Update, (plan.relation, tuple(values), old_key, old_row, xid)) if at == len(data) else None

    def _carefully(self, data: bytes) -> AnyMessage:
        """Decode a message of any kind, and say precisely where it is wrong. What this changes, it changes at the end."""
        reading = Reading(data)
        tag = data[:1]
        streaming = self._xid
        if tag in _OF_STREAMS and self.proto_version < 2:
            reading.refuse(f"protocol version {self.proto_version} has no such message", 0)
        if streaming is not None and tag not in _WITHIN_PIECES:
            reading.refuse(f"it comes within a piece of the streamed transaction {streaming}", 0)
        if streaming is None and tag == b"E":
            reading.refuse("no piece of a streamed transaction has begun", 0)
        xid = reading.xid() if streaming is not None and tag in _WITH_XID else None
        match tag:
            case b"I" | b"U" | b"D":
                message = self._row_change(reading, xid)
            case b"R":
                message = reading.relation(xid)
            case b"T":
                message = self._truncate(reading, xid)
            case _:
                message = read_plain(reading, tag, xid)
        reading.end()
        self._learn_from(message, reading)
        return message

    def _row_change(self, reading: Reading, xid: int | None) -> AnyMessage:
        plan = self._plan(reading)
        relation = plan.relation
        start = reading.at
        mark = reading.take(1, "the mark before a row")
        old_key = old_row = None
        if mark == b"K" and reading.kind != "Insert":
            old_key = reading.key(plan)
        elif mark == b"O" and reading.kind != "Insert":
            old_row = tuple(reading.row(plan))
        elif mark != b"N" or reading.kind == "Delete":
            reading.refuse("another mark belongs before this row", start)
        if reading.kind == "Delete":
            return Delete(relation, old_key, old_row, xid)
        if mark != b"N" and reading.take(1, "the mark before the new row") != b"N":
            reading.refuse("the mark of the new row is N", reading.at - 1)
        new = tuple(reading.row(plan))
        return Insert(relation, new, xid) if reading.kind == "Insert" else Update(relation, new, old_key, old_row, xid)

    def _truncate(self, reading: Reading, xid: int | None) -> Truncate:
        start = reading.at
        count = reading.u32("the number of relations")
        flags = reading.flags(3)
        if count * 4 != len(reading.data) - reading.at:
            reading.refuse(f"{count} relations do not take {len(reading.data) - reading.at} bytes", start)
        relations = tuple([self._plan(reading).relation for _ in range(count)])
        return Truncate(relations, cascade=bool(flags & 1), restart_identity=bool(flags & 2), xid=xid)

    def _plan(self, reading: Reading) -> Plan:
        start = reading.at
        relation_id = reading.u32("the relation's id")
        plan = self._known.plans.get(relation_id)
        if plan is None:
            reading.refuse(f"relation {relation_id} has not been described on this connection", start)
        return plan

    def _learn_from(self, message: AnyMessage, reading: Reading) -> None:
        """Change what the decoder knows by a message that is whole."""
        match message:
            case Relation():
                self._learn(message, reading)
            case StreamStart():
                self._known = self._streams.setdefault(message.xid, Known())
                self._xid, self._head = message.xid, _HEAD_IN_PIECE
            case StreamStop():
                self._known = self._relations
                self._xid, self._head = None, _HEAD
            case StreamCommit():
                # From now on the server takes them for known in every transaction (cleanup_rel_sync_cache in pgoutput.c).
                self._relations.add_all(self._streams.pop(message.xid, Known()))
            case StreamAbort() if message.xid == message.subxid:
                self._streams.pop(message.xid, None)
            case _:
                pass

    def _learn(self, relation: Relation, reading: Reading) -> None:
        if relation.id not in self._known.plans:
            count = sum(len(known.plans) for known in (self._relations, *self._streams.values()))
            if count >= self.relations_max:
                reading.refuse(f"{count} relations are known, the limit is {self.relations_max}: raise relations_max", 0)
        decoders = [
            (place, text_decoder(column.type_oid, json=self._json))
            for place, column in enumerate(relation.columns if self._typed else ())
        ]
        converters = tuple([(place, convert) for place, convert in decoders if convert is not None])
        self._known.add(Plan(relation, len(relation.columns), converters, self._leaves_out(relation)))

    def _leaves_out(self, relation: Relation) -> bool:
        return relation in self._left_out


def _xid(data: bytes) -> int:
    """Return the transaction that a change within a piece belongs to."""
    xid: int = _length(data, 1)[0]
    if not xid:
        raise ValueError(xid)
    return xid


def _bound(data: bytes) -> Begin | Commit | None:
    """Read a Begin or Commit, of which transactions of a few rows have almost as many as rows; None for anything odd."""
    try:
        if data[0] == _B:
            final_lsn, microseconds, xid = _BEGIN.unpack(data)
            return Begin(final_lsn, EPOCH + timedelta(microseconds=microseconds), xid) if xid else None
        flags, lsn, end_lsn, microseconds = _COMMIT.unpack(data)
        return None if flags else Commit(lsn, end_lsn, EPOCH + timedelta(microseconds=microseconds))
    except _ODD:
        return None


def _row(data: bytes, text: str, at: int, plan: Plan) -> tuple[int, list[Value]]:
    """Return where one row ends, and its values. Raises one of `_ODD` for whatever is not plain."""
    if _count(data, at)[0] != plan.width:
        raise IndexError
    values: list[Value] = []
    at += 2
    for _ in range(plan.width):
        kind = data[at]
        if kind == _TEXT:
            start = at + 5
            at = start + _length(data, at + 1)[0]
            values.append(text[start:at])
        elif kind in _NO_VALUE:
            at += 1
            values.append(_NO_VALUE[kind])
        else:
            raise IndexError
    if plan.converters or not text.isascii():
        _finish(values, text, plan.converters)
    return at, values


def _finish(values: list[Value], text: str, converters: Converters) -> None:
    """Put right what is not ASCII, then convert; ValueError for what is no UTF-8 or no such value."""
    if not text.isascii():
        for place, value in enumerate(values):
            if isinstance(value, str) and not value.isascii():
                values[place] = value.encode("latin-1").decode()
    for place, convert in converters:
        value = values[place]
        if isinstance(value, str):
            values[place] = convert(value)
