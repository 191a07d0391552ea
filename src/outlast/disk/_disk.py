"""A disk as a dependency: it refuses before it is full, and takes again once a write has proved that it can."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, ParamSpec, Self, TypeVar

from outlast import Backoff, Classifiers, ConfigurationError, Dependency, Fault, HealthPolicy, Kind
from outlast.disk import _faults as faults
from outlast.disk._calls import OneCall, StuckError
from outlast.disk._consumers import ENTRIES_MAX, SECONDS_MAX, Budget, consumers
from outlast.disk._probe import write_probe
from outlast.disk._reserve import Reserve, reserve_bytes
from outlast.disk._shown import ShownDisk
from outlast.disk._watch import BYTES_LOW, INODES_LOW, Allowance, Condition, Rules, Sample, Thresholds, Watch
from outlast.extend import LOCAL_FILES, NO_ROOM, Jitter, Levels, OwnThread, clean

if TYPE_CHECKING:
    import os
    import random
    from collections.abc import Callable

    from outlast import Service
    from outlast.extend import FileSystem, Room

P = ParamSpec("P")
T = TypeVar("T")

ANSWER_S_MAX: Final = 2.0
"""The time that a disk has for statvfs, or for a write of one block and its sync. Past it nobody knows how it is."""
PROBE_APART_S: Final = 1.0
"""Proofs by writing begin at least so far apart, also where statvfs shows room that a quota does not give."""
RESERVE_AGAIN_S: Final = 60.0
"""The wait before the next attempt to make the reserve, once one has failed."""
PROOF_BYTES_MAX: Final = 8 << 20
"""The most that is allocated to prove that there is room; half of what lies between the levels where that is less. So a proof at
the upper level takes no other process below the lower one, and where a quota hides the levels it outlasts a swing of 1 MiB."""
POLICY: Final = HealthPolicy(
    probe=Backoff(base_s=0.1, cap_s=0.5, jitter=Jitter.DECORRELATED), relapse=Backoff(base_s=0.5, cap_s=1.0, jitter=Jitter.EQUAL)
)
"""A probe of a disk that is low is one statvfs, so it may come twice a second; what writes comes once a second at most, and a
hold after a relapse lasts a second at most. So writing goes on within 2 s of room."""


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
            await thread.run(store, data)     # in the thread: disk.admit(len(data)), then write and sync

    `use` refuses at once, with `Unavailable`, while there is too little room, and while the disk does not answer; writing goes
    on by itself within 2 s of room, once a block was written and synced. Errors of writing are classified where they leave
    `use`: ENOSPC, EDQUOT, EFBIG are EXHAUSTED; EIO and EROFS end the use of this disk, and of nothing else, until `try_again`.

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
        super().__init__(
            name or f"disk {self.path}",
            classifiers=(classifiers or Classifiers()).also(Classifiers([self._rule])),
            policy=policy or POLICY,
            rng=rng,
            # A look and a proof bound themselves.
            probe_timeout_s=3 * ANSWER_S_MAX,
        )
        self.files: Final = files
        self.reserve: Final = Reserve(self.path, files)
        self.shown: Final = ShownDisk(self)
        """Its figures, health and act, for `service.show`."""
        self.watch = Watch(Rules(low or BYTES_LOW, inodes_low or INODES_LOW))
        self.room = DiskRoom()
        """The room as it was seen last. Both are replaced whole, so any thread may read them."""
        self.probes = 0
        """Proofs by writing that were begun."""
        self._allowance: Allowance | None = None
        self._admitted = 0
        """Bytes that were let in since the last look."""
        # Protects the last look and what was admitted since, which change in one step. Nothing is called while it is held.
        self._lock = threading.Lock()
        self._clock: Callable[[], float] = time.monotonic
        """That of the event loop which asks, also for threads."""
        self._reserve_bytes = reserve_bytes
        self._reserve_at = float("-inf")
        self._probed_at = float("-inf")
        self._threads: Final = (OwnThread(f"{self.name}: room"), OwnThread(f"{self.name}: proof"))
        self._looking: OneCall[Room] = OneCall(self._threads[0], f"statvfs of {self.path}")
        self._proving: OneCall[None] = OneCall(self._threads[1], f"a write of one block to {self.path}")
        self._reserving: OneCall[None] = OneCall(self._threads[1], f"the reserve on {self.path}")
        self._searching: OneCall[str] = OneCall(self._threads[1], f"a search in {self.path}")
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Watch it for the length of a block, as a service does for its own."""
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def attach(self, service: Service) -> None:
        """Watch it while `service` runs, and show it there."""
        service.needs(self)
        service.show(self.shown)

    # For whoever writes, and whoever cleans up.

    def admit(self, size: int) -> None:
        """Return if `size` more bytes may be written now, and count them; otherwise raise an `OSError` that carries the fault.

        Call it in the thread that writes, inside of `use`: near the limit it asks the disk, and may block for as long as a write.
        `SpaceLowError` is EXHAUSTED: there is too little room for everybody or, where smaller writes fit, for this one
        (`Scope.CALL`). A disk that does not answer is TRANSIENT. It promises no room: another process may take it.
        """
        if self._is_counted(size):
            return
        if self.is_lost and self.fault is not None:
            raise faults.error(self.fault, str(self.path))
        if self._watching is None or self.watch.condition is not Condition.UNKNOWN:
            # Who is watched, and is not known, is asked by the watch alone: a second thread would be stuck as well.
            self._look_in_thread()
        fault = self._count(size)
        if fault is not None:
            raise faults.error(fault, str(self.path))

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

    def stuck(self, what: str) -> None:
        """Record that a call on this disk has not returned: everyone is refused until a probe has. From any thread.

        `what` is for people: "a write of segment 12 has not returned for 2 s".
        """
        self.observe(faults.hangs(what, self.name))

    # What a service calls.

    async def open(self) -> None:
        """Begin to watch. Returns once the disk has said how much room it has, or has not for 2 s; never fails because of it."""
        await super().open()
        if self._watching is None:
            await self._look()
            if self._reserve_bytes is not None and self.watch.condition is not Condition.UNKNOWN:
                with contextlib.suppress(OSError):
                    await self._reserving.outcome(self.reserve.find, ANSWER_S_MAX)
            self._watching = asyncio.create_task(self._run(), name=f"outlast watches {self.name}")

    async def close(self) -> None:
        """End the watch. A disk that hangs is not waited for."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait({watching})
        for call in (self._looking, self._proving, self._reserving, self._searching):
            call.forget()
        for thread in self._threads:
            thread.close()
        await super().close()
        self._clock = time.monotonic

    async def probe(self) -> None:
        """Ask how much room there is and, where it is enough, prove it by writing: at most once a second."""
        watch = await self._look()
        if watch.condition is not Condition.WELL:
            raise faults.error(self._same(faults.of(watch, self.name)), str(self.path))
        now = self._clock()
        last = self.last
        if now < self._probed_at + PROBE_APART_S and last is not None and not last.is_end:
            raise faults.error(last, str(self.path))
        if not self._proving.is_begun:
            self._probed_at = now
            self.probes += 1
        proof = partial(write_probe, self.path, self.files, min(PROOF_BYTES_MAX, watch.band_bytes // 2))
        await self._proving.outcome(proof, ANSWER_S_MAX)

    async def circumstances(self, fault: Fault) -> str:
        """Return what takes the room of a full disk."""
        if fault.kind is not Kind.EXHAUSTED:
            return ""
        with contextlib.suppress(OSError):
            return await self._searching.outcome(self._search, ANSWER_S_MAX)
        return ""

    # Inside.

    def _rule(self, exc: BaseException, phase: str) -> Fault | None:
        fault = faults.disk_rule(exc, phase)
        if fault is None or str(self.path) in fault.reason:
            return fault
        # What fails on a descriptor does not say where.
        return replace(fault, reason=f"{fault.reason} on {self.path}")

    def _search(self) -> str:
        # The room of now: a neighbour may have taken the rest since the last look.
        room = self.files.room(self.path)
        until = time.monotonic() + SECONDS_MAX
        budget = Budget(ENTRIES_MAX, lambda: time.monotonic() > until)
        return consumers(str(self.path), room.total_bytes - room.available_bytes, budget)

    def _is_counted(self, size: int) -> bool:
        """Count a write that surely fits, without asking the disk."""
        now = self._clock()
        with self._lock:
            fits = self._allowance is not None and self._allowance.covers(self._admitted + size, now)
            if fits:
                self._admitted += size
            return fits

    def _count(self, size: int) -> Fault | None:
        """Count a write that fits by the last look; return the fault if it does not."""
        with self._lock:
            watch = self.watch
            if watch.condition is not Condition.WELL:
                return self._same(faults.of(watch, self.name))
            if size <= watch.left_bytes - self._admitted:
                self._admitted += size
                return None
            if watch.left_bytes >= watch.band_bytes:
                return faults.too_large(watch, size, self.name)
            self.watch, self._allowance = watch.full(self._clock()), None
            watch = self.watch
            return faults.of(watch, self.name)

    def _same(self, fault: Fault) -> Fault:
        """Return it under the code of the first cause where that is want of room as well: the same outage, not another fault."""
        first = self.fault
        is_same = fault.kind is Kind.EXHAUSTED and first is not None and first.kind is Kind.EXHAUSTED
        return replace(fault, code=first.code) if is_same and first is not None else fault

    async def _run(self) -> None:
        while True:
            watch = await self._look()
            if watch.condition is not Condition.WELL and self.passable:
                self.observe(faults.of(watch, self.name))
            await self._keep_reserve(watch)
            await asyncio.sleep(watch.next_look_s)

    async def _look(self) -> Watch:
        self._clock = asyncio.get_running_loop().time
        try:
            room = await self._looking.outcome(partial(self.files.room, self.path), ANSWER_S_MAX)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the room is not known
            return self._note(_unknown(self._clock(), exc))
        return self._note(Sample(self._clock(), room))

    def _look_in_thread(self) -> None:
        try:
            room = self.files.room(self.path)
        except OSError as exc:
            self._note(_unknown(self._clock(), exc))
        else:
            self._note(Sample(self._clock(), room))

    def _note(self, sample: Sample) -> Watch:
        """Take a sample into account. From any thread."""
        with self._lock:
            watch = self.watch = self.watch.after(sample)
            self._allowance, self._admitted = watch.allowance(), 0
            self.room = _room(watch)
        return watch

    async def _keep_reserve(self, watch: Watch) -> None:
        """Make the reserve if there is room for it above the upper level."""
        if self._reserve_bytes is None or watch.room is None or watch.condition is not Condition.WELL or not self.passable:
            return
        size = self._reserve_bytes if isinstance(self._reserve_bytes, int) else reserve_bytes(watch.room.total_bytes)
        has_room = watch.left_bytes - size > watch.band_bytes
        if self.reserve.held_bytes >= size or not has_room or self._clock() < self._reserve_at:
            return
        try:
            await self._reserving.outcome(partial(self.reserve.make, size), ANSWER_S_MAX)
        except OSError:
            # There is none, which the figures show; the disk itself is judged by what is written to it.
            self._reserve_at = self._clock() + RESERVE_AGAIN_S


def _unknown(now: float, exc: Exception) -> Sample:
    return Sample(now, None, clean(str(exc)) or type(exc).__name__, isinstance(exc, StuckError))


def _room(watch: Watch) -> DiskRoom:
    room = watch.room
    if room is None:
        return DiskRoom()
    if watch.condition is Condition.UNKNOWN:
        return DiskRoom(total_bytes=room.total_bytes, read_at=watch.read_at)
    filling = max(0.0, watch.filling_bytes_s)
    return DiskRoom(room.available_bytes, room.total_bytes, room.available_inodes, filling, watch.full_in_s, watch.read_at)
