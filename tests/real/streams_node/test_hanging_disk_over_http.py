"""A disk that hangs, over HTTP: who has a deadline is told in time that nothing was done, and others never notice."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from http_producers import LOST, STREAM, UNKNOWN, Producer, all_go_on, append, ask, connect, make, running, until
from node_process import NodeProcess
from served import get
from small_disks import MIB, NOTHING_WRONG, compared, small_disk
from streams_ledger import Attempt, Ledger

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunAsync

SENT_WITHOUT_PRODUCER = 204
SIZES = [(400, 1.0, 3.0), pytest.param(2_000, 5.0, 30.0, marks=pytest.mark.long)]


@pytest.mark.parametrize(("requests", "deadline_s", "hang_s"), SIZES)
def test_requests_over_a_disk_that_hangs_expire_unprocessed_and_fresh_ones_are_served_when_it_is_back(
    run_async: RunAsync, tmp_path: Path, requests: int, deadline_s: float, hang_s: float
) -> None:
    ledger = Ledger()
    answers: Counter[tuple[int, Any]] = Counter()

    async def send(port: int, number: int) -> None:
        attempt = Attempt("queued", number, 0)
        try:
            async with await connect(port) as connection:
                connection.send(append("ailing", attempt.payload(64), f"X-Request-Timeout: {deadline_s:g}"))
                answer = await connection.answer()
        except LOST:
            ledger.unknown.add(attempt)
            answers["cut", None] += 1
            return
        answers[answer.status, answer.problem["code"] if answer.status >= 400 else None] += 1
        if answer.status == SENT_WITHOUT_PRODUCER:
            ledger.answered(attempt, int(answer.headers["stream-next-offset"]) - 1)
        elif answer.status == UNKNOWN:
            ledger.unknown.add(attempt)
        else:
            ledger.refused.add(attempt)

    async def main(node: NodeProcess) -> None:
        await make(node.port, "well")
        other = Producer("well", node.port, "well", ledger)
        assert (await ask(node.port, append("ailing", Attempt("before", 0, 0).payload(64)))).status == SENT_WITHOUT_PRODUCER
        clock = asyncio.get_running_loop().time
        disk.hang("fsync")
        begun_at = clock()
        async with running([other]), asyncio.TaskGroup() as group:
            queued = [group.create_task(send(node.port, number)) for number in range(requests)]
            await until(lambda: answers[503, "expired"])
            # Somebody has to be in the call that hangs: who that is will be answered when it is back.
            await asyncio.sleep(max(0.0, begun_at + hang_s - clock()))
            expired = answers.copy()
            await all_go_on([other])
            refused = await ask(node.port, append("ailing", b"refused at once"))
            assert (refused.status, refused.code) == (503, "hangs")
            assert (await ask(node.port, get(f"{STREAM}ailing", "Connection: close", method="HEAD"))).status == 200
            disk.heal()
            fresh = Producer("fresh", node.port, "ailing", ledger)
            async with running([fresh]):
                await all_go_on([fresh])
            await asyncio.wait(queued)
        assert expired.keys() <= {(503, "expired"), (503, "hangs"), (504, "outcome unknown")}, expired
        assert expired[503, "expired"] > requests / 2, expired
        # What was in the call is answered by what became of it.
        assert (answers - expired).keys() <= {(SENT_WITHOUT_PRODUCER, None), (504, "outcome unknown")}, answers
        assert answers.total() == requests
        node.process.terminate()
        assert node.wait() == 0

    with small_disk(64 * MIB, "faulty") as disk:
        try:
            with NodeProcess(disk.path) as node:
                # The only volume there is takes it; once there are two, the larger one takes new ones.
                run_async(lambda: make(node.port, "ailing"))
                node.process.terminate()
                assert node.wait() == 0
            options = ("--connections-per-client", str(2 * requests))
            with NodeProcess(disk.path, tmp_path, options=options) as node:
                try:
                    run_async(lambda: main(node), limit_s=150)
                finally:
                    # A process in a call that hangs does not end.
                    disk.heal()
            assert_right(run_async, disk.path, tmp_path, ledger)
        finally:
            disk.heal()


def assert_right(run_async: RunAsync, ailing: Path, well: Path, ledger: Ledger) -> None:
    """Nothing is lost and nothing that was refused is there, on either disk."""

    def only(*producers: str) -> Ledger:
        kept = Ledger()
        kept.acknowledged = {attempt: at for attempt, at in ledger.acknowledged.items() if attempt.producer in producers}
        kept.refused = {attempt for attempt in ledger.refused if attempt.producer in producers}
        return kept

    async def main() -> None:
        assert await compared(ailing, only("queued", "fresh")) == NOTHING_WRONG
        assert await compared(well, only("well")) == NOTHING_WRONG

    run_async(main)
