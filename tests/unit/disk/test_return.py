"""Whatever happens to a disk: nothing refused stays, and once all is well it is written again within two seconds."""

from __future__ import annotations

import asyncio
import errno
import random
from typing import TYPE_CHECKING

import pytest
from guarded_disk import MIB, Writer, disk_of, files_of

from outlast.testing import run_virtual

if TYPE_CHECKING:
    from fake_files import FakeFiles

pytestmark = pytest.mark.expected_logs("disk /disk")

BACK_S = 2.0
"""What the guard promises, and what follows from its waits: see `POLICY`."""


async def trouble(files: FakeFiles, chance: random.Random) -> None:
    """Do something to the disk, or undo it; now and then for long enough to relapse."""
    what = chance.choice(["fill", "free", "swing", "write", "sync", "room", "open", "allocate"])
    match what:
        case "fill":
            files.fill(min(files.available_bytes, chance.randint(0, 64 * MIB)))
        case "free":
            files.free(chance.randint(0, 64 * MIB))
        case "swing":
            files.free()
            files.fill(max(0, files.available_bytes - 4 * MIB + chance.randint(-MIB, MIB)))
        case "room":
            files.fail("room", errno.ESTALE, times=chance.randint(1, 20))
        case call:
            number = chance.choice([errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ETIMEDOUT])
            files.fail(call, number, times=chance.randint(1, 5), path="/disk/*")
    await asyncio.sleep(chance.choice([0.01, 0.1, 1.0, 3.0]))


@pytest.mark.parametrize("seed", range(25))
def test_after_any_trouble_a_disk_is_written_again_within_two_seconds_and_has_what_was_acknowledged(seed: int) -> None:
    async def main() -> None:
        files, chance, loop = files_of(), random.Random(seed), asyncio.get_running_loop()
        async with disk_of(files, rng=chance) as disk:
            writer = Writer(disk, size=chance.choice([512, 4096, 65_536]))
            writing = asyncio.create_task(writer.write_for(1000, every_s=0.1))
            for _ in range(12):
                await trouble(files, chance)
            files.heal()
            well_at, before = loop.time(), writer.acknowledged
            while writer.acknowledged == before:
                await asyncio.sleep(0.05)
            assert loop.time() - well_at <= BACK_S + 0.15, f"and one turn of the writer; {disk.health}"
            writing.cancel()
            assert len(files.read("/disk/data")) == writer.acknowledged * writer.size

    run_virtual(main, seed=seed)


@pytest.mark.parametrize("seed", range(10))
def test_a_disk_that_has_relapsed_again_and_again_is_still_written_within_two_seconds_of_room(seed: int) -> None:
    async def main() -> None:
        files, loop = files_of(), asyncio.get_running_loop()
        async with disk_of(files, rng=random.Random(seed)) as disk:
            writer = Writer(disk)
            for _ in range(12):
                # Each proof passes, and each write meets a quota that is below it.
                files.fail("write", errno.EDQUOT, path="/disk/data")
                while await writer.write() or disk.passable:
                    await asyncio.sleep(0.02)
                failed_at, before = loop.time(), writer.acknowledged
                while not await writer.write():
                    await asyncio.sleep(0.02)
                assert loop.time() - failed_at <= BACK_S
                assert writer.acknowledged == before + 1
            assert disk.incident.book.relapses == 11

    run_virtual(main)
