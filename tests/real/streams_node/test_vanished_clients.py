"""Clients that wait for data and go away: nothing of them is left, although nothing is appended."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest
from node_at_work import STREAM, at_work, reset
from served import get

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import RunAsync

AT_ONCE = 50


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Let this process have as many descriptors as it may: both sides of each connection are here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("descriptors")
@pytest.mark.parametrize("each", [200, pytest.param(1_000, marks=pytest.mark.long)])
def test_of_clients_that_vanish_while_they_wait_nothing_is_left(run_async: RunAsync, tmp_path: Path, each: int) -> None:
    async def main() -> None:
        async with at_work(tmp_path) as node:
            await node.create("quiet")
            await node.served.until(lambda: not node.served.open)
            before = node.held
            socks: dict[str, list[socket.socket]] = {"long-poll": [], "sse": []}
            for number in range(each):
                for live, those in socks.items():
                    those.append(node.begin(get(f"{STREAM}quiet?offset=now&live={live}")))
                if number % AT_ONCE == 0:
                    # No more than the kernel keeps for the server.
                    await node.served.until(lambda: node.served.open == sum(map(len, socks.values())))
            await node.served.until(lambda: node.readers == 2 * each)
            # All of them are one follower.
            assert node.held["followers"] == 1
            for those in socks.values():
                for sock in those[: each // 2]:
                    sock.close()
                for sock in those[each // 2 :]:
                    reset(sock)
            await node.served.until(lambda: node.held == before)
            assert (await node.streams.open("quiet")).tail == 0

    run_async(main)


def test_a_client_that_closes_its_side_only_is_let_go_of_as_well(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with at_work(tmp_path) as node:
            await node.create("quiet")
            await node.served.until(lambda: not node.served.open)
            before = node.held
            for live in ("long-poll", "sse"):
                async with await node.served.connect() as client:
                    client.send(get(f"{STREAM}quiet?offset=now&live={live}"))
                    await node.served.until(lambda: node.readers == 1)
                    client.half_close()
                    await client.rest()
                await node.served.until(lambda: node.held == before)

    run_async(main)
