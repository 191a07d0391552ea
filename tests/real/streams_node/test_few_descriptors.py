"""More clients than a process has descriptors for: whoever is connected appends on, and newcomers come in when others leave."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from node_at_work import BYTES, STREAM
from served import Client, get, post

if TYPE_CHECKING:
    from conftest import RunAsync

CLIENTS = 200
APPENDS = 12
BODY = bytes(300_000)
"""Four fill a segment."""
LINES_MAX = 6


def segments(folder: Path) -> list[Path]:
    return list(folder.rglob("*.log"))


async def client_of(port: int) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", port))


async def append(client: Client) -> int:
    client.send(post(BODY, f"Content-Type: {BYTES}", path=f"{STREAM}a"))
    return (await client.answer()).status


async def come_in(port: int) -> None:
    """Append as a newcomer, once there is room for one."""
    while True:
        async with await client_of(port) as newcomer:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                if await append(newcomer) == 204:
                    return
        await asyncio.sleep(0.05)


def test_without_a_descriptor_left_whoever_is_connected_appends_on(run_async: RunAsync, tmp_path: Path) -> None:
    program = [sys.executable, str(Path(__file__).with_name("few_descriptors.py")), str(tmp_path)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = exhaust(run_async, process, tmp_path)
        finally:
            process.kill()
    warned = [line for line in said.splitlines() if " INFO " not in line]
    assert len(warned) <= LINES_MAX, said
    assert process.returncode == 0, said


def exhaust(run_async: RunAsync, process: subprocess.Popen[str], folder: Path) -> str:
    """Take all descriptors of a node that appends go on at, stop it, and return what it wrote."""
    assert process.stdout is not None
    port = int(process.stdout.readline())

    async def main() -> None:
        async with await client_of(port) as client:
            client.send(get(f"{STREAM}a", f"Content-Type: {BYTES}", method="PUT"))
            assert (await client.answer()).status == 201
            # The kernel takes them, whether the server accepts them or not.
            crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(CLIENTS)]
            assert [await append(client) for _ in range(APPENDS)] == [204] * APPENDS
            assert len(segments(folder)) >= APPENDS // 4, "files were made meanwhile"
            for sock in crowd:
                sock.close()
            await come_in(port)
            assert await append(client) == 204

    run_async(main)
    process.send_signal(signal.SIGTERM)
    return process.communicate(timeout=60)[1]
