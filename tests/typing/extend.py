"""The second door, as those who write an adapter or a system use it. Nothing here is run: mypy and basedpyright read it."""

from __future__ import annotations

import enum
import logging
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

from outlast import Backoff, Dependency, Fault, Incident, Kind, Service, Stop, Stopping, Unavailable
from outlast.extend import (
    FLOOR_SPREAD,
    LOCAL_FILES,
    NO_ROOM,
    Act,
    AppendFile,
    Aside,
    BackoffState,
    Descriptors,
    EscapedError,
    Figure,
    FigureKind,
    FileSystem,
    Jitter,
    Journal,
    JournalFullError,
    JsonTooLargeError,
    Lag,
    Levels,
    Line,
    Listener,
    Needs,
    NewerFormatError,
    NotJsonError,
    Once,
    OwnThread,
    Pacer,
    Quiet,
    Reaction,
    Recorder,
    Room,
    Shown,
    Sieve,
    Slots,
    Sync,
    SystemHealth,
    TornFileError,
    Unit,
    Wire,
    Wires,
    attach,
    attached,
    clean,
    contained,
    cut,
    escaped,
    fault_of_call,
    fault_of_record,
    fault_record,
    from_json,
    json_or_text,
    parse_address,
    parse_retry_after,
    pieces_behind,
    plain_text,
    ramp_due,
    ramp_length_s,
    refusal_in,
    room,
    size_text,
    to_json,
)

# Faults, and what is said of them.

error = OSError()
attach(error, Fault(Kind.TRANSIENT, "gone", "gone away"))
assert_type(attached(error), Fault | None)
assert_type(fault_of_record(fault_record(Fault(Kind.BUG, "x", "y"))), Fault)
assert_type(refusal_in(error), Unavailable | None)
assert_type(clean("password=x"), str)
assert_type(cut("long", 3), str)
assert_type(parse_address(":8080"), tuple[str, int])
listener = Listener("127.0.0.1", 0, logging.getLogger("outbox"))
assert_type(listener.port, int)
assert_type(size_text(1.5e6), str)
assert_type(pieces_behind((b"head", b"body"), 6), Sequence[bytes | bytearray | memoryview])

once = Once()
assert_type(once.news(Reaction.WAIT, subject="db"), bool)
assert_type(once.clear("db"), bool)

# Waits.

policy = Backoff(base_s=0.1, cap_s=5.0, jitter=Jitter.FULL)
state, wait_s = policy.next(BackoffState(), FLOOR_SPREAD, random.Random())
assert_type(state, BackoffState)
assert_type(wait_s, float | None)
assert_type(ramp_due(10, 1.0), int)
assert_type(parse_retry_after("120", 1.8e9), float | None)
assert_type(ramp_length_s(10), float)


async def waits(stop: Stop) -> None:
    line: Line[str] = Line(returned=print)
    assert_type(await line.wait(line.join(), 1.0, stop=stop), str)
    assert_type(await Pacer().turn(), None)
    slots = Slots("db", limit=4, waiters_max=100)
    assert_type(await slots.take(1.0), None)
    assert_type(slots.give_back(), None)


class Pool:
    async def aclose(self) -> None: ...


async def ends() -> None:
    wire = Wire(Pool(), is_own=True, closed=print)
    assert_type(wire.client, Pool)
    async with wire.limit(1.0):
        assert_type(wire.enter(), None)
    assert_type(await wire.cut(0.3), None)
    wires = Wires(Pool)
    with wires.lent() as lent:
        assert_type(lent, Wire[Pool])
    assert_type(wires.current(), Wire[Pool])
    assert_type(wires.closings, int)
    assert_type(wires.closed(), Stopping)
    assert_type(wires.retire(), None)
    assert_type(await wires.cut(0.3), None)


# Files.


def encode(record: tuple[int, str]) -> bytes:
    return repr(record).encode()


def decode(data: bytes) -> tuple[int, str]:
    return len(data), data.decode()


journal = Journal("outbox.journal", "outbox", encode=encode, decode=decode, version=2)
assert_type(journal, Journal[tuple[int, str]])


