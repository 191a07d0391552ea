"""A disk in a service, and what it shows."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading

import pytest
from guarded_disk import MIB, TOTAL, disk_of, files_of

import outlast
from outlast import ConfigurationError, Unavailable
from outlast.disk import Disk
from outlast.testing import run_virtual

pytestmark = pytest.mark.expected_logs("disk /disk", "disk /other")


def test_a_service_watches_its_disk_and_shows_it() -> None:
    async def main() -> None:
        files, service, stop = files_of(), outlast.Service("shop"), outlast.Stop()
        disk = disk_of(files)
        disk.attach(service)

        @service.task()
        async def look(stop: outlast.Stop) -> None:
            await asyncio.sleep(1)
            assert disk.room.total_bytes == TOTAL

        asyncio.get_running_loop().call_later(5, stop.fire, "the test is over")
        assert await service.run(stop) == 0

    run_virtual(main)


def test_its_figures_show_what_is_known_and_nothing_else() -> None:
    async def main() -> None:
        files = files_of(inodes=1000)
        disk = disk_of(files, reserve_bytes="by size")

        def figures() -> dict[str, list[float]]:
            return {figure.name: [value for _, value in figure.samples] for figure in disk.shown.figures()}

        assert figures()["available"] == []
        assert disk.shown.health().well is None
        await disk.open()
        await asyncio.sleep(3)
        assert figures() | {"condition": []} == {
            "available": [TOTAL - MIB],
            "size": [TOTAL],
            "available_inodes": [1000 - 4],
            "filled_a_second": figures()["filled_a_second"],
            "full_in": figures()["full_in"],
            "reserve": [MIB],
            "transitions": [0],
            "probes": [0],
            "condition": [],
        }
        health = disk.shown.health()
        assert (health.well, health.state, disk.shown.system, disk.shown.name) == (True, "well", "disk", "disk /disk")
        assert disk.shown.lag() is None
        files.fill()
        await asyncio.sleep(0.2)
        assert (disk.shown.health().well, disk.shown.health().state) == (False, "low space")
        assert figures()["transitions"] == [1]
        files.free()
        files.fail("sync", errno.EDQUOT, times=1000)
        await asyncio.sleep(3)
        assert (disk.shown.health().well, disk.shown.health().state) == (False, "not proved")
        await disk.close()

    run_virtual(main)


def test_time_until_full_is_told_while_it_fills() -> None:
    async def main() -> None:
        files = files_of()
        async with disk_of(files) as disk:
            for _ in range(40):
                files.fill(MIB // 10)
                await asyncio.sleep(0.1)
            assert disk.room.filling_bytes_s == pytest.approx(MIB, rel=0.3)
            assert disk.room.full_in_s == pytest.approx(60, rel=0.4)

    run_virtual(main)


def test_a_reserve_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="reserve_bytes must be at least 1, not 0; None keeps no reserve"):
        Disk("/disk", reserve_bytes=0)


def test_a_look_from_another_thread_counts_as_one(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        files = files_of()
        async with disk_of(files) as disk:
            files.fill()
            errors: list[OSError] = []

            def write() -> None:
                with contextlib.suppress(Unavailable), disk.blocking.use():
                    try:
                        disk.admit(61 * MIB)
                    except OSError as exc:
                        errors.append(exc)

            thread = threading.Thread(target=write)
            thread.start()
            thread.join()
            assert [error.errno for error in errors] == [errno.ENOSPC]
            assert disk.watch.read_at == asyncio.get_running_loop().time(), "on the clock of the event loop"

    run_virtual(main)
