"""Transactions: whole, in parts, streamed and partly rolled back, in memory that is bounded."""

from __future__ import annotations

import errno
import os
import random
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pgoutput_encoder import EPOCH, encode, in_piece

from outlast import Classifiers, Kind, Scope
from outlast.changes import (
    Assembler,
    Decoder,
    Delete,
    FileSpool,
    Insert,
    MemorySpool,
    Message,
    PgOutputError,
    Relation,
    Spool,
    SpoolFullError,
    Transaction,
    TransactionPart,
    Truncate,
    Update,
)
from outlast.changes._decoding.messages import (
    Begin,
    Column,
    Commit,
    Origin,
    ReplicaIdentity,
    StreamAbort,
    StreamCommit,
    StreamStart,
    StreamStop,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DESCRIPTORS = Path("/dev/fd")
TABLE = Relation(16_400, "public", "orders", ReplicaIdentity.DEFAULT, (Column("id", 25, -1, is_key=True),))
AT = EPOCH + timedelta(days=9_000)


def assembler(version: int = 2, **options: Any) -> Assembler:
    return Assembler(Decoder(version), **options)


def fed(target: Assembler, *messages: Any) -> list[Any]:
    return list(target.feed_all(map(encode, messages)))


def row(number: int, xid: int | None = None, relation: Relation = TABLE) -> Insert:
    return Insert(in_piece(relation, xid, relation) if xid else relation, (str(number),), xid)


def piece(xid: int, *messages: Any, first: bool = False, relation: bool = False) -> list[Any]:
    described = [in_piece(TABLE, xid, TABLE)] if relation else []
    return [StreamStart(xid, first=first), *described, *messages, StreamStop()]


def ids(unit: Any) -> list[int]:
    return [int(change.new[0]) for change in unit.changes]


@pytest.fixture(params=["memory", "files"])
def spool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Spool]:
    kept: MemorySpool | FileSpool = MemorySpool() if request.param == "memory" else FileSpool(tmp_path)
    yield kept
    kept.close()


# Committed transactions


def test_a_small_transaction_comes_whole() -> None:
    origin = Origin(77, "elsewhere")
    emptied = Truncate((TABLE,), cascade=False, restart_identity=True)
    said = Message(transactional=True, lsn=5, prefix="p", content=b"c")
    messages = [Begin(100, AT, 7), origin, TABLE, row(1), emptied, said, Commit(100, 110, AT)]
    (unit,) = fed(assembler(), *messages)
    assert unit == Transaction(7, 100, 110, AT, origin, (row(1), emptied, said))


def test_a_large_transaction_comes_in_parts_and_only_the_last_can_be_confirmed() -> None:
    for count, sizes in ((7, [3, 3, 1]), (6, [3, 3]), (4, [3, 1]), (3, [3]), (0, [0])):
        target = assembler(changes_max=3)
        units = fed(target, Begin(100, AT, 7), TABLE, *map(row, range(count)), Commit(100, 110, AT))
        assert [len(unit.changes) for unit in units] == sizes
        assert [number for unit in units for number in ids(unit)] == list(range(count))
        if len(sizes) > 1:
            assert all(isinstance(unit, TransactionPart) for unit in units)
            assert [unit.number for unit in units] == list(range(len(sizes)))
            assert [unit.first for unit in units] == [True, *[False] * (len(sizes) - 1)]
            assert [unit.last for unit in units] == [*[False] * (len(sizes) - 1), True]
            assert [unit.end_lsn for unit in units] == [*[None] * (len(sizes) - 1), 110]


def test_parts_are_bounded_by_bytes_too_and_a_huge_row_is_a_part_of_its_own() -> None:
    size = len(encode(row(1)))
    target = assembler(bytes_max=2 * size)
    huge = Insert(TABLE, ("9" * 100,))
    units = fed(target, Begin(100, AT, 7), TABLE, row(1), row(2), row(3), huge, row(4), Commit(100, 110, AT))
    assert [len(unit.changes) for unit in units] == [2, 1, 1, 1]