async def write_beside_the_loop(record: tuple[int, str]) -> None:
    thread = OwnThread("outbox journal")
    assert_type(await thread.run(keep, record), bool)


def is_full(error: OSError) -> bool:
    left = room("outbox.log")
    assert_type(left, Room)
    assert_type(left.available_inodes, int | None)
    assert_type(left.total_bytes, int)
    return error.errno in NO_ROOM or Levels(enter=2**20, leave=2**21).is_low(left.available_bytes, was_low=False)


def size_of(path: str, files: FileSystem = LOCAL_FILES) -> int:
    descriptor = files.open(path, os.O_RDONLY)
    try:
        return files.size(descriptor)
    finally:
        files.close(descriptor)


descriptors: Descriptors[str, int] = Descriptors(256, lambda path: LOCAL_FILES.open(path, os.O_RDONLY), LOCAL_FILES.close)


def first_byte(path: str) -> bytes:
    with descriptors.use(path) as descriptor:
        return LOCAL_FILES.read_at(assert_type(descriptor, int), 1, 0)


def keep(record: tuple[int, str]) -> bool:
    try:
        journal.open()
        journal.append([record])
    except (JournalFullError, NewerFormatError, TornFileError):
        return False
    with AppendFile.open("outbox.log", sync=Sync.ASKED) as file:
        assert_type(file.append(b"sent\n"), int)
    return True


# Work that outlives the process.


@dataclass(frozen=True)
class Piece:
    id: int
    kind: str


def payload(value: object) -> Any:
    try:
        text = to_json(value, 1_000)
    except JsonTooLargeError:
        return plain_text(value, 100)
    except NotJsonError:
        return None
    assert_type(text, str)
    return from_json(text) or json_or_text(text)


async def write(entries: list[tuple[int, str]]) -> list[tuple[int, str]]:
    return entries[:1]


async def write_all(entries: list[tuple[int, str]]) -> None:
    await write(entries)


async def set_aside(entry: tuple[int, str], fault: Fault) -> bool:
    return bool(entry) and fault.kind is Kind.REJECTED


async def work(db: Dependency, stop: Stop) -> None:
    sieve = Sieve(db, write_all, set_aside)
    assert_type(await sieve.record([(1, "paid")]), list[tuple[int, str]])
    assert_type(fault_of_call(db, ValueError()), Fault)
    needs = Needs(lambda: {"pay": (db,)}, "outbox")
    assert_type(needs.shares(stop), list[tuple[list[str], int | None]])
    needs.took(Piece(1, "pay"))
    try:
        assert_type(await contained(stop.sleep(1.0), "pay", stop), Any)
    except EscapedError as exc:
        assert_type(escaped(exc, "pay"), Exception)
    recorder = Recorder(
        journal, write, dependency=db, name="outbox", key=lambda entry: entry[0], aside=Aside(Path("outbox.refused"))
    )
    await recorder.open()
    assert_type(await recorder.record((1, "paid")), bool)
    assert_type(recorder.due_in_s(), float | None)
    await recorder.settled(1)
    await recorder.replay(stop)
    Quiet(Incident("outbox"), recorder.incident).look(0.0)
    await recorder.close()


# What a system shows, which needs no base class.


class Way(enum.Enum):
    OPEN = "open"
    SHUT = "shut"


class Outbox:
    system = "outbox"
    name = "orders"

    def figures(self) -> list[Figure]:
        return [
            Figure.counter("sent_bytes_by_peer", "Bytes sent.", {"a": 1.0}, labels=("peer",), unit=Unit.NONE),
            Figure("waiting", FigureKind.GAUGE, "Messages that wait.", [((), 1.0)]),
            Figure.states("way", "The way to the peer.", Way.OPEN),
        ]

    def health(self) -> SystemHealth:
        return SystemHealth(well=None, state="starting")

    def lag(self) -> Lag | None:
        return Lag(seconds=1.0)

    def acts(self) -> list[Act]:
        return [Act("send again", "Sends what was refused again.", self.send_again, concerns=3)]

    async def send_again(self) -> int:
        return 3


shown: Shown = Outbox()
Service("shop").show(Outbox())
