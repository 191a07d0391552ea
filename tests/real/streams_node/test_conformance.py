"""The node passes the suite of the protocol, whole; and what others wrote for the protocol works with it unchanged."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from node_process import NodeProcess
from npm_packages import Suite, node, packages

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
CORE, FORKS, RESERVED = 250, 82, 6
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


def test_the_suite_of_the_protocol_passes_whole(served: NodeProcess) -> None:
    assert_whole(Suite.run(served.url))


def test_the_client_from_npm_works_unchanged(served: NodeProcess) -> None:
    done = node("client.js", STREAMS_URL=served.url)
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