def test_messages_together_give_what_they_give_one_by_one() -> None:
    said = Message(transactional=True, lsn=5, prefix="p", content=b"c")
    changes = [
        row(1),
        Delete(TABLE, old_key=("1",)),
        Update(TABLE, ("3",)),
        said,
        *map(row, range(5)),
        row(10**40),
        row(6),
    ]
    small = [Begin(200, AT, 8), row(1), Commit(200, 210, AT)]
    streamed = [*piece(9, row(1, 9), row(2, 10), first=True, relation=True), StreamCommit(9, 300, 310, AT)]
    messages = [Begin(100, AT, 7), TABLE, *changes, Commit(100, 110, AT), *small, *streamed]
    for changes_max, bytes_max in ((100, 1_000), (1, 1_000), (3, 1_000), (100, 30), (100, 1)):
        limits = {"changes_max": changes_max, "bytes_max": bytes_max}
        one, several = assembler(**limits), assembler(**limits)
        expected = [unit for message in messages for unit in one.feed(encode(message))]
        assert fed(several, *messages) == expected
        assert [change for unit in expected for change in unit.changes][: len(changes)] == changes


def test_what_the_source_of_messages_raises_is_not_taken_for_a_damaged_row() -> None:
    def broken() -> Iterator[bytes]:
        yield from map(encode, [Begin(100, AT, 7), TABLE, row(1)])
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(assembler().feed_all(broken()))


def test_a_message_of_no_transaction_comes_at_once() -> None:
    target = assembler()
    said = Message(transactional=False, lsn=5, prefix="p", content=b"c")
    assert fed(target, said) == [said]
    assert fed(target, Begin(100, AT, 7), said) == [said]
    assert fed(target, Commit(100, 110, AT)) == [Transaction(7, 100, 110, AT, None, ())]


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([TABLE, row(1)], "outside of any transaction"),
        ([Origin(1, "x")], "outside of any transaction"),
        ([Commit(1, 2, AT)], "no transaction has begun"),
        ([Begin(1, AT, 7), Begin(1, AT, 8)], "transaction 7 has not ended"),
        ([Begin(1, AT, 7), StreamStart(8, first=True)], "transaction 7 has not ended"),
        ([Begin(1, AT, 7), Commit(2, 3, AT)], "not the one with which transaction 7 began"),
        ([StreamStart(8, first=False)], "the first piece of transaction 8 is missing"),
        ([*piece(8, first=True), StreamStart(8, first=True)], "the first piece of transaction 8 came before"),
        ([StreamCommit(8, 1, 2, AT)], "no piece of transaction 8 has come"),
    ],
)
def test_what_comes_out_of_order_is_refused(messages: list[Any], problem: str) -> None:
    with pytest.raises(PgOutputError, match=problem) as caught:
        fed(assembler(), *messages)
    assert caught.value.seen == encode(messages[-1])[0]


def test_the_rollback_of_a_transaction_nobody_has_seen_changes_nothing() -> None:
    target = assembler()
    assert fed(target, StreamAbort(8, 8), StreamAbort(8, 9)) == []
    assert target.idle


def test_idle_is_between_transactions() -> None:
    target = assembler(changes_max=1)
    seen = [target.idle]
    for message in (
        Begin(100, AT, 7),
        TABLE,
        row(1),
        Commit(100, 110, AT),
        *piece(5, row(1, 5), row(2, 5), first=True, relation=True),
    ):
        fed(target, message)
        seen.append(target.idle)
    assert seen == [True, False, False, False, True, False, False, False, False, True]
    units = target.feed(encode(StreamCommit(5, 100, 110, AT)))
    assert not target.idle
    assert len(list(units)) == 2
    assert target.idle


def test_limits_must_leave_room() -> None:
    with pytest.raises(ValueError, match="room for at least one"):
        assembler(changes_max=0)


# Streamed transactions


def test_pieces_wait_for_their_commit_and_transactions_do_not_mix(spool: Spool) -> None:
    target = assembler(spool=spool, changes_max=2)
    origin = Origin(3, "elsewhere")
    begun = piece(5, origin, row(1, 5), first=True, relation=True)
    assert fed(target, *begun, *piece(6, row(10, 6), first=True, relation=True), *piece(5, row(2, 5), row(3, 5))) == []
    assert fed(target, Begin(50, AT, 9), TABLE, row(99), Commit(50, 51, AT))[0].xid == 9
    assert target.in_progress == 2
    assert spool.bytes_held
    units = fed(target, StreamCommit(5, 100, 110, AT))
    assert [ids(unit) for unit in units] == [[1, 2], [3]]
    assert [(unit.xid, unit.origin, unit.end_lsn) for unit in units] == [(5, origin, None), (5, origin, 110)]
    assert [ids(unit) for unit in fed(target, StreamCommit(6, 120, 130, AT))] == [[10]]
    assert (target.in_progress, spool.bytes_held) == (0, 0)
    # What was described in the piece is known from now on, without another word.
    assert ids(fed(target, Begin(200, AT, 10), row(4), Commit(200, 201, AT))[0]) == [4]


