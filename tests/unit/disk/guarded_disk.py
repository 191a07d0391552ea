"""A guarded disk in memory, a writer that asks the guard, and threads that hang when a test says so."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from typing import TYPE_CHECKING, Any

from fake_files import FakeFiles
from outlast import State, Unavailable
from outlast.disk import Disk, SpaceLowError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from outlast.extend import OwnThread

MIB = 1 << 20
TOTAL = 64 * MIB


def files_of(total: int = TOTAL, **options: Any) -> FakeFiles:
    files = FakeFiles(random.Random(1), capacity_bytes=total, **options)
    files.make_folder("/disk")
    files.make_folder("/other")
    return files


def disk_of(files: FakeFiles, path: str = "/disk", **options: Any) -> Disk:
    return Disk(path, files=files, **{"reserve_bytes": None, "rng": random.Random(1), **options})


class Writer:
    """Appends to one file as a user of the guard does, and counts what it was told."""

    def __init__(self, disk: Disk, size: int = 64 << 10, thread: OwnThread | None = None, data: bytes = b"") -> None:
        """Write `data`, or zeros; with a thread there, as one must on a real disk."""
        self.disk, self._data, self._thread = disk, data or bytes(size), thread
        self.size = len(self._data)
        self.acknowledged = 0
        self.errors: list[str] = []
        self.codes: set[str] = set()
        self._descriptor: int | None = None

    def write_once(self) -> None:
        """Write, or raise and leave nothing."""
        files, disk = self.disk.files, self.disk
        disk.admit(self.size)
        if self._descriptor is None:
            self._descriptor = files.open(disk.path / "data", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        before, written = files.size(self._descriptor), 0
        try:
            while written < self.size:
                written += files.write(self._descriptor, [self._data[written:]])
        except OSError:
            files.truncate(self._descriptor, before)
            raise

    async def write(self) -> bool:
        try:
            async with self.disk.use("append"):
                await (asyncio.sleep(0, self.write_once()) if self._thread is None else self._thread.run(self.write_once))
        except OSError as exc:
            self.errors.append(errno.errorcode[exc.errno or 0] + (" soft" if isinstance(exc, SpaceLowError) else ""))
            self.codes.add(self.disk.refusal(exc).fault.code)
            return False
        except Unavailable as refusal:
            self.codes.add(refusal.fault.code)
            return False
        self.acknowledged += 1
        return True

    async def write_for(self, seconds: float, every_s: float = 0.05) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while loop.time() < until:
            await self.write()
            await asyncio.sleep(every_s)


def changes_of(disk: Disk) -> list[State]:
    """The times at which it began to refuse, and to let in again."""
    changes: list[State] = []
    disk.subscribe(lambda state, _: None if state is State.UP else changes.append(state))
    return changes


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


class Inline:
    """Stands for `OwnThread`: makes calls where they are handed over, but for those that hang, which wait for the test."""

    hanging: bool = False
    refusing: bool = False
    """Whether the system has no thread to spare."""
    waiting: list[Callable[[], None]]
    started = 0

    def __init__(self, name: str) -> None:
        self.waiting = []

    def start(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        if self.refusing:
            raise RuntimeError("no thread can be started")
        future = asyncio.get_running_loop().create_future()

        def call() -> None:
            try:
                result = function()
            except Exception as exc:  # noqa: BLE001 - as a thread does
                future.set_exception(exc)
            else:
                future.set_result(result)

        self.started += 1
        if self.hanging:
            self.waiting.append(call)
        else:
            call()
        return future

    def heal(self) -> None:
        self.hanging = False
        while self.waiting:
            self.waiting.pop()()

    def close(self) -> None: ...


def threads(disk: Disk) -> tuple[Inline, Inline]:
    return disk._threads  # type: ignore[return-value]
