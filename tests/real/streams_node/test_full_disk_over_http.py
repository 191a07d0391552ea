"""A disk that is full, seen over HTTP by eight clients: one cause for all of them, and they go on by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from http_producers import STREAM, Producer, all_go_on, ask, cause, make, running, until
from node_process import NodeProcess
from served import get
from small_disks import MIB, NOTHING_WRONG, compared, small_disk
from streams_ledger import Ledger

if TYPE_CHECKING:
    from conftest import RunAsync

PRODUCERS, STREAMS = 8, 2
LINES_MAX = 6
SIZES = [(16, 60), pytest.param(64, 2_000, marks=pytest.mark.long)]


def producers(port: int, ledger: Ledger) -> list[Producer]:
    return [Producer(f"p{number}", port, f"s{number % STREAMS}", ledger) for number in range(PRODUCERS)]


@pytest.mark.parametrize(("size_mib", "refusals"), SIZES)
def test_eight_clients_are_told_the_same_cause_while_a_disk_is_full_and_go_on_once_there_is_room(
    run_async: RunAsync, size_mib: int, refusals: int
) -> None:
    async def main() -> None:
        ledger = Ledger()
        await make(node.port, "s0", "s1", "spare")
        clients = producers(node.port, ledger)
        async with running(clients):
            await all_go_on(clients)
            disk.fill(leave_bytes=MIB)
            await until(lambda: all(len(each.problems) > refusals for each in clients))
            stored = len(ledger.acknowledged)
            # Reading, making room and asking go on.
            read = await ask(node.port, get(f"{STREAM}s0?offset=-1", "Connection: close"))
            assert (read.status, len(read.body) > 1024) == (200, True)
            head = await ask(node.port, get(f"{STREAM}s0", "Connection: close", method="HEAD"))
            assert head.status == 200
            gone = await ask(node.port, get(f"{STREAM}spare", "Connection: close", method="DELETE"))
            assert gone.status == 204
            assert len(ledger.acknowledged) == stored, "nothing is stored while it is full"
            disk.free()
            await all_go_on(clients)
        causes = {(each["status"], each["code"], each["kind"], cause(each)) for client in clients for each in client.problems}
        assert len(causes) == 1, f"all of them are told the same, from the first to the last: {causes}"
        ((status, code, kind, text),) = causes
        assert (status, code, kind) == (507, "low space", "exhausted")
        assert f"of {size_mib}.0 MiB available" in text
        for client in clients:
            assert all(each["free_bytes"] < disk.size_bytes and each["retry_after_s"] > 0 for each in client.problems)
            since_s = [each["since_s"] for each in client.problems]
            assert since_s == sorted(since_s), "one outage, not one for each refusal"
        node.process.terminate()
        assert node.wait() == 0
        assert node.outages() == 1, node.loud()
        assert len(node.of_disks()) <= LINES_MAX, node.of_disks()
        assert await compared(disk.path, ledger) == NOTHING_WRONG

    with small_disk(size_mib * MIB, "tmpfs") as disk, NodeProcess(disk.path) as node:
        run_async(main)


def test_a_node_that_was_killed_while_its_disk_was_full_starts_on_it_and_serves_all_that_was_acknowledged(
    run_async: RunAsync,
) -> None:
    async def main() -> None:
        ledger = Ledger()
        await make(node.port, "s0", "s1")
        clients = producers(node.port, ledger)
        async with running(clients):
            await all_go_on(clients)
            disk.fill(leave_bytes=0)
            await until(lambda: all(each.problems for each in clients))
            node.kill()
        node.start()
        acknowledged = dict(ledger.acknowledged)
        tails = [await ask(node.port, get(f"{STREAM}s{number}", "Connection: close", method="HEAD")) for number in range(STREAMS)]
        assert sum(int(each.headers["stream-next-offset"]) for each in tails) >= len(acknowledged)
        # It is still full, and says so as before; then it is not.
        again = [
            Producer(each.name, node.port, each.stream, ledger, sequence=each.sequence, number=each.number) for each in clients
        ]
        async with running(again):
            await until(lambda: all(each.problems for each in again))
            disk.free()
            await all_go_on(again)
        node.process.terminate()
        assert node.wait() == 0
        assert await compared(disk.path, ledger) == NOTHING_WRONG

    with small_disk(16 * MIB, "tmpfs") as disk, NodeProcess(disk.path) as node:
        run_async(main)
