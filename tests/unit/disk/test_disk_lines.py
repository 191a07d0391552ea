"""The lines of an outage of a disk, as operators read them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from outlast.disk import Disk
from outlast.extend import LOCAL_FILES, Room
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
pytestmark = pytest.mark.expected_logs("^disk")


class Pretending:
    """The files of this machine, on a disk whose room the test sets."""

    def __init__(self) -> None:
        self.available = 60 * MIB

    def room(self, path: object) -> Room:
        return Room(self.available, None, 64 * MIB)

    def __getattr__(self, name: str) -> object:
        return getattr(LOCAL_FILES, name)


def test_the_first_line_of_an_outage_says_what_fills_the_disk_and_there_is_one_line_a_transition(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads/film").write_bytes(b"x" * MIB)

    async def main() -> None:
        files = Pretending()
        async with Disk(tmp_path, files=files, name="disk", reserve_bytes=None) as disk:  # type: ignore[arg-type]
            files.available = 3 * MIB
            await asyncio.sleep(5)
            [line] = [record.getMessage() for record in caplog.records]
            assert line.startswith(
                "disk is down: EXHAUSTED low space 3.0 MiB of 64.0 MiB available; writing stops below 4.0 MiB and goes on at "
                "8.0 MiB - make room; writing goes on by itself; 1.0 MiB of the 61.0 MiB used were found in "
            )
            assert line.endswith("the rest lies elsewhere, or was deleted and is open: uploads/film 1.0 MiB")
            files.available = 20 * MIB
            await asyncio.sleep(5)
            assert disk.passable
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]

    caplog.set_level("INFO", "outlast")
    run_virtual(main)


def test_a_disk_that_does_not_answer_is_not_searched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Disk(tmp_path, name="disk", reserve_bytes=None) as disk:
            disk.stuck("a write has not returned for 2 s")
            await asyncio.sleep(0.05)
            [line] = [record.getMessage() for record in caplog.records]
            expected = (
                "disk is down: TRANSIENT hangs a write has not returned for 2 s - look at the mount and at the kernel's log"
            )
            assert line == expected

    run_virtual(main)
