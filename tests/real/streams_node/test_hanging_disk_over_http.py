"""A disk that hangs, over HTTP: who has a deadline is told in time that nothing was done, and others never notice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from http_producers import STREAM, Producer, all_go_on, append, ask, make, running, until
from node_process import NodeProcess
from queued_requests import Queued
from served import get
from small_disks import MIB, NOTHING_WRONG, compared, small_disk
from streams_ledger import Ledger

from outlast.streams import Streams

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunAsync

EXPIRED, HANGS, UNKNOWN = (503, "expired"), (503, "hangs"), (504, "outcome unknown")
SIZES = [(200, 1.0, 3.0), pytest.param(2_000, 5.0, 30.0, marks=pytest.mark.long)]


async def make_on(folder: Path) -> None:
    async with Streams(folder) as streams:
        await streams.create("ailing")


@pytest.mark.parametrize(("requests", "deadline_s", "hang_s"), SIZES)
def test_requests_over_a_disk_that_hangs_expire_unprocessed_and_fresh_ones_are_served_when_it_is_back(
    run_async: RunAsync, tmp_path: Path, requests: int, deadline_s: float, hang_s: float
) -> None:
    ailing, well = Ledger(), Ledger()

    async def main(node: NodeProcess) -> None:
        await make(node.port, "well")
        other = Producer("well", node.port, "well", well)
        queued = Queued(node.port, "ailing", deadline_s, ailing)
        clock = asyncio.get_running_loop().time
        syncs = disk.counts()[0].get("fsync", 0)
        disk.hang("fsync")
        begun_at = clock()
        async with running([other]), asyncio.TaskGroup() as group:
            group.create_task(queued.send(0))
            # The disk has the first one, so the others wait behind it. All are answered while the disk hangs.
            await until(lambda: disk.counts()[0].get("fsync", 0) > syncs)
            for number in range(1, requests):
                group.create_task(queued.send(number))
            await until(lambda: queued.answers.total() == requests)
            await asyncio.sleep(max(0.0, begun_at + hang_s - clock()))
            while_it_hung = queued.answers.copy()
            await all_go_on([other])
            refused = await ask(node.port, append("ailing", b"refused at once"))
            assert (refused.status, refused.code) == HANGS
            assert (await ask(node.port, get(f"{STREAM}ailing", "Connection: close", method="HEAD"))).status == 200
            disk.heal()
            fresh = Producer("fresh", node.port, "ailing", ailing)
            async with running([fresh]):
                await all_go_on([fresh])
        assert while_it_hung.keys() <= {EXPIRED, HANGS, UNKNOWN}, while_it_hung
        assert while_it_hung[EXPIRED] > 0, while_it_hung
        assert while_it_hung[UNKNOWN] == 1, while_it_hung
        assert queued.answers == while_it_hung
        node.process.terminate()
        assert node.wait() == 0

    with small_disk(64 * MIB, "faulty") as disk:
        # The only volume there is takes it; once there are two, the larger one takes new ones.
        run_async(lambda: make_on(disk.path))
        with NodeProcess(disk.path, tmp_path, options=("--connections-per-client", str(2 * requests))) as node:
            try:
                run_async(lambda: main(node), limit_s=150)
            finally:
                # A process in a call that hangs does not end.
                disk.heal()
        assert run_async(lambda: compared(disk.path, ailing)) == NOTHING_WRONG
    assert run_async(lambda: compared(tmp_path, well)) == NOTHING_WRONG
