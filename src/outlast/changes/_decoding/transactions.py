"""Puts messages together into transactions, in memory that is bounded however large the transaction is.

A small transaction is one `Transaction`. A large one comes as several `TransactionPart`s, in order and with nothing in
between. Transactions that the server streams while they are in progress (protocol 2) wait in a `Spool` until they
are committed, and what was rolled back by then never appears.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

from outlast.changes._decoding.messages import (
    MESSAGE_NAMES,
    Begin,
    Commit,
    Delete,
    Insert,
    Message,
    Origin,
    Relation,
    StreamAbort,
    StreamCommit,
    StreamStart,
    StreamStop,
    Truncate,
    Update,
)
from outlast.changes._decoding.payload import PgOutputError
from outlast.changes._decoding.spool import MemorySpool, SpoolFullError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from outlast.changes._decoding.decoder import Decoder
    from outlast.changes._decoding.messages import AnyMessage, Change
    from outlast.changes._decoding.spool import Spool

CHANGES_MAX: Final = 10_000
BYTES_MAX: Final = 8 << 20
"""Of payload; as Python values it is some four times as much."""
ABORTED_MAX: Final = 1_000_000
"""Subtransactions rolled back in one streamed transaction: at some 90 bytes each, 90 MB."""
_ROWS: Final = (Insert, Update, Delete, Truncate)
_SPOOLED: Final = frozenset(b"IUDTM")
_HEAD_BYTES: Final = 5
"""Tag and xid of a message within a piece."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """A whole transaction. Confirm `end_lsn` once it is durable; `commit_lsn` tells it from all others of the server."""

    xid: int
    commit_lsn: int
    end_lsn: int
    commit_at: datetime
    origin: Origin | None
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class TransactionPart:
    """A part of a transaction too large to be handed over at once, numbered from 0; together the parts are one transaction.

    `end_lsn` is known in the `last` part only: confirm it then, and nothing before.
    """

    xid: int
    commit_lsn: int
    commit_at: datetime
    origin: Origin | None
    number: int
    last: bool
    changes: tuple[Change, ...]
    end_lsn: int | None

    @property
    def first(self) -> bool:
        """Whether the transaction begins with it."""
        return self.number == 0


Unit: TypeAlias = Transaction | TransactionPart | Message
"""One thing that comes out: a transaction, a part of one, or a message that is in no transaction."""


@dataclass(slots=True)
class _Open:
    """The transaction being put together."""

    xid: int
    commit_lsn: int
    commit_at: datetime
    origin: Origin | None
    changes: list[Change]
    size: int = 0
    number: int = 0
    left_out: bool = False
    """Whether it had changes that were not to be passed on."""

    def part(self) -> TransactionPart:
        """Return what there is as a part, and begin the next one."""
        part = TransactionPart(
            self.xid, self.commit_lsn, self.commit_at, self.origin, self.number, False, tuple(self.changes), None
        )
        self.number += 1
        self.size = 0
        self.changes.clear()
        return part

    def end(self, end_lsn: int) -> tuple[Transaction | TransactionPart, ...]:
        """Return the rest, which is all of it unless there were parts; nothing where all that it had was left out."""
        if self.number:
            return (replace(self.part(), last=True, end_lsn=end_lsn),)
        if self.left_out and not self.changes:
            return ()
        return (Transaction(self.xid, self.commit_lsn, end_lsn, self.commit_at, self.origin, tuple(self.changes)),)


class Assembler:
    """Takes the payloads of one connection in order and returns transactions, each when it is committed.

    At most `changes_max` changes and, unless a single one is larger, `bytes_max` bytes of payload come at once. `spool` keeps
    the pieces of streamed transactions as they came: an error in them is found when they are committed. Use a new one, with a
    new decoder, for each connection, and `close` the old one, which empties the spool. What the decoder leaves out does not come,
    and of a transaction that had nothing else nothing does.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        spool: Spool | None = None,
        changes_max: int = CHANGES_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        """Without a spool, pieces are kept in memory, 64 MiB of them at most. Limits below 1 raise ValueError."""
        if changes_max < 1 or bytes_max < 1:
            msg = f"changes_max={changes_max}, bytes_max={bytes_max}: a transaction has room for at least one of each"
            raise ValueError(msg)
        self._decoder = decoder
        self._decode = decoder.decode
        self._spool: Spool = MemorySpool() if spool is None else spool
        self._changes_max = changes_max
        self._bytes_max = bytes_max
        self._open: _Open | None = None
        self._streams: dict[int, _Stream] = {}
        self._piece: int | None = None
        """The streamed transaction of which a piece is being received."""
        self._unread: int | None = None
        """A streamed transaction that was handed over and not yet read to its end."""

    @property
    def in_progress(self) -> int:
        """The number of streamed transactions that wait for their commit."""
        return len(self._streams)

    @property
    def idle(self) -> bool:
        """Whether no message of a transaction is being received or handed over; streamed ones may wait for their commit."""
        return self._open is None and self._piece is None and self._unread is None

    def feed(self, payload: bytes | bytearray | memoryview) -> Iterable[Unit]:
        """Return what is complete with this message: most often nothing. Read all of it before the next call.

        Raises `PgOutputError` for what makes no sense, `SpoolFullError` or OSError when the spool has no room; read no
        further on this connection then. Raises RuntimeError when the last answer was not read to its end.
        """
        if self._unread is not None:
            msg = f"the parts of transaction {self._unread} were not read to their end before the next message"
            raise RuntimeError(msg)
        if self._piece is not None:
            self._keep(payload if isinstance(payload, bytes) else bytes(payload), self._piece)
            return ()
        message = self._decode(payload)
        if isinstance(message, _ROWS):
            return self._add(message, len(payload))
        return self._bound(message, payload)

    def feed_all(self, payloads: Iterable[bytes]) -> Iterator[Unit]:
        """Yield what is complete with these messages, one after the other: as `feed` for each, but faster."""
        source = iter(payloads)
        for first in source:
            yield from self.feed(first)
            while self._open is not None and self._piece is None:
                payload = self._fill(self._open, self._decoder, source)
                if payload is None:
                    return
                yield from self.feed(payload)

    def _fill(self, current: _Open, decoder: Decoder, source: Iterator[bytes]) -> bytes | None:
        """Take rows as long as there is room for them; return the payload that comes after them, None at the end."""
        changes = current.changes
        room = islice(source, self._changes_max - len(changes))
        taken, payload = decoder.decode_rows(room, changes, self._bytes_max - current.size)
        current.size += taken
        return next(source, None) if payload is None else payload

    def close(self) -> None:
        """Forget what is in progress and free its room in the spool. The spool itself stays open."""
        for xid in self._streams:
            self._spool.discard(xid)
        self._streams.clear()
        self._open = None

    def _add(self, change: Change, size: int) -> tuple[Unit, ...]:
        current = self._open
        if current is None:
            _refuse(change, "it comes outside of any transaction")
        kept = self._decoder.kept(change)
        if kept is None:
            current.left_out = True
            return ()
        change = kept
        changes = current.changes
        total = current.size + size
        if (total > self._bytes_max and changes) or len(changes) >= self._changes_max:
            part = current.part()
            changes.append(change)
            current.size = size
            return (part,)
        changes.append(change)
        current.size = total
        return ()

    def _bound(self, message: AnyMessage, payload: bytes | bytearray | memoryview) -> Iterable[Unit]:
        """Take anything but a row, outside of pieces."""
        match message:
            case Begin():
                if self._open is not None:
                    _refuse(message, f"transaction {self._open.xid} has not ended")
                self._open = _Open(message.xid, message.final_lsn, message.commit_at, None, [])
            case Commit():
                return self._commit(message)
            case Origin():
                if self._open is None:
                    _refuse(message, "it comes outside of any transaction")
                self._open.origin = message
            case Message():
                return self._add(message, len(payload)) if message.transactional else (message,)
            case StreamStart():
                self._begin_piece(message)
            case StreamCommit():
                stream = self._streams.pop(message.xid, None)
                if stream is None:
                    _refuse(message, f"no piece of transaction {message.xid} has come")
                self._unread = message.xid
                return self._replay(message, stream)
            case StreamAbort():
                self._abort(message)
            case _:
                # What describes a table or a type: the decoder has taken it in.
                pass
        return ()

    def _commit(self, message: Commit) -> tuple[Transaction | TransactionPart, ...]:
        current = self._open
        if current is None:
            _refuse(message, "no transaction has begun")
        if message.lsn != current.commit_lsn:
            _refuse(message, f"its LSN is not the one with which transaction {current.xid} began")
        self._open = None
        return current.end(message.end_lsn)

    def _begin_piece(self, message: StreamStart) -> None:
        if self._open is not None:
            _refuse(message, f"transaction {self._open.xid} has not ended")
        if message.first == (message.xid in self._streams):
            _refuse(
                message, f"the first piece of transaction {message.xid} " + ("came before" if message.first else "is missing")
            )
        self._streams.setdefault(message.xid, _Stream(set()))
        self._piece = message.xid

    def _keep(self, data: bytes, xid: int) -> None:
        """Keep a message of a piece: rows as they are; the descriptions of tables are read now and kept too."""
        whole_head = len(data) >= _HEAD_BYTES
        if whole_head and data[0] in _SPOOLED:
            self._spool.append(xid, data)
            return
        message = self._decode(data)
        if isinstance(message, Relation):
            self._spool.append(xid, data)
        elif isinstance(message, StreamStop):
            self._piece = None
        elif isinstance(message, Origin):
            self._streams[xid].origin = message

    def _abort(self, message: StreamAbort) -> None:
        stream = self._streams.get(message.xid)
        if stream is None:
            return
        if message.xid == message.subxid:
            del self._streams[message.xid]
            self._spool.discard(message.xid)
            return
        if len(stream.aborted) >= ABORTED_MAX:
            raise SpoolFullError(message.xid, "rolled back subtransactions", len(stream.aborted), ABORTED_MAX)
        stream.aborted.add(message.subxid)

    def _replay(self, commit: StreamCommit, stream: _Stream) -> Iterator[Unit]:
        """Yield the transaction out of the spool, decoded now."""
        decoder = self._decoder.within_piece(commit.xid)
        self._open = current = _Open(commit.xid, commit.lsn, commit.commit_at, stream.origin, [])
        try:
            source = _without(stream.aborted, self._spool.records(commit.xid))
            while (record := self._fill(current, decoder, source)) is not None:
                change = decoder.decode(record)
                if isinstance(change, Insert | Update | Delete | Truncate | Message):
                    yield from self._add(change, len(record))
            yield from current.end(commit.end_lsn)
        finally:
            self._spool.discard(commit.xid)
            self._open = self._unread = None


@dataclass(slots=True)
class _Stream:
    """A streamed transaction in progress: which of its subtransactions were rolled back."""

    aborted: set[int]
    origin: Origin | None = None


def _without(aborted: set[int], records: Iterator[bytes]) -> Iterator[bytes]:
    """Leave out what was rolled back, but not the descriptions of tables, which the server sends once."""
    if not aborted:
        return records
    return (each for each in records if each[0] not in _SPOOLED or int.from_bytes(each[1:_HEAD_BYTES]) not in aborted)


def _refuse(message: AnyMessage, problem: str) -> NoReturn:
    name = type(message).__name__
    raise PgOutputError(name, 0, problem, next(tag for tag, known in MESSAGE_NAMES.items() if known == name))