def test_what_was_rolled_back_never_appears(spool: Spool) -> None:
    target = assembler(spool=spool)
    fed(target, *piece(5, row(1, 5), row(2, 6), row(3, 7), first=True, relation=True))
    fed(target, StreamAbort(5, 6), *piece(5, row(4, 8), row(5, 5)), StreamAbort(5, 8))
    fed(target, *piece(9, row(6, 9), first=True, relation=True), StreamAbort(9, 9))
    (unit,) = fed(target, StreamCommit(5, 100, 110, AT))
    assert ids(unit) == [1, 3, 5]
    assert (target.in_progress, spool.bytes_held) == (0, 0)


def test_a_table_described_in_what_was_rolled_back_is_known_all_the_same(spool: Spool) -> None:
    target = assembler(spool=spool)
    fed(target, StreamStart(5, first=True), in_piece(TABLE, 6, TABLE), row(1, 6), StreamStop(), StreamAbort(5, 6))
    fed(target, *piece(5, row(2, 5)))
    (unit,) = fed(target, StreamCommit(5, 100, 110, AT))
    assert ids(unit) == [2]


def test_a_table_that_changes_within_a_streamed_transaction(spool: Spool) -> None:
    wider = Relation(16_400, "public", "orders", ReplicaIdentity.DEFAULT, (*TABLE.columns, Column("more", 25, -1, is_key=False)))
    target = assembler(spool=spool)
    late = Insert(in_piece(wider, 5, wider), ("2", "x"), 5)
    fed(target, *piece(5, row(1, 5), in_piece(wider, 5, wider), late, first=True, relation=True))
    (unit,) = fed(target, StreamCommit(5, 100, 110, AT))
    assert unit.changes == (row(1, 5), late)


def test_the_parts_of_a_streamed_transaction_are_read_before_the_next_message() -> None:
    target = assembler(changes_max=1)
    fed(target, *piece(5, row(1, 5), row(2, 5), first=True, relation=True))
    units = iter(target.feed(encode(StreamCommit(5, 100, 110, AT))))
    next(units)
    with pytest.raises(RuntimeError, match="parts of transaction 5 were not read to their end"):
        target.feed(encode(Begin(1, AT, 7)))
    assert [unit.last for unit in units] == [True]
    assert fed(target, Begin(1, AT, 7)) == []


def test_damage_within_a_piece_is_found_at_the_latest_when_it_is_committed(spool: Spool) -> None:
    target = assembler(spool=spool)
    fed(target, *piece(5, first=True, relation=True)[:-1])
    target.feed(encode(row(1, 5)) + b"x")
    with pytest.raises(PgOutputError):
        target.feed(b"I\0\0")
    with pytest.raises(PgOutputError):
        target.feed(b"Z\0\0\0\5")
    fed(target, StreamStop())
    with pytest.raises(PgOutputError, match="1 bytes follow"):
        fed(target, StreamCommit(5, 100, 110, AT))
    assert spool.bytes_held == 0


def test_close_gives_the_room_back(spool: Spool) -> None:
    target = assembler(spool=spool)
    fed(target, *piece(5, row(1, 5), first=True, relation=True), *piece(6, row(1, 6), first=True, relation=True))
    target.close()
    assert (target.in_progress, spool.bytes_held) == (0, 0)


def test_a_full_spool_is_said_with_a_way_out() -> None:
    target = assembler(spool=MemorySpool(bytes_max=100))
    with pytest.raises(SpoolFullError, match=r"transaction 5: \d+ bytes are held, the limit is 100") as caught:
        fed(target, *piece(5, *[row(number, 5) for number in range(20)], first=True, relation=True))
    assert (caught.value.xid, caught.value.limit) == (5, 100)
    fault = Classifiers().classify(caught.value)
    assert (fault.kind, fault.code, fault.scope) == (Kind.EXHAUSTED, "spool full", Scope.CALL)
    assert "connect with streaming off" in fault.hint


def test_rolled_back_subtransactions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlast.changes._decoding.transactions.ABORTED_MAX", 2)
    target = assembler()
    fed(target, *piece(5, first=True), StreamAbort(5, 6), StreamAbort(5, 7))
    with pytest.raises(SpoolFullError, match="2 rolled back subtransactions are held"):
        fed(target, StreamAbort(5, 8))


# The model: a server that keeps whole transactions in memory


