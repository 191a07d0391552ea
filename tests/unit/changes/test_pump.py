"""From batches to a sink, without a server: what is confirmed, what a stop leaves, what a refusal leads to."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any

import pytest

import outlast
from outlast import Classifiers, Fault, Kind, Stop, Stopping
from outlast._core.faults import attached
from outlast.changes import Assembler, Decoder, Insert, Quarantine, RefusedError, StreamOverError
from outlast.changes._own_tables import OwnTables
from outlast.changes._pump import FLUSH_S, LockLostError, Pump, while_owner
from outlast.changes._sinks.poison import Poison
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from outlast.changes import Delivery


def relation(schema: str = "public", name: str = "item") -> bytes:
    return struct.pack(">cI", b"R", 1) + f"{schema}\0{name}\0".encode() + b"d\0\1" + b"\1id\0" + struct.pack(">Ii", 23, -1)


def transaction(commit_lsn: int, *values: str, table: bytes = b"") -> list[bytes]:
    """The messages of a transaction that ends 10 bytes behind its commit record."""
    payloads = [struct.pack(">cQqI", b"B", commit_lsn, 0, 7), *([table] if table else [])]
    payloads += [struct.pack(">cIcHcI", b"I", 1, b"N", 1, b"t", len(value)) + value.encode() for value in values]
    payloads.append(struct.pack(">cBQQq", b"C", 0, commit_lsn, commit_lsn + 10, 0))
    return payloads


class Source:
    """A session that gives these batches, each with the keepalive that came before its end, and then nothing more."""

    def __init__(self, *batches: tuple[Sequence[bytes], int]) -> None:
        self.batches = list(batches)
        self.keepalive_lsn = 0
        self.confirmed: list[int] = []

    async def next_batch(self) -> Sequence[bytes]:
        if not self.batches:
            await asyncio.get_running_loop().create_future()
        batch, keepalive = self.batches.pop(0)
        self.keepalive_lsn = max(self.keepalive_lsn, keepalive)
        return batch

    def confirm(self, flushed_lsn: int, applied_lsn: int | None = None) -> None:
        self.confirmed.append(flushed_lsn)


class Sink:
    """Remembers what it was given, and what of it was flushed."""

    def __init__(self, refuse: Callable[[list[str]], Exception | None] = lambda _: None) -> None:
        self.given: list[list[str]] = []
        self.flushed: list[int] = []
        self.complete = 0
        self.refuse = refuse
        self.refuse_flush: Callable[[list[list[str]]], Exception | None] = lambda _: None
        self.unflushed: list[list[str]] = []
        self.on_write: Callable[[], Any] = lambda: None

    async def open(self, stream: str, epoch: int) -> int:
        return 0

    async def write(self, delivery: Delivery) -> None:
        values = [str(change.new[0]) for change in delivery.changes if isinstance(change, Insert)]
        if (error := self.refuse(values)) is not None:
            raise error
        self.given.append(values)
        self.unflushed.append(values)
        self.complete = delivery.end_lsn or self.complete
        self.on_write()

    async def flush(self) -> int:
        if (error := self.refuse_flush(self.unflushed)) is not None:
            raise error
        self.unflushed = []
        self.flushed.append(self.complete)
        return self.complete

    async def close(self) -> None:
        return


def poison(**options: Any) -> Poison:
    return Poison("shop", Classifiers(), **options)


def pumped(
    source: Source,
    sink: Sink,
    *,
    position: int = 0,
    poisoned: Poison | None = None,
    changes_max: int = 100,
    stop: Stop | None = None,
    copied: dict[tuple[str, str], int] | None = None,
) -> Pump:
    """Run one session until there is nothing more, or until what it raises."""
    pump = Pump(sink, poisoned or poison(), position, copied=copied)

    async def main() -> None:
        inner = stop or Stop()
        asyncio.get_running_loop().call_later(10.0, inner.fire, "the test is over")
        assembler = Assembler(Decoder(1, left_out=OwnTables("outlast")), changes_max=changes_max)
        await pump.run(source, assembler, inner)

    run_virtual(main)
    return pump


TABLE = relation()


def test_what_is_flushed_is_confirmed_and_then_the_keepalive_behind_it() -> None:
    source = Source((transaction(100, "a", table=TABLE), 0), ([], 500))
    sink = Sink()
    pump = pumped(source, sink)
    assert sink.given == [["a"]]
    assert (sink.flushed, source.confirmed, pump.received) == ([110], [110, 500], 1)


def test_a_transaction_that_is_still_coming_confirms_no_more_than_what_was_before_it() -> None:
    whole = transaction(100, "a", table=TABLE)
    source = Source((whole[:2], 90), (whole[2:], 90))
    pumped(source, Sink())
    assert source.confirmed == [90, 110]


def test_what_the_sink_has_already_is_not_given_again() -> None:
    sink = Sink()
    pumped(Source(([*transaction(100, "a", table=TABLE), *transaction(200, "b")], 0)), sink, position=110)
    assert sink.given == [["b"]]


def test_a_stop_within_a_batch_confirms_what_is_flushed_and_not_the_keepalive_at_its_end() -> None:
    stop, sink = Stop(), Sink()
    sink.on_write = lambda: stop.fire("enough")
    source = Source(([*transaction(100, "a", table=TABLE), *transaction(200, "b")], 900))
    pumped(source, sink, stop=stop)
    assert sink.given == [["a"]]
    assert source.confirmed == [110], "what was not given comes again"


def test_a_stop_between_two_parts_flushes_and_confirms_nothing_of_them() -> None:
    stop, sink = Stop(), Sink()
    sink.on_write = lambda: stop.fire("enough") if len(sink.given) == 2 else None
    source = Source(([*transaction(100, "a", table=TABLE), *transaction(200, "b", "c", "d")], 900))
    pumped(source, sink, stop=stop, changes_max=1)
    assert sink.given == [["a"], ["b"]]
    assert (sink.flushed, source.confirmed) == ([110], [110])


def test_what_went_before_a_large_transaction_is_flushed_before_it() -> None:
    sink = Sink()
    source = Source(([*transaction(100, "a", table=TABLE), *transaction(200, "b", "c", "d")], 0))
    pumped(source, sink, changes_max=2)
    assert sink.given == [["a"], ["b", "c"], ["d"]]
    assert sink.flushed == [110, 210]


@pytest.mark.parametrize("parts", [False, True])
def test_within_a_long_batch_what_is_whole_is_flushed_and_confirmed_now_and_then(parts: bool) -> None:  # noqa: FBT001
    """A session that is ended before its first batch is must have got somewhere: else the next begins where it began."""

    class Slow(Sink):
        async def write(self, delivery: Delivery) -> None:
            await asyncio.sleep(0.3 * FLUSH_S)
            await super().write(delivery)
            if delivery.commit_lsn >= 900:
                raise ConnectionResetError("the session ends")

    sink = Slow()
    rows = ["a", "b", "c"] if parts else ["a"]
    batch = [message for commit_lsn in range(100, 1000, 100) for message in transaction(commit_lsn, *rows, table=TABLE)]
    source = Source((batch, 990))
    with pytest.raises(ConnectionResetError):
        pumped(source, sink, changes_max=1 if parts else 100)
    assert sink.flushed == [end for end in range(110, 900, 100) if parts or end in {410, 810}]
    assert source.confirmed == ([210, 410, 610, 810] if parts else [410, 810])


@pytest.mark.parametrize("name", ["change_epochs", "epochs", "formats", "change_positions", "snapshot_ranges"])
def test_our_own_tables_are_passed_over_and_make_no_flush(name: str) -> None:
    """A publication of all tables has them; with the sink in the same database each flush would make the next change."""
    sink = Sink()
    source = Source(
        (transaction(100, "a", table=relation("outlast", name)), 0), (transaction(200, "b", table=TABLE), 0), ([], 300)
    )
    pumped(source, sink)
    assert sink.given == [["b"]]
    assert sink.flushed == [210]
    assert source.confirmed[-1] == 300


def test_what_a_snapshot_has_is_left_out_table_by_table() -> None:
    sink = Sink()
    other = relation(name="other").replace(struct.pack(">cI", b"R", 1), struct.pack(">cI", b"R", 2), 1)
    both = [*transaction(100, "a", table=TABLE)]
    both[-1:-1] = [other, struct.pack(">cIcHcI", b"I", 2, b"N", 1, b"t", 1) + b"b"]
    source = Source(([*both, *transaction(200, "c"), *transaction(300, "d")], 0))
    pumped(source, sink, copied={("public", "item"): 300, ("public", "other"): 100})
    assert sink.given == [["b"], [], ["d"]], "what begins at the position is new"
    assert source.confirmed[-1] == 310


# What the sink refuses.


def bad(values: list[str]) -> Exception | None:
    return ValueError("the row 'secret' is bad") if "secret" in values else None


def sessions(sink: Sink, poisoned: Poison, count: int, *, changes_max: int = 100) -> list[Exception | None]:
    """The same three transactions, again and again, from where the sink stands."""
    outcomes: list[Exception | None] = []
    for _ in range(count):
        whole = [*transaction(100, "a", table=TABLE), *transaction(200, "b", "secret"), *transaction(300, "c")]
        sink.complete, sink.unflushed = max([0, *sink.flushed]), []
        try:
            pumped(Source((whole, 0)), sink, position=sink.complete, poisoned=poisoned, changes_max=changes_max)
        except (RefusedError, StreamOverError) as error:
            outcomes.append(error)
        else:
            outcomes.append(None)
    return outcomes


@pytest.mark.expected_logs("skipped transaction 7 at 0/C8")
def test_a_refused_transaction_is_tried_three_times_and_then_passed_over(tmp_path: Path) -> None:
    sink, quarantine = Sink(bad), Quarantine(tmp_path / "quarantine")
    one = poison(policy="skip", quarantine=quarantine)
    outcomes = sessions(sink, one, 4)
    assert [type(outcome) for outcome in outcomes] == [RefusedError] * 3 + [type(None)]
    assert sink.given[-2:] == [[], ["c"]]
    assert sink.flushed[-1] == 310
    assert quarantine.path.read_text(encoding="utf-8").count("secret") == 2, "the row, and the reason that quotes it"
    for outcome in outcomes[:3]:
        fault = attached(outcome or ValueError())
        assert fault is not None
        assert (fault.kind, fault.code) == (Kind.REJECTED, f"ValueError@{__name__}:" + fault.code.rpartition(":")[2])
        assert "secret" not in str(outcome) + fault.reason
        assert outcome is not None
        assert outcome.__cause__ is None


def test_a_refused_transaction_that_comes_in_parts_is_in_the_quarantine_whole_before_the_stream_ends(tmp_path: Path) -> None:
    sink, quarantine = Sink(bad), Quarantine(tmp_path / "quarantine")
    outcomes = sessions(sink, poison(quarantine=quarantine), 4, changes_max=1)
    assert [type(outcome) for outcome in outcomes] == [RefusedError] * 3 + [StreamOverError]
    lines = quarantine.path.read_text(encoding="utf-8").splitlines()
    assert [line.split('"')[3] for line in lines if '"op"' in line][-1] == "commit"
    assert sum('"insert"' in line for line in lines) == 2
    assert "secret" not in str(outcomes[-1])


def test_a_flush_that_refuses_several_is_found_out_one_by_one(tmp_path: Path) -> None:
    sink = Sink()
    sink.refuse_flush = lambda unflushed: bad([value for values in unflushed for value in values])
    one = poison()
    outcomes = sessions(sink, one, 5)
    assert [type(outcome) for outcome in outcomes] == [RefusedError] * 4 + [StreamOverError]
    assert "one of several" in str(outcomes[0])
    assert "transaction 7 at 0/C8" in str(outcomes[1])
    assert sink.flushed == [110], "what is not to blame is durable"


def test_the_trouble_of_a_sink_is_not_the_transactions() -> None:
    sink = Sink(lambda _: ConnectionResetError(104, "reset"))
    one = poison()
    for _ in range(10):
        with pytest.raises(ConnectionResetError):
            pumped(Source((transaction(100, "a", table=TABLE), 0)), sink, poisoned=one)


# Who may go on.


async def forever(fails: Exception | None = None) -> None:
    """Wait, and raise `fails` when cancelled."""
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        if fails is not None:
            raise fails


def test_a_lost_lock_ends_the_block_at_once() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        lost: asyncio.Future[Fault] = loop.create_future()
        loop.call_later(3.0, lost.set_result, Fault(Kind.TRANSIENT, "lock lost", "its session ended"))
        with pytest.raises(LockLostError, match="its session ended") as caught:
            async with while_owner(lost, Stop()):
                await forever(ConnectionResetError("what comes of it is dropped"))
        assert loop.time() == 3.0
        assert attached(caught.value) == lost.result()

    run_virtual(main)


@pytest.mark.parametrize("drain_s", [0.0, 2.0])
def test_a_stop_lets_what_is_under_way_finish_for_a_while(drain_s: float) -> None:
    async def main() -> None:
        loop, stop = asyncio.get_running_loop(), Stop()
        loop.call_later(3.0, stop.fire, "enough")
        with pytest.raises(Stopping):
            async with while_owner(loop.create_future(), stop, drain_s=drain_s):
                await forever()
        assert loop.time() == 3.0 + drain_s

    run_virtual(main)


def test_another_failure_of_the_block_passes_unchanged() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="whatever"):
            async with while_owner(asyncio.get_running_loop().create_future(), Stop()):
                raise ValueError("whatever")

    run_virtual(main)


def test_a_lock_that_is_lost_after_the_stop_ends_the_block_at_once() -> None:
    async def main() -> None:
        loop, stop = asyncio.get_running_loop(), outlast.Stop()
        lost: asyncio.Future[Fault] = loop.create_future()
        loop.call_later(3.0, stop.fire, "enough")
        loop.call_later(4.0, lost.set_result, Fault(Kind.TRANSIENT, "lock lost", "its session ended"))
        with pytest.raises(LockLostError):
            async with while_owner(lost, stop, drain_s=5.0):
                await forever()
        assert loop.time() == 4.0

    run_virtual(main)
