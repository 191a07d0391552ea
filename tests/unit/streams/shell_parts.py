"""What the tests of the shell share: a log that keeps entries in a list, a thread that is none, a disk that a test takes down."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from typing import TYPE_CHECKING, Any

import outlast
from outlast.streams import Appended, Producer, StreamError
from outlast.streams._commit import Committer, Lane
from outlast.streams._model import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


FULL = OSError(errno.ENOSPC, "No space left on device")


def an_entry() -> Entry:
    return Entry((b"x",))


class ListLog:
    """A log in memory. `error` is what the next append, or sync, raises."""

    def __init__(self) -> None:
        self.frames: list[list[bytes]] = []
        self.synced = 0
        self.tail = 0
        self.error: BaseException | None = None
        self.answers: dict[bytes, StreamError] = {}
        """The errors of single entries, by their first record."""
        self.is_busy = False
        self.overlaps = 0

    @property
    def records(self) -> list[bytes]:
        return [record for frame in self.frames for record in frame]

    def append(self, entries: Sequence[Entry], now_us: int) -> list[Appended | StreamError]:
        del now_us
        self._raise()
        answers: list[Appended | StreamError] = []
        frame: list[bytes] = []
        for entry in entries:
            if entry.records[0] in self.answers:
                answers.append(self.answers[entry.records[0]])
                continue
            answers.append(Appended(self.tail, self.tail + len(entry.records)))
            self.tail += len(entry.records)
            frame += entry.records
        self.frames.append(frame)
        return answers

    def sync(self) -> None:
        self._raise()
        self.synced = self.tail

    def _raise(self) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise error


class SlowThread:
    """Makes calls one after another, in virtual time: each is made at the beginning of the time that it takes.

    As a thread does, it goes on with the next one before anybody is told of the last.
    """

    def __init__(self) -> None:
        self.takes_s = 0.001
        self.calls = 0
        self._queue: deque[tuple[Callable[[], Any], Callable[[Any, Exception | None], object]]] = deque()
        self._is_busy = False

    def call(self, function: Callable[[], Any], done: Callable[[Any, Exception | None], object]) -> None:
        self._queue.append((function, done))
        if not self._is_busy:
            self._make()

    def _make(self) -> None:
        function, done = self._queue.popleft()
        self._is_busy = True
        self.calls += 1
        result = function()
        asyncio.get_running_loop().call_later(self.takes_s, self._made, done, result)

    def _made(self, done: Callable[[Any, Exception | None], object], result: Any) -> None:
        self._is_busy = False
        if self._queue:
            self._make()
        done(result, None)


class Rig:
    """A committer with everything around it."""

    def __init__(self, **options: int) -> None:
        self.thread = SlowThread()
        self.is_well = True
        # Asks as often as a Disk does.
        policy = outlast.HealthPolicy(probe=outlast.Backoff(base_s=0.1, cap_s=0.5))
        self.disk = outlast.Dependency("disk a", probe=self.probe, policy=policy)
        self.committer = Committer(self.disk, self.thread, lambda: 1, **options)
        self.lanes: dict[str, Lane] = {}

    async def probe(self) -> None:
        if not self.is_well or self.committer.stuck_since is not None:
            raise outlast.OutlastError("no", self.disk.last)

    def lane(self, name: str = "orders", **options: Any) -> Lane:
        if name not in self.lanes:
            lane = self.lanes[name] = Lane(name, **options)
            lane.log = ListLog()
        return self.lanes[name]

    def log(self, name: str = "orders") -> ListLog:
        log = self.lane(name).log
        assert isinstance(log, ListLog)
        return log

    async def append(
        self,
        data: bytes,
        name: str = "orders",
        *,
        size: int = 100,
        deadline_s: float | None = None,
        producer: Producer | None = None,
    ) -> Appended:
        """Append as a volume does."""
        async with self.disk.use("append"):
            return await self.committer.append(self.lane(name), Entry((data,), None, producer, None), size, deadline_s)

    def start(self, data: bytes, name: str = "orders", **options: Any) -> asyncio.Task[Appended]:
        return asyncio.create_task(self.append(data, name, **options))


async def outcome(task: asyncio.Task[Appended]) -> Appended | BaseException:
    """Return what a task returns or raises."""
    return (await asyncio.gather(task, return_exceptions=True))[0]
