"""A stream that holds its records in memory, for tests of its consumers; their cursors are on a fake disk."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fake_files import FakeFiles
from outlast import Fault, Kind, Unavailable
from outlast.extend import OwnThread
from outlast.streams._consumers import Consumers, OpenedFiles
from outlast.streams._errors import BeyondTailError, DamagedError, StreamNotFoundError, TrimmedError
from outlast.streams._model import Chunk, StreamOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast.streams._consumers import Consumer
    from outlast.streams._model import Delivered

T = TypeVar("T")
FOLDER = Path("/disk/7")


class MemoryStream:
    """A stream that holds its records in memory: a `Host`, and what a test does to it."""

    name = "orders"
    id = 7
    folder = FOLDER

    def __init__(self, count: int = 0, *, files: FakeFiles | None = None, sync_every_s: float = 0.0, frame: int = 1000) -> None:
        if files is None:
            files = FakeFiles(random.Random(1))
            files.make_folder(str(FOLDER))
        self.files = files
        self.cursor_files = self.opened()
        self.options = StreamOptions(sync_every_s=sync_every_s)
        self.records = [b"%d" % number for number in range(count)]
        self.recovered_tail = count
        self.frame = frame
        self.first = 0
        self.closed = self.gone = self.is_slow = False
        self.damaged: dict[int, int] = {}
        self.reads = 0
        self.thread = OwnThread("the disk")
        self.followers: set[asyncio.Future[None]] = set()

    def opened(self) -> OpenedFiles:
        return OpenedFiles(self.files, lambda function: function())

    def crash(self) -> None:
        self.files.crash()
        self.cursor_files = self.opened()

    def power_cut(self) -> None:
        self.files.power_cut()
        self.cursor_files = self.opened()

    def check(self) -> None:
        if self.gone:
            raise StreamNotFoundError(self.name, "it was deleted")

    @property
    def oldest(self) -> int:
        self.check()
        return self.first

    @property
    def tail(self) -> int:
        self.check()
        return len(self.records)

    @property
    def is_closed(self) -> bool:
        self.check()
        return self.closed

    def append(self, *records: bytes) -> None:
        self.records += records
        self.changed()

    def close(self) -> None:
        self.closed = True
        self.changed()

    def changed(self) -> None:
        for follower in self.followers:
            if not follower.done():
                follower.set_result(None)

    async def load(self, read: Callable[[], T]) -> T:
        return await self.thread.run(read)

    async def store(self, write: Callable[[], T]) -> T:
        self.check()
        await asyncio.sleep(10.0 if self.is_slow else 0.0)
        try:
            return await self.thread.run(write)
        except OSError as error:
            raise Unavailable("disk", Fault(Kind.EXHAUSTED, "ENOSPC", str(error)), 0.0, 1.0) from error

    async def fetch(self, position: int, bytes_max: int) -> Chunk:
        await asyncio.sleep(0.001)
        self.check()
        self.reads += 1
        if position < self.first:
            raise TrimmedError(self.name, position, self.first, len(self.records))
        if position > len(self.records):
            raise BeyondTailError(self.name, position, self.first, len(self.records))
        for first, end in self.damaged.items():
            if first <= position < end:
                raise DamagedError(self.name, "0.log", first, "the checksum is wrong", end)
        end = min([position + self.frame, len(self.records), *(first for first in self.damaged if first > position)])
        found: list[bytes] = []
        for record in self.records[position:end]:
            if found and sum(map(len, found)) + len(record) > bytes_max:
                break
            found.append(record)
        return Chunk(position, position + len(found), found, [7_000_000] * len(found), None)

    async def follow(self, timeout_s: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.followers.add(future)
        try:
            await asyncio.wait([future], timeout=timeout_s)
        finally:
            self.followers.discard(future)


def positions(delivered: list[Delivered]) -> list[int]:
    return [each.position for each in delivered]


async def consumer_of(stream: MemoryStream, **options: float) -> Consumer:
    """The consumer as a fresh process has it."""
    return await Consumers(stream).consumer("billing", **options)  # type: ignore[arg-type]
