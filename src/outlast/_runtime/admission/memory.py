"""The memory of this process: how much it uses, how much it may use, and how near the one is to the other."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import mmap
import re
from pathlib import Path
from typing import Final, TypeAlias

from outlast._core.once import Once
from outlast._runtime.admission.cgroup import Groups, text_of
from outlast._runtime.process.own_thread import OwnThread

SAMPLE_S: Final = 0.25
"""The time between two samples. One costs a third of a millisecond, and work that comes in between two announces its size."""
ANSWER_S: Final = 2.0
"""For how long a sample waits. /proc is memory of the kernel's, except where a container is shown another one's by a program."""
ROOM_EVERY_S: Final = 10.0
"""The time between two attempts to make room: what one costs is then a hundredth of the processor's time at most."""
UNKNOWN: Final = (None, None)
_MEM_TOTAL: Final = re.compile(r"^MemTotal:\s*(\d+)", re.MULTILINE)
_UNREADABLE: Final = (OSError, ValueError, LookupError)
"""Refused, not there, and there with something in it that is none of it."""

Reading: TypeAlias = tuple[float | None, float | None]

logger = logging.getLogger("outlast")


class MemoryMeter:
    """Reads how many bytes are used, and of how many.

    There are up to two limits, and the answer is the pair that is nearer to its own:

    - the memory control group's smallest limit on the way up, with what is used at that level (see `cgroup`);
    - `bytes_max`, or else the memory of the machine, with what this process alone holds (its resident set): what the others on
      a machine use is not made less by refusing work here.

    It fails towards "unknown": (None, None), or (used, None) when only the limit is. Each reason is logged once, and stands in
    `unknown` for as long as it holds. With `bytes_max` the answer is known even if the group's limit is not.

    Reading blocks, on some ten small files of the kernel's. `sample` has them read by a thread of the meter's own: a lock of
    the kernel's, or a /proc that a program answers for, must not hold the event loop, and the threads of asyncio may all be busy
    just when memory is short. One task at a time may call it.
    """

    def __init__(self, *, bytes_max: float | None = None, proc: Path = Path("/proc")) -> None:
        self.unknown = ""
        """The reason why the memory or its limit cannot be read now; empty while both can."""
        self._bytes_max = bytes_max
        self._proc = proc
        self._groups = Groups(proc)
        self._thread = OwnThread("outlast memory meter", waiting_max=1)
        self._said = Once()
        self._room_again_at = -math.inf

    async def sample(self) -> Reading:
        """Return (used, limit) in bytes, None for what is not known. It raises nothing but `CancelledError`."""
        try:
            call = self._thread.start(self.read)
        except RuntimeError as exc:
            return self._lost(f"{self._proc} cannot be read: {exc}")
        # Twice half of it: a process that is stopped in between finds the first half over when it goes on.
        for _ in range(2):
            await asyncio.wait([call], timeout=ANSWER_S / 2)
            if call.done():
                return call.result()
        call.cancel()
        return self._lost(f"{self._proc} cannot be read: no answer within {ANSWER_S:g} s")

    def read(self) -> Reading:
        """Do so at once, in the calling thread."""
        own = group = None
        reason = ""
        try:
            own = self._own()
        except _UNREADABLE as exc:
            reason = f"the memory of this process cannot be read: {exc}"
        try:
            group = self._groups.usage()
        except _UNREADABLE as exc:
            reason = f"the limit of the control group cannot be read: {exc}"
            if own is not None and self._bytes_max is None:
                own = own[0], None
        self._note(reason)
        if group is None or group.limit_bytes == math.inf:
            return own or UNKNOWN
        if own is not None and own[1] is not None and own[0] * group.limit_bytes > group.used_bytes * own[1]:
            return own
        return group.used_bytes, group.limit_bytes

    async def make_room(self, now: float) -> None:
        """Hand what nobody holds back to the system: to be called while memory is short, with `now` on a monotonic clock.

        Objects that hold each other are freed by the collector alone, which counts objects and not their bytes, and does nothing
        in a process that refuses all work; and malloc keeps what was freed. Without this, a process may stay shut long after a
        flood is over. Nothing happens if the last time was less than 10 s ago. The collector runs unless it is disabled, and
        holds all threads meanwhile: some 10 ms for each 100,000 objects.
        """
        if now < self._room_again_at:
            return
        self._room_again_at = now + ROOM_EVERY_S
        with contextlib.suppress(RuntimeError):
            await self._thread.run(_make_room)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.close()

    def _own(self) -> tuple[float, float | None]:
        # The kernel counts resident pages in batches: some hundred kilobytes late at most.
        fields = text_of(self._proc / "self/statm").split()
        return int(fields[1]) * mmap.PAGESIZE, self._bytes_max or _machine_bytes(self._proc / "meminfo")

    def _lost(self, reason: str) -> Reading:
        self._note(reason)
        return UNKNOWN

    def _note(self, reason: str) -> None:
        self.unknown = reason
        if reason and self._said.news(subject=reason):
            # Where there is no /proc nobody can do anything about it.
            level = logging.WARNING if self._proc.exists() else logging.INFO
            logger.log(level, "admission cannot tell how near the memory is to its limit, and refuses no work for it: %s", reason)


def _machine_bytes(meminfo: Path) -> int:
    """Return the memory of the machine, or of the part of it that a container is shown."""
    found = _MEM_TOTAL.search(text_of(meminfo))
    if found is None:
        raise ValueError(f"{meminfo} has no line MemTotal")
    return int(found[1]) * 1024


def _make_room() -> None:
    import ctypes  # noqa: PLC0415 - loaded by those alone who are short of memory

    if gc.isenabled():
        gc.collect()
    # malloc_trim(3) is glibc's alone: other libraries hand memory back by themselves, or never.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
