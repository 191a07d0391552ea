"""A server under a memory limit of the kernel's: a flood of large bodies, with a length and without, never ends it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from memory_group import LIMIT_BYTES, group_of, inside

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENTS = 120
PART = bytes(2**16)
BODY_PARTS = 64
"""4 MiB a body, 480 MiB in all."""
GONE = "the connection was lost"

pytestmark = [pytest.mark.root, pytest.mark.skipif(sys.platform != "linux", reason="needs control groups")]


@contextmanager
def hungry(how: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the server under the limit; yield its process and its port."""
    program = [sys.executable, Path(__file__).with_name("hungry_server.py"), how]
    with group_of(LIMIT_BYTES) as group:
        process = subprocess.Popen(inside(group, program), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()
            process.communicate()


async def post(port: int, *, chunked: bool) -> str:
    """Send one body; return the status of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    length = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % (BODY_PARTS * len(PART))
    writer.write(b"POST / HTTP/1.1\r\nhost: hungry\r\n%s\r\n\r\n" % length)
    sending = asyncio.ensure_future(send_body(writer, chunked=chunked))
    try:
        line = await reader.readline()
        return line.split()[1].decode() if line else GONE
    except ConnectionError:
        return GONE
    finally:
        sending.cancel()
        await asyncio.wait([sending])
        writer.transport.abort()


async def send_body(writer: asyncio.StreamWriter, *, chunked: bool) -> None:
    part = b"%x\r\n%s\r\n" % (len(PART), PART) if chunked else PART
    for _ in range(BODY_PARTS):
        writer.write(part)
        await writer.drain()
        # Bodies come side by side, and none is there before all have begun.
        await asyncio.sleep(0.005)
    if chunked:
        writer.write(b"0\r\n\r\n")


async def flood(port: int, *, chunked: bool) -> Counter[str]:
    return Counter(await asyncio.gather(*(post(port, chunked=chunked) for _ in range(CLIENTS))))


@pytest.mark.parametrize("body", ["with a length", "chunked"])
def test_a_flood_of_large_bodies_never_ends_a_server_that_looks_at_its_memory(body: str) -> None:
    chunked = body == "chunked"
    with hungry("memory") as (process, port):
        answers = asyncio.run(flood(port, chunked=chunked))
        assert set(answers) == {"200", "503"}, answers
        assert answers["200"] >= 5
        assert asyncio.run(flood(port, chunked=chunked))["200"] >= 5, "and so again"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.parametrize("body", ["with a length", "chunked"])
def test_the_same_flood_of_bodies_ends_one_that_does_not(body: str) -> None:
    with hungry("none") as (process, port):
        assert asyncio.run(flood(port, chunked=body == "chunked"))[GONE] > 0
        assert process.wait(30) == -signal.SIGKILL
