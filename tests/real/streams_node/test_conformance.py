"""The node passes the suite of the protocol, whole; and what others wrote for the protocol works with it unchanged."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from http_producers import STREAM, Producer, all_go_on, append, ask, make, running
from node_process import NodeProcess
from npm_packages import Suite, begun, packages, run_script
from served import get
from small_disks import MIB, NOTHING_WRONG, small_disk
from streams_ledger import Ledger

from outlast.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams_ledger import Attempt

    from conftest import RunAsync

HERE = Path(__file__).parent
CORE, FORKS, RESERVED = 250, 82, 6
LIMIT = pytest.mark.timeout(400)
"""It takes forty seconds, most of which it waits, and on a busy machine twice that."""
SUITE = ("--long-poll", "3s")
"""The suite waits for answers without news for twenty seconds at most."""


def assert_whole(suite: Suite) -> None:
    """Nothing failed, and nothing was left out: a suite that ran nothing has shown nothing."""
    if suite.failed:
        pytest.fail("\n".join([f"{len(suite.failed)} tests of the suite failed", *suite.failed]), pytrace=False)
    assert suite.core == {"passed": CORE}
    assert suite.forks == {"passed": FORKS}
    # Subscriptions are another protocol, whose names the first one reserves.
    assert suite.reserved == {"skipped": RESERVED}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node for all tests of the file; at its end it stops, and has had nothing to say."""
    packages()
    with NodeProcess(tmp_path_factory.mktemp("streams"), options=SUITE) as running:
        yield running
        running.process.terminate()
        assert (running.wait(), running.loud()) == (0, [])


@LIMIT
def test_the_suite_of_the_protocol_passes_whole(served: NodeProcess) -> None:
    assert_whole(Suite.run(served.url))


@pytest.mark.long
@LIMIT
def test_the_suite_passes_while_the_disk_of_another_stream_is_full(run_async: RunAsync, tmp_path: Path) -> None:
    packages()

    async def told() -> tuple[int, str, int]:
        refused = await ask(node.port, append("full", bytes(64)))
        read = await ask(node.port, get(f"{STREAM}full?offset=-1", "Connection: close"))
        return refused.status, refused.code, len(read.body)

    with small_disk(16 * MIB, "tmpfs") as disk:
        with NodeProcess(disk.path) as node:
            # The only volume there is takes it; once there are two, the larger one takes new ones.
            run_async(lambda: make(node.port, "full"))
            run_async(lambda: ask(node.port, append("full", b"stored")))
        with NodeProcess(disk.path, tmp_path, options=SUITE) as node:
            disk.fill(leave_bytes=0)
            run_async(lambda: refused_once(node.port))
            before = run_async(told)
            assert before[:2] == (507, "low space")
            assert_whole(Suite.run(node.url))
            assert run_async(told) == before
            node.process.terminate()
            assert node.wait() == 0
            assert node.outages() == 1, node.loud()


async def refused_once(port: int) -> None:
    """Append until it is refused."""
    async with asyncio.timeout(60.0):
        while (await ask(port, append("full", bytes(64)))).status != 507:
            await asyncio.sleep(0.05)


@pytest.mark.long
@LIMIT
def test_the_suite_passes_on_what_a_node_left_that_was_killed_in_the_middle_of_it(run_async: RunAsync, tmp_path: Path) -> None:
    packages()
    ledger = Ledger()

    async def load() -> None:
        await make(node.port, "s0", "s1")
        clients = [Producer(f"p{number}", node.port, f"s{number % 2}", ledger) for number in range(4)]
        async with running(clients):
            await asyncio.sleep(8.0)
            await all_go_on(clients)
            node.kill()

    async def found() -> dict[str, list[Attempt]]:
        async with Streams(tmp_path) as streams:
            kept = [await streams.open(name) for name in ("s0", "s1")]
            return ledger.compare([record for stream in kept async for record in stream.read(stream.oldest)])

    with NodeProcess(tmp_path, options=SUITE) as node:
        with begun(node.url):
            run_async(load)
        node.start()
        assert_whole(Suite.run(node.url))
        node.process.terminate()
        assert (node.wait(), node.loud()) == (0, [])
    assert run_async(found) == NOTHING_WRONG


def test_the_client_from_npm_works_unchanged(served: NodeProcess) -> None:
    done = run_script(served.url, "client.js")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "read": [{"id": 1}, {"id": 2}],
        "sse": [{"id": 3}, {"id": 4}, {"id": 5}],
        "long-poll": [{"id": 3}, {"id": 4}, {"id": 5}],
        "finalOffset": True,
        "closed": True,
        "refused": "FetchError 409",
        "bytes": [0, 255, 10, 13, 1],
        "deleted": True,
    }


def test_the_client_from_pypi_works_unchanged(tmp_path: Path) -> None:
    if importlib.util.find_spec("durable_streams") is None:
        pytest.skip("durable-streams is not installed")
    with NodeProcess(tmp_path) as running:
        command = [sys.executable, HERE / "pypi_client.py", running.url]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "read": [{"id": 1}, {"id": 2}],
        "long-poll": [{"id": 3}, {"id": 4}, {"id": 5}],
        "sse": [{"id": 3}, {"id": 4}, {"id": 5}],
        "closed": [{"id": number} for number in range(1, 6)],
        "refused": 409,
        "bytes": [0, 255, 10, 13, 1],
        "deleted": "StreamNotFoundError",
    }
