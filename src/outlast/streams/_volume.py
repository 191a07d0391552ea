"""One volume of a store: a folder on one disk, the streams in it, the thread that writes and those that read."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import secrets
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from outlast import ConfigurationError, Fault, Kind, Scope, Unavailable
from outlast.extend import OwnThread, TornFileError
from outlast.streams._catalogue import Found, look_over
from outlast.streams._commit import Committer, Counts, Lane
from outlast.streams._consumers import OpenedFiles
from outlast.streams._errors import OutcomeUnknownError, StreamError, closed_error
from outlast.streams._format.names import folder_name
from outlast.streams._held import Held
from outlast.streams._log import Log, Shared
from outlast.streams._retention import NOTHING_FREED
from outlast.streams._upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from outlast.disk import Disk
    from outlast.streams._clock import Clock
    from outlast.streams._consumers import Consumers
    from outlast.streams._format.meta import Meta
    from outlast.streams._held import Followers
    from outlast.streams._model import Appended, Entry

T = TypeVar("T")

READERS: Final = 2
"""Threads that read: one that waits for a slow place on the disk leaves another."""
READS_MAX: Final = 1_000
RETRY_S: Final = 1.0
LOCK_NAME: Final = "outlast-streams.lock"
STREAMS_NAME: Final = "streams"
logger = logging.getLogger("outlast.streams")


class Readers:
    """A few threads that take calls from one line."""

    def __init__(self, name: str, count: int = READERS) -> None:
        self.name = name
        self._free = [OwnThread(f"{name} reads {number}") for number in range(count)]
        self._turns = asyncio.Semaphore(count)
        self._all = list(self._free)
        self.waiting = 0

    async def run(self, function: Callable[[], T]) -> T:
        """Call the function in one of the threads. Cancelled while it waits it is not called. Raises `Unavailable`: too many."""
        if self.waiting >= READS_MAX:
            reason = f"{self.waiting} reads wait (limit {READS_MAX})"
            fault = Fault(Kind.OVERLOADED, "reads full", reason, self.name, Scope.CALL, RETRY_S, "read less at a time")
            raise Unavailable(self.name, fault, 0.0, RETRY_S)
        self.waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self.waiting -= 1
        thread = self._free.pop()
        future = thread.start(function)
        future.add_done_callback(partial(self._back, thread))
        # Whoever is cancelled leaves the thread at work: it is free when it is back.
        return await asyncio.shield(future)

    def _back(self, thread: OwnThread, future: asyncio.Future[Any]) -> None:
        if not future.cancelled():
            future.exception()
        self._free.append(thread)
        self._turns.release()

    def close(self) -> None:
        """Let the threads end when they are back."""
        for thread in self._all:
            thread.close()


class Volume:
    """See the head of this file. On the event loop's thread only, but for what is passed to a thread."""

    def __init__(self, disk: Disk, followers: Followers, clock: Clock, backlog_max: int, backlog_bytes: int) -> None:
        self.disk = disk
        self.followers = followers
        self.files = disk.files
        self.path = Path(disk.path)
        self.folder = self.path / STREAMS_NAME
        self.thread = OwnThread(f"{disk.name} writes")
        self.readers = Readers(disk.name)
        self._committer = partial(
            Committer, disk, self.thread, clock.now_us, backlog_max=backlog_max, backlog_bytes=backlog_bytes, counts=Counts()
        )
        self.committer = self._committer()
        self.clock = clock
        self.freed = NOTHING_FREED
        """Room that retention has made and the disk does not show yet."""
        self.shared = Shared(disk=disk, files=disk.files, report=self._report, note=logger.info)
        self.lane = Lane(disk.name)
        """The queue of what concerns no stream that is there yet."""
        self.streams: dict[str, Held] = {}
        self.found = Found([], [], [])
        """What was there at the start."""
        self.cursor_files = OpenedFiles(disk.files, disk.cleaning)
        self.upkeep = Upkeep(self)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lock: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether it holds its folder."""
        return self._lock is not None

    # The threads.

    async def append(self, held: Held, entry: Entry, size: int, deadline_s: float | None) -> Appended:
        """Store an entry. The dependency refuses while the disk is not well; what is stored already is answered all the same."""
        if (known := self._answered(held, entry)) is not None:
            return known
        is_in = False
        try:
            async with self.disk.use("append"):
                is_in = True
                # The first attempt may have closed the stream while this one waited for its turn.
                if held.is_closed and (known := self._answered(held, entry)) is not None:
                    return known
                held.check_open(size)
                return await self.committer.append(held.lane, entry, size, deadline_s)
        except Unavailable:
            if not is_in:
                self.committer.counts.refused += 1
            raise

    def _answered(self, held: Held, entry: Entry) -> Appended | None:
        """Return what was answered for an append that is stored already, and count it. Raises as `Held.answered`."""
        counts = self.committer.counts
        try:
            known = held.answered(entry)
        except StreamError:
            counts.refused += 1
            raise
        if known is not None:
            counts.duplicates += 1
        return known

    def check(self, held: Held, size: int) -> None:
        """Raise what an append would be refused with now."""
        log = held.log
        if log.view.closed:
            raise closed_error(held.name, log.view.tail)
        if not self.disk.passable:
            raise self.disk.unavailable()
        held.check_open(size)
        if (refusal := self.committer.refusal(held.lane, size)) is not None:
            raise refusal

    async def read(self, held: Held, function: Callable[[], T]) -> T:
        """Call what reads a stream in a thread for reading."""
        try:
            return await self.readers.run(function)
        except OSError as error:
            if held.gone:
                raise held.not_found() from error
            self.disk.report(error, phase="read")
            raise self.disk.refusal(error) from error

    async def control(self, held: Held, function: Callable[[], T]) -> T:
        """Call a function of a stream's log behind the appends that wait. It goes on when the caller is cancelled."""
        return await self._finish(self._control(held, function))

    async def store(self, held: Held, function: Callable[[], T]) -> T:
        """Call what writes in the folder of a stream, behind the appends that wait."""
        return await self._finish(self._write(held.lane, function))

    async def _control(self, held: Held, function: Callable[[], T]) -> T:
        try:
            return await self._write(held.lane, function)
        finally:
            held.changed()

    async def _write(self, lane: Lane, function: Callable[[], T]) -> T:
        try:
            return await self.committer.call(lane, function)
        except OSError as error:
            self.disk.report(error, phase="write")
            if isinstance(error, TornFileError):
                raise OutcomeUnknownError(lane.name, str(error)) from error
            raise self.disk.refusal(error) from error

    async def _finish(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await what must come to its end although its caller may be cancelled."""
        return await self._shielded(asyncio.get_running_loop().create_task(coroutine, name=f"outlast streams {self.disk.name}"))

    async def _shielded(self, task: asyncio.Task[T]) -> T:
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # It was raised to the caller, if there still is one.
            task.exception()

    # Streams come and go.

    async def create(self, meta: Meta, first: Entry | None) -> Held:
        """Make a stream of that entry in the catalogue, but for its id and time; it is on disk when this returns."""
        async with self.disk.use("create"):
            return await self._finish(self._create(meta, first))

    async def _create(self, meta: Meta, first: Entry | None) -> Held:
        meta = replace(meta, id=secrets.randbits(64), created_us=self.clock.now_us())
        folder = self.folder / folder_name(meta.id)
        log = await self._write(self.lane, partial(self._make, folder, meta, first))
        held = Held(self, folder, meta)
        held.recovered(log)
        self.streams[meta.name] = held
        return held

    def _make(self, folder: Path, meta: Meta, first: Entry | None) -> Log:
        """Make the stream. In the thread."""
        try:
            self.files.mkdir(self.folder)
            self.files.sync_folder(self.path)
        except FileExistsError:
            pass
        return Log.create(folder, meta, self.shared, first)

    async def delete(self, held: Held) -> None:
        """Delete a stream. From now on it is gone for everybody who has it in hand, unless this fails."""
        log = held.log
        held.gone = True
        held.changed()
        task = held.deleting = asyncio.get_running_loop().create_task(self._delete(held, log))
        await self._shielded(task)

    async def _delete(self, held: Held, log: Log) -> None:
        try:
            await self._write(held.lane, partial(_delete, log, held.consumers))
        except BaseException:
            held.gone = False
            raise
        finally:
            held.deleting = None
        self.committer.forget(held.lane)
        if self.streams.get(held.name) is held:
            del self.streams[held.name]

    async def recovered(self, held: Held) -> Held:
        """Return when the log of a stream is recovered; those who ask meanwhile share it."""
        if held.known_log is None:
            recovering = held.recovering
            if recovering is None:
                recovering = held.recovering = asyncio.get_running_loop().create_task(self._recover(held))
                recovering.add_done_callback(self._finished)
            await asyncio.shield(recovering)
        return held

    async def _recover(self, held: Held) -> None:
        try:
            held.recovered(await self.readers.run(partial(Log.recover, held.folder, self.shared)))
        except OSError as error:
            self.disk.report(error, phase="recover")
            raise self.disk.refusal(error) from error
        finally:
            held.recovering = None

    # The beginning and the end.

    async def open(self) -> None:
        """Hold the folder and read its catalogue, again after a close. Raises `ConfigurationError`."""
        # Both belong to the event loop that they were used on, and the committer has ended.
        self.readers, self.committer = Readers(self.disk.name), self._committer()
        self.streams = {}
        self._lock, found, noted_us = await self.readers.run(self._open)
        if noted_us is not None and (gap_s := self.clock.seen(noted_us)) is not None:
            text = (
                "streams in %s: the clock is %.1f days %s the last use of the store; if it was not away for so long, set the "
                "clock. Records grow old from that use on, so retention lets go of none early"
            )
            logger.warning(text, self.path, abs(gap_s) / 86_400, "after" if gap_s > 0 else "before")
        for folder, meta in found.streams:
            self.streams[meta.name] = Held(self, folder, meta)
        self.found = found
        self.upkeep.begin()

    def _open(self) -> tuple[int, Found, int | None]:
        """Open it. In a thread."""
        try:
            lock = self._hold()
            try:
                return lock, look_over(self.folder, self.files), self._noted(lock)
            except BaseException:
                self.files.close(lock)
                raise
        except BlockingIOError as error:
            msg = (
                f"the streams in {self.path} are in use by another process, or by another Streams of this one; give each a folder"
            )
            raise ConfigurationError(msg) from error
        except FileNotFoundError as error:
            # Not made here: where a disk is not mounted, that would fill another one.
            msg = f"there is no folder {self.path} for streams; make it, on the disk that they are to be on"
            raise ConfigurationError(msg) from error
        except OSError as error:
            msg = f"cannot open the streams in {self.path}: {error.strerror}; give a folder that can be read and written"
            raise ConfigurationError(msg) from error

    def _hold(self) -> int:
        path = self.path / LOCK_NAME
        try:
            lock = self.files.open(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            lock = self.files.open(path, os.O_RDONLY)
        try:
            self.files.lock(lock)
        except BaseException:
            self.files.close(lock)
            raise
        return lock

    async def note(self) -> None:
        """Note when the store was in use last, so that the next start notices a clock that jumped."""
        if self._lock is not None:
            await self.readers.run(partial(self._note, self._lock))

    def _note(self, lock: int) -> None:
        """Write the time into the lock file, in place: it needs no room but the first time. In a thread."""
        with contextlib.suppress(OSError):
            self.files.write_at(lock, b"%020d\n" % self.clock.now_us(), 0)

    def _noted(self, lock: int) -> int | None:
        """Return the time that was noted last. In a thread."""
        text = self.files.read_at(lock, 20, 0)
        return int(text) if len(text) == 20 and text.isdigit() else None

    async def flush(self) -> None:
        """Make durable what is not, and return when all that is queued is done, or the thread hangs."""
        flushes = (held.consumers.flush() for held in self.streams.values() if held.known_log is not None)
        for outcome in await asyncio.gather(*flushes, return_exceptions=True):
            if isinstance(outcome, Exception):
                # Refused, or unknown: deliveries come again. A disk has its own lines.
                logger.debug("streams in %s: cursors are not stored: %r", self.path, outcome)
        await self.committer.drain()

    async def close(self, reason: str) -> None:
        """Answer whoever still waits, and let go of everything, unless a thread hangs: then the lock stays as well."""
        self.upkeep.end()
        is_busy = self.committer.close(reason)
        for task in list(self._tasks):
            task.cancel()
        self.readers.close()
        if is_busy:
            return
        held = [held for held in self.streams.values() if held.known_log is not None]
        lock, self._lock = self._lock, None
        await self.thread.run(self._let_go, held, lock)
        self.thread.close()

    def _report(self, error: StreamError) -> None:
        """Log damage that was found, once. From any thread."""
        logger.error("%s", error)

    def _let_go(self, streams: list[Held], lock: int | None) -> None:
        for held in streams:
            held.consumers.let_go()
            if held.known_log is not None:
                held.known_log.release()
        if lock is not None:
            self.files.close(lock)


def _delete(log: Log, consumers: Consumers) -> None:
    """Delete a stream, and let its cursors go with it. In the thread."""
    log.delete()
    consumers.let_go()
