"""Our own client against a node whose disk runs full and which is killed: what it says of each append is true."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
import streams_ledger
from node_process import NodeProcess
from small_disks import MIB, NOTHING_WRONG, all_go_on, compared, running, small_disk, until
from streams_ledger import Ledger

from outlast.streams import Appended, Client, OutcomeUnknownError

if TYPE_CHECKING:
    from conftest import RunAsync
    from outlast.streams import ClientStream, Producer

PRODUCERS, STREAMS = 4, 2
FULL = "Unavailable low space"
DEADLINE_S, PAUSE_S = 5.0, 0.05


class Remote:
    """A stream of a node, for a producer that knows those of a store. It sends again what nobody knows of as the error says."""

    def __init__(self, stream: ClientStream) -> None:
        self._stream = stream
        self._again: Producer | None = None

    async def append(self, data: bytes, *, producer: Producer, deadline_s: float | None) -> Appended:
        again = {} if self._again is None else {"producer": self._again}
        try:
            sent = await self._stream.append(data, deadline_s=deadline_s, **again)
        except OutcomeUnknownError as exc:
            self._again = exc.producer
            raise
        except Exception:
            self._again = None
            raise
        self._again = None
        return Appended(int(sent.next) - 1, int(sent.next), duplicate=sent.duplicate)


@pytest.mark.expected_logs
def test_what_it_says_of_each_append_is_true_through_a_full_disk_and_a_kill(run_async: RunAsync) -> None:
    async def main() -> None:
        ledger = Ledger()
        async with contextlib.AsyncExitStack() as stack:
            clients = []
            for number in range(PRODUCERS):
                # One client each, as programs of their own have.
                client = await stack.enter_async_context(Client(node.url))
                stream = await client.create(f"s{number % STREAMS}", exist_ok=True)
                clients.append(
                    streams_ledger.Client(f"p{number}", Remote(stream), ledger, deadline_s=DEADLINE_S, pause_s=PAUSE_S)
                )  # type: ignore[arg-type]
            async with running(clients):
                await all_go_on(clients)
                disk.fill(leave_bytes=MIB)
                await until(lambda: len({each.producer for each in ledger.refused}) == PRODUCERS)
                node.kill()
                await asyncio.to_thread(node.start)
                refused = ledger.errors[FULL]
                await until(lambda: ledger.errors[FULL] > refused + PRODUCERS)
                disk.free()
                await all_go_on(clients)
        assert node.loud(), "each of both has said that the disk is full"
        node.process.terminate()
        assert node.wait() == 0
        found = await compared(disk.path, ledger)
        # An append whose answer was lost is a duplicate when it is sent again; then where it stands is not what is told.
        assert {**found, "moved": []} == NOTHING_WRONG
        assert ledger.acknowledged

    with small_disk(16 * MIB, "tmpfs") as disk, NodeProcess(disk.path) as node:
        run_async(main)
