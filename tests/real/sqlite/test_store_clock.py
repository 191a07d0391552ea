"""The clock of a store of procedures in SQLite: what waits so many seconds waits that long, whatever is done to the clock."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from procedure_store_rig import WAITING, begin, claim, submit, write

from fake_machine import Machine, MachineClock
from outlast import ConfigurationError
from outlast.extend import NewerFormatError
from outlast.procedures._stores.clock import StoreClock
from outlast.procedures._stores.sqlite import SqliteStore
from outlast.sqlite import Sqlite

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunAsync


async def opened(path: Path, machine: Machine) -> SqliteStore:
    """What a process has that starts: nothing of the one before."""
    store = SqliteStore(Sqlite(path), MachineClock(machine))
    await store.open()
    await store.beat("a", "a", 1e6)
    return store


async def killed(store: SqliteStore) -> None:
    await store.dependency.close()


@pytest.mark.parametrize("set_back_s", [0, 3_600, -3_600])
def test_a_wait_is_over_when_its_seconds_have_passed_over_kills_and_clocks(
    tmp_path: Path, run_async: RunAsync, set_back_s: float
) -> None:
    async def main() -> None:
        machine, path = Machine(), tmp_path / "work.db"
        store = await opened(path, machine)
        await write(store, await begin(store), WAITING, due_s=60, waits_for="go")
        for seconds in (30, 20, 9):
            machine.passes(seconds)
            machine.wall_s -= set_back_s
            await killed(store)
            store = await opened(path, machine)
            assert await claim(store) == []
        machine.passes(1)
        assert len(await claim(store)) == 1
        await killed(store)

    run_async(main)


def test_after_a_start_of_the_machine_time_goes_on_and_never_back(tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        machine, path = Machine(), tmp_path / "work.db"
        store = await opened(path, machine)
        first = await submit(store, delay_s=60)
        machine.passes(50)
        await store.beat("a", "a", 1e6)
        await killed(store)
        machine.starts_again(machine.wall_s - 86_400)
        store = await opened(path, machine)
        assert await claim(store) == []
        [seen] = await store.find([first.id])
        assert seen is not None
        assert seen.read_at >= first.created_at + 50, "a clock that was set back a day"
        machine.passes(10)
        assert len(await claim(store)) == 1
        await killed(store)
        machine.starts_again(machine.wall_s + 2 * 86_400)
        store = await opened(path, machine)
        [seen] = await store.find([first.id])
        assert seen is not None
        assert seen.read_at == pytest.approx(machine.wall_s, abs=1), "a clock that is ahead is believed"
        await killed(store)

    run_async(main)


def test_all_processes_of_a_machine_have_one_clock(tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        machine, path = Machine(), tmp_path / "work.db"
        first = await opened(path, machine)
        machine.wall_s += 1_000_000
        second = await opened(path, machine)
        record = await submit(first)
        [seen] = await second.find([record.id])
        assert seen is not None
        assert dataclasses.replace(seen, read_at=record.read_at) == record
        assert seen.read_at == pytest.approx(record.read_at, abs=0.001)
        await killed(first)
        await killed(second)

    run_async(main)


def test_tables_of_a_later_version_are_left_as_they_are(tmp_path: Path, run_async: RunAsync) -> None:
    async def main() -> None:
        machine, path = Machine(), tmp_path / "work.db"
        store = await opened(path, machine)
        await store.dependency.write(lambda connection: connection.execute("UPDATE outlast_procedures_state SET format = 99"))
        with pytest.raises(NewerFormatError, match="format 99") as caught:
            await store.open()
        assert isinstance(caught.value, ConfigurationError)
        [(kept,)] = await store.dependency.read(
            lambda connection: connection.execute("SELECT format FROM outlast_procedures_state").fetchall()
        )
        assert kept == 99
        await killed(store)

    run_async(main)


def test_the_clock_of_this_machine_is_that_of_all(tmp_path: Path) -> None:
    clock = StoreClock()
    kept = clock.adopt(None)
    assert kept.boot_id == clock.boot_id() != ""
    assert kept.seen_at == pytest.approx(clock.wall(), abs=60)
    assert StoreClock().adopt(kept).offset_s == kept.offset_s
