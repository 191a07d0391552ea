"""What tests of streams on real disks share: a disk or a reason to skip, clients that run for a while, the end of a test."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from outlast.streams import StreamOptions, Streams
from outlast.testing import SmallDisk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from streams_ledger import Client, Ledger

    from outlast.streams import Stream
    from outlast.testing import DiskKind

MIB = 1 << 20
WAIT_S_MAX = 60.0
SMALL = StreamOptions(segment_bytes=MIB)
NOTHING_WRONG = {"lost": [], "phantom": [], "twice": [], "moved": []}


def small_disk(size_bytes: int, kind: DiskKind, inodes: int | None = None) -> SmallDisk:
    """Return a disk; skip where it cannot be made."""
    if (reason := SmallDisk.available(kind)) is not None:
        pytest.skip(reason)
    return SmallDisk(size_bytes, kind, inodes=inodes)


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds; the limit ends a wait that would be in vain."""
    async with asyncio.timeout(WAIT_S_MAX):
        while not condition():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(clients: Sequence[Client]) -> AsyncIterator[None]:
    """Let clients send while the block runs."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each.run()) for each in clients]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def all_go_on(clients: Sequence[Client]) -> None:
    """Wait until each client has stored something more."""
    before = [each.sequence for each in clients]
    await until(lambda: all(each.sequence > sequence for each, sequence in zip(clients, before, strict=True)))


async def compared(path: Path, ledger: Ledger) -> dict[str, list]:  # type: ignore[type-arg]
    """Open the store of a folder again, read all of it, and compare."""
    async with Streams(path) as streams:
        return ledger.compare([record for name in streams.names() async for record in read(await streams.open(name))])


async def read(stream: Stream) -> AsyncIterator:  # type: ignore[type-arg]
    async for record in stream.read(stream.oldest):
        yield record
