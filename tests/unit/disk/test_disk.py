"""`Disk` in virtual time, before a disk that is made of numbers."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

import pytest

from outlast import Kind, Scope, State, Unavailable
from outlast.disk import Disk, SpaceLowError
from outlast.extend import LOCAL_FILES, Room, attached
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
pytestmark = pytest.mark.expected_logs("disk")


class Numbers:
    """A file system of this machine, but for the room, which the test sets."""

    def __init__(self, available: int = 60 * MIB, total: int = 64 * MIB) -> None:
        self.available, self.total = available, total
        self.inodes: int | None = None
        self.looks = 0

    def room(self, path: object) -> Room:
        self.looks += 1
        return Room(self.available, self.inodes, self.total, None if self.inodes is None else 1000)

    def __getattr__(self, name: str) -> object:
        return getattr(LOCAL_FILES, name)


def test_a_disk_that_runs_low_refuses_and_goes_on_by_itself_once_there_is_room(tmp_path: Path) -> None:
    async def main() -> None:
        files = Numbers()
        async with Disk(tmp_path, files=files) as disk:
            async with disk.use():
                disk.admit(MIB)
            files.available = 3 * MIB
            await asyncio.sleep(1.0)
            with pytest.raises(Unavailable) as refused:
                async with disk.use():
                    pass
            assert (refused.value.fault.kind, refused.value.fault.code) == (Kind.EXHAUSTED, "low space")
            files.available = 7 * MIB
            await asyncio.sleep(10)
            assert disk.state is State.DOWN
            assert disk.probes == 0
            files.available = 8 * MIB
            await asyncio.sleep(2)
            assert disk.state is State.RECOVERING
            assert disk.probes == 1
            async with disk.use():
                disk.admit(MIB)

    run_virtual(main)


def test_a_write_that_would_pass_the_lower_level_is_refused_before_it_is_begun(tmp_path: Path) -> None:
    async def main() -> None:
        files = Numbers(available=7 * MIB)
        async with Disk(tmp_path, files=files) as disk:
            with pytest.raises(SpaceLowError) as refused:
                async with disk.use():
                    disk.admit(4 * MIB)
            assert refused.value.errno == errno.ENOSPC
            assert attached(refused.value).scope is Scope.DEPENDENCY
            assert disk.state is State.DOWN

    run_virtual(main)
