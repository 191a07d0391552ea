"""What the tests of the store share: a store on a disk in memory."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import TYPE_CHECKING, Any

import outlast
from fake_files import FakeFiles
from outlast.disk import Disk
from outlast.streams import Record, Stream, Streams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fake_faults import Hang

MIB = 1 << 20


def disk_in_memory(*folders: str, capacity_bytes: int = 64 * MIB, seed: int = 1) -> FakeFiles:
    files = FakeFiles(Random(seed), capacity_bytes=capacity_bytes)
    for folder in folders or ("/disk",):
        files.make_folder(folder)
    return files


@asynccontextmanager
async def opened(files: FakeFiles, *folders: str, **options: Any) -> AsyncIterator[Streams]:
    """Open a store with a volume for each folder."""
    disks = [Disk(folder, name=folder, files=files, rng=Random(1)) for folder in folders or ("/disk",)]
    async with Streams(disks, files=files, **options) as streams:
        yield streams


async def records(stream: Stream, start: int = 0) -> list[Record]:
    return [record async for record in stream.read(start)]


async def data(stream: Stream, start: int = 0) -> list[bytes]:
    return [record.data for record in await records(stream, start)]


async def entered(hang: Hang) -> None:
    """Return when a call hangs."""
    assert await asyncio.to_thread(hang.entered.wait, 60)


async def fill(stream: Stream, size: int = 100_000) -> list[int]:
    """Append until it is refused; return the positions that were acknowledged."""
    got: list[int] = []
    with suppress(outlast.Unavailable):
        while True:
            got.append((await stream.append(b"%08d" % len(got) + bytes(size))).first)
    return got


def figures(streams: Streams) -> dict[str, dict[tuple[str, ...], float]]:
    return {figure.name: dict(figure.samples) for figure in streams.shown.figures()}
