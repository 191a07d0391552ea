"""A disk as a dependency: it refuses before it is full, and takes again once a write has proved that it can."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, ParamSpec, Self, TypeVar

from outlast import Backoff, Classifiers, ConfigurationError, Dependency, Fault, HealthPolicy, Kind, Scope
from outlast.disk._calls import OneCall
from outlast.disk._faults import HANGS, disk_rule, error
from outlast.disk._probe import write_probe
from outlast.disk._reserve import Reserve, reserve_bytes
from outlast.disk._watch import BYTES_LOW, INODES_LOW, LOOK_S_MIN, Condition, Rules, Sample, Thresholds, Watch
from outlast.extend import LOCAL_FILES, NO_ROOM, Jitter, Levels, OwnThread, clean, size_text

if TYPE_CHECKING:
    import os
    import random
    from collections.abc import Callable

    from outlast.extend import FileSystem, Room

P = ParamSpec("P")
T = TypeVar("T")

ANSWER_S_MAX: Final = 2.0
"""The time that a disk has for statvfs, or for a write of one block and its sync. Past it nobody knows how it is."""
PROBE_APART_S: Final = 1.0
"""Proofs by writing are at least so far apart, also where statvfs shows room that a quota does not give."""
RESERVE_AGAIN_S: Final = 60.0
"""The wait before the next attempt to make the reserve, once one has failed."""
POLICY: Final = HealthPolicy(
    probe=Backoff(base_s=0.1, cap_s=0.5, jitter=Jitter.DECORRELATED), relapse=Backoff(base_s=0.5, cap_s=1.0, jitter=Jitter.EQUAL)
)
"""A probe while a disk is full is one statvfs, so it may come twice a second. With the longest hold after a relapse, 1 s, and a
proof by writing, writing goes on within 2 s of room."""
ROOM_BYTES_MAX: Final = 8 << 20
"""The most that is allocated to prove that there is room."""


@dataclass(frozen=True, slots=True)
class DiskRoom:
    """The room of a disk as it was seen last, at `read_at` on the clock of the event loop. None: it is not known."""

    available_bytes: int | None = None
    total_bytes: int | None = None
    available_inodes: int | None = None
    """None also where the disk does not count its files."""
    filling_bytes_s: float = 0.0
    """The speed at which room goes, over some seconds; 0 while it does not."""
    full_in_s: float | None = None
    """Seconds until nothing is available at that speed; None while it does not fill."""
    read_at: float | None = None


class Disk(Dependency):
    """The disk that a folder lies on, watched before it is full.

        disk = Disk("/var/lib/shop")

        async with disk.use("upload"):
            await thread.run(store, disk, data)       # store: disk.admit(len(data)), then write and sync

    `use` refuses at once, with `Unavailable`, while there is too little room, and while the disk does not answer; writing goes
    on by itself within 2 s of room, once a block was written and synced. Errors of writing are classified where they leave
    `use`: ENOSPC, EDQUOT, EFBIG are EXHAUSTED, EIO and EROFS end the use of this disk and of nothing else.

    `low` and `inodes_low` are the pairs of levels. `reserve_bytes` of room are kept in the file `.outlast-reserve` of the
    folder for what `cleaning` calls; None: nothing is kept. Nothing is read or written before `open`, or the first `admit`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        low: Thresholds | Levels | None = None,
        inodes_low: Thresholds | Levels | None = None,
        reserve_bytes: int | Literal["by size"] | None = "by size",
        files: FileSystem = LOCAL_FILES,
        policy: HealthPolicy | None = None,
        classifiers: Classifiers | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Raise `ConfigurationError` for values that cannot work."""
        if isinstance(reserve_bytes, int) and reserve_bytes < 1:
            msg = f"disk {path}: reserve_bytes must be at least 1, not {reserve_bytes}; None keeps no reserve"
            raise ConfigurationError(msg)
        self.path: Final = Path(path).absolute()
        rules = Classifiers([disk_rule]) if classifiers is None else classifiers.also(Classifiers([disk_rule]))
        super().__init__(
            name or f"disk {self.path}",
            classifiers=rules,
            policy=policy or POLICY,
            rng=rng,
            # The look and the proof bound themselves.
            probe_timeout_s=3 * ANSWER_S_MAX,
        )
        self.files: Final = files
        self.room = DiskRoom()
        """The room as it was seen last; replaced whole, so any thread may read it."""
        self.reserve: Final = Reserve(self.path, files)
        self.probes = 0
        """Proofs by writing that were begun."""
        self._reserve_bytes = reserve_bytes
        self._reserve_at = float("-inf")
        self._watch = Watch(Rules(low or BYTES_LOW, inodes_low or INODES_LOW))
        self._admitted = 0
        # Protects the three above: what a look has shown and what was admitted since change in one step. Nothing is called
        # while it is held.
        self._lock = threading.Lock()
        self._threads: Final = (OwnThread(f"{self.name}: room"), OwnThread(f"{self.name}: proof"))
        self._looking: OneCall[Room] = OneCall(self._threads[0], f"statvfs of {self.path}")
        self._proving: OneCall[None] = OneCall(self._threads[1], f"a write of one block to {self.path}")
        self._reserving: OneCall[None] = OneCall(self._threads[1], f"the reserve on {self.path}")
        self._probed_at = float("-inf")
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Watch it for the length of a block, as a service does for its own."""
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # For whoever writes.

    def admit(self, size: int) -> None:
        """Return if `size` more bytes may be written now, and count them; otherwise raise an `OSError` that carries the fault.

        Call it in the thread that writes, inside of `use`: near the limit it asks the disk, and may block for as long as a write.
        `SpaceLowError` is EXHAUSTED: there is too little room for everybody; or, where there is enough for smaller writes, for
        this one (`Scope.CALL`). A disk that does not answer is TRANSIENT. It promises no room: another process may take it.
        """
        if self._is_counted(size):
            return
        self._refuse_unknown()
        try:
            sample = Sample(_now(), self.files.room(self.path))
        except OSError as exc:
            sample = _unknown(exc)
        self._note(sample)
        self._refuse_unknown()
        with self._lock:
            watch = self._watch
            if watch.condition is Condition.WELL and size <= watch.left_bytes - self._admitted:
                self._admitted += size
                return
            assert watch.room is not None  # noqa: S101 - it has just been seen
            everybody = watch.condition is not Condition.WELL
            if not everybody and watch.room.available_bytes < watch.rules.space_levels(watch.room).leave:
                everybody, self._watch = True, watch.refused()
        raise error(self._low(watch, size if not everybody else None), str(self.path))

    def cleaning(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what frees room, and return what it returns; if even that finds no room, let go of the reserve and call it again.

        It blocks, in the thread that calls it, and is refused by nothing. What `function` does must bear repeating.
        """
        try:
            return function(*args, **kwargs)
        except OSError as exc:
            if exc.errno not in NO_ROOM or not self.reserve.release():
                raise
        return function(*args, **kwargs)

    # What a service calls.

    async def open(self) -> None:
        """Begin to watch. Returns once the disk has said how much room it has, or has not for 2 s; never fails because of it."""
        await super().open()
        if self._watching is None:
            await self._look()
            with contextlib.suppress(OSError):
                await self._reserving.outcome(self.reserve.find, ANSWER_S_MAX)
            self._watching = asyncio.create_task(self._run(), name=f"outlast watches {self.name}")

    async def close(self) -> None:
        """End the watch. A disk that hangs is not waited for."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait({watching})
        for call in (self._looking, self._proving, self._reserving):
            call.forget()
        for thread in self._threads:
            thread.close()
        await super().close()

    async def probe(self) -> None:
        """Ask how much room there is and, where it is enough, prove it by writing: at most once a second."""
        watch = await self._look()
        if watch.condition is not Condition.WELL:
            raise error(self._fault(watch), str(self.path))
        now = asyncio.get_running_loop().time()
        if not self._proving.is_stuck and now < self._probed_at + PROBE_APART_S:
            raise error(self.last or self._fault(watch), str(self.path))
        self._probed_at = now
        self.probes += 1
        room = min(ROOM_BYTES_MAX, self._band(watch))
        await self._proving.outcome(lambda: write_probe(self.path, self.files, room), ANSWER_S_MAX)

    # Inside.

    def _is_counted(self, size: int) -> bool:
        """Count a write that surely fits, without asking the disk."""
        with self._lock:
            watch = self._watch
            if watch.condition is not Condition.WELL or watch.read_at is None or watch.room is None:
                return False
            left = watch.left_bytes - self._admitted - size
            far = left > watch.rules.space_levels(watch.room).leave and _now() < watch.read_at + ANSWER_S_MAX
            near = left >= 0 and _now() < watch.read_at + LOOK_S_MIN
            if far or near:
                self._admitted += size
            return far or near

    def _refuse_unknown(self) -> None:
        watch = self._watch
        if watch.condition is Condition.UNKNOWN and watch.since is not None:
            raise error(self._fault(watch), str(self.path))

    async def _run(self) -> None:
        while True:
            watch = await self._look()
            await self._keep_reserve(watch)
            await asyncio.sleep(watch.next_look_s)

    async def _look(self) -> Watch:
        try:
            room = await self._looking.outcome(lambda: self.files.room(self.path), ANSWER_S_MAX)
        except (OSError, RuntimeError) as exc:
            # RuntimeError: the system has no thread to spare.
            return self._note(_unknown(exc))
        return self._note(Sample(_now(), room))

    def _note(self, sample: Sample) -> Watch:
        """Take a sample into account, and take the disk down if it is not well. From any thread."""
        with self._lock:
            watch = self._watch = self._watch.after(sample)
            self._admitted = 0
            room = watch.room
            if room is None or sample.room is None:
                self.room = DiskRoom(total_bytes=room.total_bytes if room else None, read_at=watch.read_at)
            else:
                filling = max(0.0, watch.filling_bytes_s)
                self.room = DiskRoom(
                    room.available_bytes, room.total_bytes, room.available_inodes, filling, watch.full_in_s, watch.read_at
                )
        if watch.condition is not Condition.WELL and self.passable:
            self.observe(self._fault(watch))
        return watch

    async def _keep_reserve(self, watch: Watch) -> None:
        """Make the reserve if there is room for it above the upper level, in the thread of the probe."""
        if self._reserve_bytes is None or watch.room is None or watch.condition is not Condition.WELL or not self.passable:
            return
        size = self._reserve_bytes if isinstance(self._reserve_bytes, int) else reserve_bytes(watch.room.total_bytes)
        leave = watch.rules.space_levels(watch.room).leave
        if self.reserve.held_bytes >= size or watch.room.available_bytes - size <= leave or _now() < self._reserve_at:
            return
        try:
            await self._reserving.outcome(lambda: self.reserve.make(size), ANSWER_S_MAX)
        except OSError:
            self._reserve_at = _now() + RESERVE_AGAIN_S

    def _band(self, watch: Watch) -> int:
        assert watch.room is not None  # noqa: S101 - the caller has seen it
        levels = watch.rules.space_levels(watch.room)
        return levels.leave - levels.enter

    def _fault(self, watch: Watch) -> Fault:
        """Return the fault of a disk that is not well."""
        if watch.condition is Condition.UNKNOWN:
            hint = "look at the mount and at the kernel's log; writing goes on by itself once the disk answers"
            return Fault(Kind.TRANSIENT, HANGS, f"its room is not known: {watch.reason}", self.name, hint=hint)
        return self._low(watch)

    def _low(self, watch: Watch, size: int | None = None) -> Fault:
        """Return the fault of too little room: for everybody, or for one write of `size` bytes."""
        room = watch.room
        assert room is not None  # noqa: S101 - the caller has seen it
        if watch.condition is Condition.LOW_INODES:
            levels = watch.rules.inode_levels(room)
            said = f"{room.available_inodes} inodes available of {room.total_inodes}"
            text = f"{said}; writing stops below {levels.enter} and goes on at {levels.leave}"
            return Fault(Kind.EXHAUSTED, Condition.LOW_INODES.value, text, self.name, hint="remove files")
        levels = watch.rules.space_levels(room)
        said = f"{size_text(room.available_bytes)} available of {size_text(room.total_bytes)}"
        text = f"{said}; writing stops below {size_text(levels.enter)} and goes on at {size_text(levels.leave)}"
        if size is None:
            return Fault(Kind.EXHAUSTED, Condition.LOW_SPACE.value, text, self.name, hint="make room; writing goes on by itself")
        text = f"{size_text(size)} do not fit: {text}"
        return Fault(Kind.EXHAUSTED, "low space", text, self.name, Scope.CALL, hint="make room, or write less at a time")


def _unknown(exc: Exception) -> Sample:
    return Sample(_now(), None, clean(str(exc)) or type(exc).__name__)


def _now() -> float:
    """Return the time on the running event loop's clock; in a thread the monotonic clock: the same, but in virtual time."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()
