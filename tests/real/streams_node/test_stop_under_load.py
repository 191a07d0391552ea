"""A node that is told to stop under load: nothing acknowledged is lost, and everybody learns what has become of its request."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any

from http_producers import Producer, all_go_on, append, ask, connect, make, running, until
from node_process import NodeProcess, free_port
from served import get
from small_disks import NOTHING_WRONG, compared
from streams_ledger import Attempt, Ledger
from waiting_readers import Readers, gather

if TYPE_CHECKING:
    from pathlib import Path

    from served import Client as Connection

    from conftest import RunAsync

PRODUCERS = 16
DEADLINE_S = 10.0


async def begun(port: int, stack: contextlib.AsyncExitStack, request: bytes, sent: int) -> Connection:
    """Send the first bytes of a request on a connection of its own."""
    connection = await stack.enter_async_context(await connect(port))
    connection.send(request[:sent])
    return connection


async def readiness(port: int, found: list[str]) -> None:
    """Ask whether it is ready, over and over, until nobody answers."""
    while True:
        try:
            answer = await ask(port, get("/readyz", "Connection: close"))
        except (OSError, asyncio.IncompleteReadError):
            found.append("nobody")
            return
        found.append("ready" if answer.status == 200 else "not ready")
        await asyncio.sleep(0.01)


def test_a_stop_under_load_loses_nothing_and_lets_every_reader_go(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        ledger, told = Ledger(), list[str]()
        readers = Readers(node.port, "quiet")
        await make(node.port, "quiet", "s0", "s1")
        clients = [Producer(f"p{number}", node.port, f"s{number % 2}", ledger) for number in range(PRODUCERS)]
        late = append("s0", Attempt("late", 0, 0).payload(1024))
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            asked = group.create_task(readiness(admin, told))
            await gather(group, readers, 200, 200)
            await until(lambda: readers.there == 400)
            under_way = await begun(node.port, stack, late, len(late) - 100)
            coming = await begun(node.port, stack, append("s1", b"never stored"), 10)
            async with running(clients):
                await all_go_on(clients)
                await until(lambda: told)
                node.process.terminate()
                refused = await coming.answer()
                # Its headers had come before the stop: it may finish.
                under_way.send(late[-100:])
                stored = await under_way.answer()
                code = await asyncio.to_thread(node.wait)
            await asked
        assert (code, refused.status, refused.code, refused.headers["connection"]) == (0, 503, "stopping", "close")
        assert (stored.status, stored.headers["connection"]) == (204, "close")
        ledger.answered(Attempt("late", 0, 0), int(stored.headers["stream-next-offset"]) - 1)
        # From the step that fires the stop it is not ready, and never again.
        assert re.fullmatch("(ready )+(not ready )*nobody", " ".join(told)), told
        assert set(readers.polls) <= {"204, then the end", "503, then the end"}, set(readers.polls)
        assert readers.events == ["last chunk, then the end"] * 200
        assert len(readers.polls) == 200
        # Who learned by an answer, and not by the end of a connection, was told why.
        problems: list[dict[str, Any]] = [each for client in clients for each in client.problems]
        assert {(each["status"], each["code"], each["kind"]) for each in problems} <= {(503, "stopping", "stopping")}
        assert not node.loud()
        assert len(ledger.acknowledged) >= PRODUCERS
        assert await compared(tmp_path, ledger) == NOTHING_WRONG

    admin = free_port()
    options = ("--admin", f"127.0.0.1:{admin}", "--stop-within", f"{DEADLINE_S:g}s")
    with NodeProcess(tmp_path, options=options) as node:
        run_async(main, limit_s=150)