class Source:
    """Writes pieces of transactions as a server would, and knows what each must come to."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.target = assembler(spool=MemorySpool(), changes_max=dice.choice([1, 3, 100]))
        self.open: dict[int, dict[int, list[int]]] = {}
        """By transaction and subtransaction: the rows."""
        self.order: dict[int, list[int]] = {}
        self.ids = 0

    def fresh(self) -> int:
        self.ids += 1
        return self.ids

    def write(self) -> None:
        xid = self.dice.choice([*self.open, self.fresh()])
        first = xid not in self.open
        subs = self.open.setdefault(xid, {xid: []})
        changes: list[Any] = []
        for _ in range(self.dice.randint(0, 4)):
            subxid = self.dice.choice([*subs, self.fresh()])
            value = self.fresh()
            subs.setdefault(subxid, []).append(value)
            self.order.setdefault(xid, []).append(value)
            changes.append(row(value, subxid))
        assert fed(self.target, *piece(xid, *changes, first=first, relation=True)) == []

    def roll_back(self, xid: int) -> None:
        subxid = self.dice.choice([*self.open[xid]])
        assert fed(self.target, StreamAbort(xid, subxid)) == []
        del self.open[xid][subxid]
        if subxid == xid:
            del self.open[xid]

    def commit(self, xid: int) -> None:
        live = {value for values in self.open.pop(xid).values() for value in values}
        got = [value for unit in fed(self.target, StreamCommit(xid, 1, 2, AT)) for value in ids(unit)]
        assert got == [value for value in self.order.get(xid, []) if value in live]


@given(st.integers(0, 2**32))
def test_any_interleaving_gives_what_was_committed(seed: int) -> None:
    dice = random.Random(seed)
    source = Source(dice)
    for _ in range(dice.randint(5, 40)):
        action = dice.random()
        if action < 0.6 or not source.open:
            source.write()
        elif action < 0.8:
            source.roll_back(dice.choice([*source.open]))
        else:
            source.commit(dice.choice([*source.open]))
    assert source.target.in_progress == len(source.open)


# Spools


def test_records_come_back_in_order_across_the_buffer(spool: Spool) -> None:
    dice = random.Random(3)
    expected: dict[int, list[bytes]] = {1: [], 2: []}
    for _ in range(200):
        xid, record = dice.choice([1, 2]), dice.randbytes(dice.choice([0, 5, 1_000, 20_000]))
        spool.append(xid, record)
        expected[xid].append(record)
    spool.append(1, bytes(300_000))
    expected[1].append(bytes(300_000))
    for xid, records in expected.items():
        assert list(spool.records(xid)) == records
    assert list(spool.records(3)) == []
    spool.append(2, b"more")
    assert list(spool.records(2))[-1] == b"more"
    spool.discard(3)
    spool.discard(1)
    assert list(spool.records(1)) == []
    spool.close()
    assert spool.bytes_held == 0


def test_files_have_no_name_and_their_descriptors_are_given_back(tmp_path: Path) -> None:
    before = len(list(DESCRIPTORS.iterdir()))
    spool = FileSpool(tmp_path)
    for xid in range(5):
        spool.append(xid, bytes(300_000))
        assert len(list(spool.records(xid))) == 1
    assert list(tmp_path.iterdir()) == []
    spool.close()
    assert len(list(DESCRIPTORS.iterdir())) == before


def test_files_are_bounded_in_number_and_bytes(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path, files_max=2, bytes_max=100)
    spool.append(1, b"x")
    spool.append(2, b"x")
    with pytest.raises(SpoolFullError, match="2 files are held, the limit is 2"):
        spool.append(3, b"x")
    with pytest.raises(SpoolFullError, match="10 bytes are held, the limit is 100"):
        spool.append(1, bytes(100))
    assert list(spool.records(1)) == [b"x"]
    spool.close()


def test_a_write_that_is_short_and_then_fails_loses_nothing_that_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = FileSpool(tmp_path)
    first, second = bytes(200_000), b"\1" * 200_000
    spool.append(1, first)
    real, calls = os.write, list[int]()

    def short_then_full(fd: int, data: Any) -> int:
        calls.append(fd)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, bytes(data[:1_000]))

    monkeypatch.setattr(os, "write", short_then_full)
    with pytest.raises(OSError, match="No space left"):
        spool.append(1, second)
    monkeypatch.setattr(os, "write", real)
    held = spool.bytes_held
    spool.append(1, second)
    assert list(spool.records(1)) == [first, second]
    assert spool.bytes_held == held + 200_004
    spool.close()
