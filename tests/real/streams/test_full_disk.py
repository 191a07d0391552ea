"""Streams on disks that are full for real: what was acknowledged is there, what was refused is not, and it goes on by itself."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from counted_files import CountedFiles
from small_disks import MIB, NOTHING_WRONG, SMALL, all_go_on, compared, running, small_disk, until
from streams_ledger import Client, Ledger

import outlast
from outlast.disk import Disk
from outlast.streams import Streams
from outlast.testing import SmallDisk, SmallDiskError

if TYPE_CHECKING:
    from outlast.testing import DiskKind

pytestmark = pytest.mark.expected_logs(r"disk .* is (down|unavailable)")

HERE = Path(__file__).parent
PATHS = os.pathsep.join(str(path) for path in (HERE, Path(outlast.__file__).parents[1]))
LINES_MAX = 6
SIZES = [(16, 0.5), pytest.param(64, 30.0, marks=pytest.mark.long)]

NEIGHBOUR = """
import sys, time
with open(sys.argv[1], "wb", 0) as file:
    try:
        while True:
            file.write(bytes(1 << 20))
            time.sleep(0.05)
    except OSError as exc:
        sys.exit(exc.errno)
"""
"""Writes 20 MiB a second until it is refused."""


def scenario(kind: str, size_mib: int, seconds: float, *, as_root: bool) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "full_disk.py"), kind, str(size_mib), str(seconds)]
    if not as_root:
        try:
            command = SmallDisk.command(command)
        except SmallDiskError as exc:
            pytest.skip(f"no user namespaces here: {exc}")
    environment = {**os.environ, "PYTHONPATH": PATHS}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=170, env=environment)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def lines_about(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


@pytest.mark.parametrize(("size_mib", "seconds"), SIZES)
@pytest.mark.parametrize("place", ["tmpfs", "ext4", "tmpfs, not root"])
def test_eight_producers_fill_a_disk_and_push_on(place: str, size_mib: int, seconds: float) -> None:
    kind = place.partition(",")[0]
    if kind == place:
        small_disk(MIB, kind)  # type: ignore[arg-type]
    found = scenario(kind, size_mib, seconds, as_root=kind == place)
    assert [found[name] for name in NOTHING_WRONG] == [0, 0, 0, 0]
    assert found["acknowledged"] > size_mib * 250
    assert (found["stored_while_full"], found["down_while_full"]) == (0, True)
    assert found["refused"] > 8
    assert list(found["errors_while_full"]) == ["Unavailable low space"], "one stable error"
    assert len(found["log_lines"]) <= LINES_MAX, found["log_lines"]
    # Reads never stopped; what lets go of room works on a full disk.
    assert (found["read_while_full"] > 0, found["reads_failed"]) == (True, [])
    assert (found["names"], found["trimmed"]) == (["spare 0", "used 0", "used 1"], 512)
    assert found["resident_grown"] < 32 * MIB


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_neighbour_that_takes_the_rest_at_once_costs_nothing_that_was_acknowledged(
    kind: DiskKind, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        files, ledger = CountedFiles(), Ledger()
        async with Streams(Disk(disk.path, files=files), files=files) as streams:
            clients = [
                Client(f"p{number}", await streams.create(f"s{number}", SMALL), ledger, size=16_384) for number in range(4)
            ]
            async with running(clients):
                await all_go_on(clients)
                disk.fill(leave_bytes=0)
                await until(lambda: all(any(each.producer == client.name for each in ledger.refused) for client in clients))
                reading = [record async for record in clients[0].stream.read()]
                assert reading
                disk.free()
                await all_go_on(clients)
        assert await compared(disk.path, ledger) == NOTHING_WRONG
        assert len(lines_about(caplog, "is down")) == 1

    with small_disk(32 * MIB, kind) as disk, caplog.at_level("INFO", "outlast"):
        asyncio.run(main())


def test_a_process_that_fills_the_disk_is_met_by_a_stop_before_any_write_fails() -> None:
    async def main() -> None:
        files, ledger = CountedFiles(), Ledger()
        async with Streams(Disk(disk.path, files=files), files=files) as streams:
            clients = [
                Client(f"p{number}", await streams.create(f"s{number}", SMALL), ledger, pause_s=0.05) for number in range(4)
            ]
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", NEIGHBOUR, disk.path.parent / "neighbour")
            async with running(clients):
                await process.wait()
                await until(lambda: ledger.errors)
                assert process.returncode == 28, "it has met the end of the disk"
        assert files.failed.keys().isdisjoint({("write", "ENOSPC"), ("sync_data", "ENOSPC")}), files.failed
        assert set(ledger.errors) == {"Unavailable low space"}
        assert await compared(disk.path, ledger) == NOTHING_WRONG

    with small_disk(64 * MIB, "tmpfs") as disk:
        asyncio.run(main())


@pytest.mark.parametrize("seconds", [3.0, pytest.param(60.0, marks=pytest.mark.long)])
def test_room_that_swings_about_the_stop_makes_no_swing_of_the_state(seconds: float, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        ledger = Ledger()
        async with Streams(disk.path) as streams:
            client = Client("p", await streams.create("s", SMALL), ledger)
            async with running([client]):
                await all_go_on([client])
                end = asyncio.get_running_loop().time() + seconds
                swings = 0
                while asyncio.get_running_loop().time() < end:
                    # The stop is at 4 MiB on a disk of this size.
                    disk.fill(leave_bytes=(3 if swings % 2 else 5) * MIB)
                    swings += 1
                    await asyncio.sleep(0.15)
        assert ledger.errors, "the stop was never met"
        assert len(lines_about(caplog, "is down")) + len(lines_about(caplog, "is back")) <= max(2, 2 * seconds / 60)
        assert await compared(disk.path, ledger) == NOTHING_WRONG

    with small_disk(64 * MIB, "tmpfs") as disk, caplog.at_level("INFO", "outlast"):
        asyncio.run(main())
