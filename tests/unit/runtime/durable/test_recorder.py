"""The recorder: in the store or in the journal, in the order of each key, and what is held holds up nothing else."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from outlast import Dependency, Fault, Kind, OutlastError, Scope, State, Stop
from outlast.extend import Journal, Recorder
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.expected_logs
Write = tuple[str, int]


class Store:
    """A store that can be away, hang, or not take what is of some keys now."""

    def __init__(self) -> None:
        self.up = True
        self.hangs = False
        self.locked: set[str] = set()
        self.written: list[Write] = []
        self.calls: list[int] = []
        self.dependency = Dependency("store", probe=self.ask)

    async def ask(self) -> None:
        if self.hangs:
            await asyncio.sleep(3600)
        if not self.up:
            raise ConnectionRefusedError(111, "refused")

    async def write(self, entries: list[Write]) -> list[Write]:
        self.calls.append(len(entries))
        async with self.dependency.use("write"):
            await asyncio.sleep(0.01)
            await self.ask()
        self.written += [entry for entry in entries if entry[0] not in self.locked]
        return [entry for entry in entries if entry[0] in self.locked]


def recorder_of(path: Path, store: Store, **limits: int) -> Recorder[Write]:
    journal: Journal[Write] = Journal(
        path / "journal",
        "test",
        encode=lambda entry: f"{entry[0]} {entry[1]}".encode(),
        decode=lambda data: (data.decode().split()[0], int(data.split()[1])),
        **limits,
    )
    return Recorder(journal, store.write, dependency=store.dependency, name="test", key=lambda entry: entry[0], batch_max=3)


@asynccontextmanager
async def opened(path: Path, store: Store, **limits: int) -> AsyncIterator[Recorder[Write]]:
    recorder = recorder_of(path, store, **limits)
    await recorder.open()
    try:
        yield recorder
    finally:
        await recorder.drain()
        await recorder.close()
        await store.dependency.close()


async def until_up(store: Store) -> None:
    store.up, store.hangs = True, False
    while store.dependency.state is State.DOWN:
        await asyncio.sleep(0.1)


def test_what_comes_at_once_goes_in_batches_and_each_caller_knows_where_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        store = Store()
        async with opened(tmp_path, store) as recorder:
            assert all(await asyncio.gather(*(recorder.record((f"k{number}", 1)) for number in range(7))))
            assert store.calls == [3, 3, 1]
            assert (recorder.recorded, recorder.journalled) == (7, 0)
            await recorder.settled("k1")

    run_virtual(main)


def test_while_the_store_is_away_the_journal_has_it_and_who_must_not_go_on_waits(tmp_path: Path) -> None:
    async def main() -> None:
        store = Store()
        async with opened(tmp_path, store) as recorder:
            store.up = False
            assert [await recorder.record((key, 1)) for key in "aba"] == [False] * 3
            settled = asyncio.create_task(recorder.settled("a"))
            await until_up(store)
            # Nothing overtakes what the journal has.
            assert not await recorder.record(("a", 2))
            assert not settled.done()
            await recorder.replay(Stop())
            await settled
            assert store.written == [("a", 1), ("b", 1), ("a", 1), ("a", 2)]
            assert await recorder.record(("a", 3))
            assert (recorder.recorded, recorder.journalled, recorder.is_behind) == (5, 4, False)

    run_virtual(main)


def test_what_is_held_holds_up_its_own_key_alone(tmp_path: Path) -> None:
    async def main() -> None:
        store, stop = Store(), Stop()
        async with opened(tmp_path, store) as recorder:
            store.locked = {"a"}
            assert await asyncio.gather(*(recorder.record((key, 1)) for key in "abc")) == [False, True, True]
            assert not recorder.is_behind, "there is nothing that could be recorded now"
            assert (recorder.due_in_s() or 0) > 0
            assert await recorder.record(("d", 1))
            # It is in line behind its own, and asks the store for nothing.
            calls = len(store.calls)
            assert not await recorder.record(("a", 2))
            assert len(store.calls) == calls
            store.locked = set()
            assert not await recorder.record(("a", 3)), "the first has not been recorded yet"
            for _ in range(2):
                await asyncio.sleep(recorder.due_in_s() or 0)
                await recorder.replay(stop)
            await recorder.settled("a")
            assert [number for key, number in store.written if key == "a"] == [1, 2, 3]
            assert recorder.due_in_s() is None

    run_virtual(main)


def test_another_process_records_what_the_journal_holds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "outlast.test")

    async def main() -> None:
        store = Store()
        store.up = False
        async with opened(tmp_path, store) as recorder:
            await recorder.record(("a", 1))
        store = Store()
        async with opened(tmp_path, store) as recorder:
            waiting = asyncio.create_task(recorder.settled("a"))
            await asyncio.sleep(0)
            await recorder.replay(Stop())
            await waiting
        assert store.written == [("a", 1)]

    run_virtual(main)
    said = [record.getMessage() for record in caplog.records if record.name == "outlast.test"]
    assert said == [
        f"test: 1 outcomes stay in the journal {tmp_path / 'journal'} until the next start",
        "test: the journal holds 1 outcomes of an earlier process",
        "test: 1 outcomes kept in the journal are recorded (the work of 0 more was taken over meanwhile)",
    ]


def test_a_service_that_ends_waits_no_longer_than_it_may_for_a_store_that_hangs(tmp_path: Path) -> None:
    async def main() -> None:
        store = Store()
        async with opened(tmp_path, store) as recorder:
            store.hangs = True
            recording = asyncio.create_task(recorder.record(("a", 1)))
            await asyncio.sleep(1)
            recorder.hurry(0.5)
            began_at = asyncio.get_running_loop().time()
            assert not await recording
            assert asyncio.get_running_loop().time() - began_at < 1
            assert recorder.journal.records == [("a", 1)]

    run_virtual(main)


def test_who_is_cancelled_has_it_recorded_all_the_same(tmp_path: Path) -> None:
    async def main() -> None:
        store = Store()
        async with opened(tmp_path, store) as recorder:
            recording = asyncio.create_task(recorder.record(("a", 1)))
            await asyncio.sleep(0.001)
            recording.cancel()
            await asyncio.sleep(1)
            assert store.written == [("a", 1)]

    run_virtual(main)


def test_what_neither_would_take_waits_and_is_tried_again(tmp_path: Path) -> None:
    async def main() -> None:
        store = Store()
        async with opened(tmp_path, store, records_max=2) as recorder:
            store.up = False
            recording = [asyncio.create_task(recorder.record((f"k{number}", 1))) for number in range(3)]
            await asyncio.sleep(5)
            assert [each.done() for each in recording] == [True, True, False]
            assert recorder.incident.is_open
            await until_up(store)
            await recorder.replay(Stop())
            # In the store or behind the others in the journal, as its next try comes before or after the replay.
            await recording[2]
            await recorder.replay(Stop())
            assert sorted(store.written) == [("k0", 1), ("k1", 1), ("k2", 1)]
            recorder.incident.resolve()

    run_virtual(main)


def test_what_the_store_refuses_without_being_down_is_kept_and_said(tmp_path: Path) -> None:
    async def main() -> None:
        store = Store()

        async def refuse(entries: list[Write]) -> list[Write]:
            raise OutlastError("no table", Fault(Kind.PERMANENT, "42P01", "no table", scope=Scope.CALL))

        async with opened(tmp_path, store) as recorder:
            recorder._write = refuse
            assert not await recorder.record(("a", 1))
            assert recorder.incident.first is not None
            assert recorder.incident.first.code == "42P01"
            recorder._write = store.write
            await recorder.replay(Stop())
            assert store.written == [("a", 1)]
            recorder.incident.resolve()

    run_virtual(main)


def test_lines_that_cannot_be_read_are_kept_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        store = Store()
        store.up = False
        async with opened(tmp_path, store) as recorder:
            await asyncio.gather(*(recorder.record((key, 1)) for key in "ab"))
        path = tmp_path / "journal"
        path.write_bytes(path.read_bytes().replace(b"a 1\n", b"a 9\n"))
        async with opened(tmp_path, Store()) as recorder:
            assert recorder.journal.records == [("b", 1)]
            assert b"a 9" in recorder.aside.path.read_bytes()
            assert b"a 9" not in path.read_bytes()

    run_virtual(main)
    where = f"the last of them is kept in {tmp_path / 'journal.refused'}"
    assert f"test: 1 lines of the journal {tmp_path / 'journal'} cannot be read: {where}" in caplog.messages
