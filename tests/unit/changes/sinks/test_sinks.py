"""Sinks without a server: a file that knows its position, statements, and the hand-over of an iteration."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

import outlast
from outlast import ConfigurationError, Fault, Kind, Stop
from outlast._core.faults import attached
from outlast.changes import (
    UNCHANGED,
    Changes,
    Column,
    Delete,
    Insert,
    JsonLinesSink,
    PostgresSink,
    Quarantine,
    QuarantineFullError,
    Relation,
    ReplicaIdentity,
    SourcePolicy,
    StdoutSink,
    StreamOverError,
    Transaction,
    TransactionPart,
    Truncate,
    Update,
)
from outlast.changes._sinks.iterator import Handing, iterate
from outlast.postgres import Postgres
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from outlast.changes import Change

ITEM = Relation(1, "public", "item", ReplicaIdentity.DEFAULT, (Column("id", 20, -1, True), Column("name", 25, -1, False)))
AT = datetime(2026, 1, 1, tzinfo=UTC)


def transaction(lsn: int, *changes: Change) -> Transaction:
    return Transaction(7, lsn, lsn + 10, AT, None, changes)


def row(number: int, name: str = "x") -> Insert:
    return Insert(ITEM, (str(number), name))


def written(path: Path, *transactions: Transaction | TransactionPart, flush: bool = True) -> int:
    async def main() -> int:
        sink = JsonLinesSink(path)
        position = await sink.open("shop", 1)
        for each in transactions:
            await sink.write(each)
        if flush:
            position = await sink.flush()
        await sink.close()
        return position

    return asyncio.run(main())


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_file_of_json_lines_knows_its_position(tmp_path: Path) -> None:
    path = tmp_path / "changes"
    assert written(path) == 0
    assert written(path, transaction(100, row(1)), transaction(200, row(2))) == 210
    assert written(path) == 210
    assert [line["op"] for line in lines(path)] == ["insert", "commit", "insert", "commit"]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("cut", range(1, 120, 7))
def test_a_torn_tail_is_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "changes"
    written(path, transaction(100, row(1, "a" * 50)))
    whole = path.stat().st_size
    written(path, transaction(200, row(2, "b" * 50)))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - cut)
    assert written(path, transaction(300, row(3))) == 310
    assert path.read_bytes()[:whole].endswith(b"\n")
    assert [line.get("lsn") for line in lines(path) if line["op"] == "commit"] == ["0/6E", "0/136"]


def test_a_transaction_without_its_commit_is_cut_off_whole(tmp_path: Path) -> None:
    path = tmp_path / "changes"
    written(path, transaction(100, row(1)))
    before = path.read_bytes()
    part = TransactionPart(8, 200, AT, None, 0, False, (row(2), row(3)), None)
    written(path, part, flush=False)
    assert path.read_bytes() != before
    assert written(path) == 110
    assert path.read_bytes() == before


def test_a_value_that_looks_like_a_commit_is_none(tmp_path: Path) -> None:
    path = tmp_path / "changes"
    written(path, transaction(100, row(1)))
    fake = '\n{"op":"commit","lsn":"FF/FF"}\n'
    written(path, TransactionPart(8, 200, AT, None, 0, False, (row(2, fake),), None), flush=False)
    assert written(path) == 110


def test_the_last_commit_is_found_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "changes"
    written(path, transaction(100, row(1)))
    big = TransactionPart(8, 200, AT, None, 0, False, tuple(row(number, "y" * 100) for number in range(50)), None)
    written(path, big, flush=False)
    for size in (64, 100, 257, 1000):
        monkeypatch.setattr("outlast.changes._sinks.json_lines.TAIL_BYTES", size)
        copy = tmp_path / f"copy {size}"
        copy.write_bytes(path.read_bytes())
        assert written(copy) == 110


def test_a_write_that_fails_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "changes"
    written(path, transaction(100, row(1)))
    before = path.read_bytes()
    real, calls = os.write, list[int]()

    def full(descriptor: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return real(descriptor, bytes(data)[:20])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        written(path, transaction(200, row(2)))
    assert path.read_bytes() == before


def test_a_cancel_leaves_the_thread_alone_and_closing_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, real = threading.Event(), os.write

    def slow(descriptor: int, data: bytes) -> int:
        go_on.wait(10)
        return real(descriptor, data)

    async def main() -> None:
        sink = JsonLinesSink(tmp_path / "changes")
        await sink.open("shop", 1)
        monkeypatch.setattr("outlast._files.append.os.write", slow)
        writing = asyncio.create_task(sink.write(transaction(100, row(1))))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        closing = asyncio.create_task(sink.close())
        await asyncio.sleep(0)
        assert not closing.done()
        go_on.set()
        await closing

    asyncio.run(main())
    assert written(tmp_path / "changes") == 110


def test_what_an_update_left_alone_is_named_and_not_invented(tmp_path: Path) -> None:
    path = tmp_path / "changes"
    written(
        path,
        transaction(
            100,
            Update(ITEM, ("1", UNCHANGED)),
            Update(ITEM, ("2", None), old_key=("1",)),
            Delete(ITEM, old_key=("2",)),
            Truncate((ITEM,), cascade=False, restart_identity=False),
        ),
    )
    assert lines(path)[:4] == [
        {"xid": 7, "op": "update", "table": "public.item", "old": {"id": "1"}, "new": {"id": "1"}, "unchanged": ["name"]},
        {"xid": 7, "op": "update", "table": "public.item", "old": {"id": "1"}, "new": {"id": "2", "name": None}},
        {"xid": 7, "op": "delete", "table": "public.item", "old": {"id": "2"}},
        {"xid": 7, "op": "truncate", "tables": ["public.item"]},
    ]


def test_standard_output_gets_the_same_lines() -> None:
    reader, writer = os.pipe()

    async def main() -> None:
        sink = StdoutSink(writer)
        assert await sink.open("shop", 1) == 0
        await sink.write(transaction(100, row(1)))
        assert await sink.flush() == 110
        await sink.close()

    asyncio.run(main())
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert [json.loads(line)["op"] for line in pipe] == ["insert", "commit"]


def test_a_full_default_executor_holds_up_no_sink_and_no_quarantine(tmp_path: Path) -> None:
    door = threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        blocked = loop.run_in_executor(None, door.wait, 60)
        sink = JsonLinesSink(tmp_path / "changes")
        await sink.open("shop", 1)
        await sink.write(transaction(100, row(1)))
        assert await sink.flush() == 110
        await sink.close()
        await Quarantine(tmp_path / "quarantine").take(transaction(100, row(1)), Fault(Kind.REJECTED, "23514", "refused"))
        assert not blocked.done()
        door.set()
        await blocked

    asyncio.run(main())


def test_a_quarantine_has_a_limit_and_holds_whole_transactions_only(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "quarantine", bytes_max=600)
    fault = Fault(Kind.REJECTED, "23514", "refused")

    async def main() -> None:
        await quarantine.take(transaction(100, row(1)), fault)
        with pytest.raises(QuarantineFullError, match="over its limit of 600") as caught:
            await quarantine.take(transaction(200, row(2, "x" * 600)), fault)
        kept = attached(caught.value)
        assert kept is not None
        assert kept.kind is Kind.EXHAUSTED

    asyncio.run(main())
    assert [line["op"] for line in lines(quarantine.path)] == ["refused", "insert", "commit"]


# Configuration.


def test_two_servers_of_one_name_are_refused() -> None:
    source = Postgres("postgresql://localhost/shop")
    with pytest.raises(ConfigurationError, match="give one of them a name of its own"):
        Changes(source, "shop", sink=PostgresSink(Postgres("postgresql://localhost/warehouse")))
    Changes(source, "shop", sink=PostgresSink(source))
    other = Changes(source, "shop", sink=PostgresSink(Postgres("postgresql://localhost/warehouse", name="warehouse")))
    assert [need.name for need in other.needs] == ["postgres", "warehouse"]


@pytest.mark.parametrize("policy", [SourcePolicy(snapshot=True), SourcePolicy(lost="snapshot")])
def test_a_snapshot_needs_a_sink_that_takes_one(policy: SourcePolicy) -> None:
    source = Postgres("postgresql://localhost/shop")
    with pytest.raises(ConfigurationError, match="a StdoutSink takes no snapshot; a PostgresSink does"):
        Changes(source, "shop", sink=StdoutSink(), source=policy)
    Changes(source, "shop", sink=PostgresSink(source), source=policy)


def test_a_stream_has_a_sink_or_is_iterated_over() -> None:
    source = Postgres("postgresql://localhost/shop")
    with pytest.raises(ConfigurationError, match="has no sink"):
        Changes(source, "shop").attach(outlast.Service("shop"))
    with pytest.raises(ConfigurationError, match="has a sink"):
        Changes(source, "shop", sink=StdoutSink()).stream()


# Iteration.


def iterated(given: list[Transaction], take: int, *, fails: Exception | None = None) -> tuple[list[int], list[int]]:
    """Iterate over `take` of what a stream gives; the positions that were seen, and those that were flushed."""
    handing, flushed, seen = Handing(), [], []

    async def stream(stop: Stop) -> None:
        await handing.open("shop", 1)
        try:
            for each in given:
                await handing.write(each)
                flushed.append(await handing.flush())
        except outlast.Stopping:
            if not stop.requested:
                raise
        if fails is not None and not stop.requested:
            raise fails
        await stop.wait()

    async def over() -> Exception:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def main() -> None:
        stop = Stop()
        asyncio.get_running_loop().call_later(5.0, stop.fire, "enough")
        transactions = iterate(handing, stream, over, stop, 0)
        async for each in transactions:
            seen.append(each.commit_lsn)
            if len(seen) == take:
                break
        await transactions.aclose()

    run_virtual(main)
    return seen, flushed


def test_what_is_asked_beyond_is_durable() -> None:
    given = [transaction(lsn, row(lsn)) for lsn in (100, 200, 300)]
    assert iterated(given, 2) == ([100, 200], [110])
    assert iterated(given, 9) == ([100, 200, 300], [110, 210, 310])


def test_what_ends_the_stream_comes_out_of_the_iteration() -> None:
    with pytest.raises(OSError, match="I/O error"):
        iterated([transaction(100, row(1))], 9, fails=OSError(5, "I/O error"))


def test_a_stream_that_is_over_raises() -> None:
    handing = Handing()
    error = StreamOverError(Fault(Kind.PERMANENT, "slot lost", "the slot is gone", hint="make one"))

    async def over() -> Exception:
        return error

    wait: Callable[[Stop], Coroutine[None, None, None]] = Stop.wait

    async def main() -> None:
        with pytest.raises(StreamOverError, match="the slot is gone; make one"):
            await anext(iterate(handing, wait, over, Stop(), 0))

    run_virtual(main)


def test_what_was_called_durable_after_its_session_ended_does_not_come_again() -> None:
    handing = Handing()

    async def main() -> None:
        await handing.open("shop", 1)
        wanted = handing.next()
        writing = asyncio.create_task(handing.write(transaction(200, row(1))))
        delivery = await wanted
        writing.cancel()
        await asyncio.wait({writing})
        await handing.close()
        assert await handing.open("shop", 2) == 0
        handing.durable(delivery)
        # The new session began before that was known, and gives it once more.
        await handing.write(transaction(200, row(1)))
        assert await handing.flush() == 210

    run_virtual(main)
