"""The work on a volume that nobody asks for: recover what was not used yet, remove what is left of deleted streams, let go of
what is old, note that the store is in use.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from outlast import ConfigurationError, Kind, Unavailable, progress
from outlast.extend import Once, size_text
from outlast.streams import _retention
from outlast.streams._errors import StreamError
from outlast.streams._log import remove

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from outlast import Stop
    from outlast.streams._held import Held
    from outlast.streams._retention import Drop
    from outlast.streams._volume import Volume

EVERY_S: Final = 1.0
NOTED_EVERY_S: Final = 60.0
RECOVERING_S: Final = 1.0
"""Seconds of recovering at a time: what makes room has its turn in between."""
NO_ROOM_BYTES: Final = 8 << 20
"""The room to make at least: a disk that refuses although it shows enough, as behind a quota, does not say what is missing."""
ROLL_SHARE: Final = 0.25
"""Of the age at which records may go: a segment that has been written to for so long is closed, so that they go soon after it."""
ROLLED_MAX: Final = 100
"""Segments that are closed so at a time: each makes a file."""
UNKNOWN_MAX: Final = 5
"""Lines about folders of which no stream is known; the others are counted in one more."""
logger = logging.getLogger("outlast.streams")


class Upkeep:
    """Does it for one volume: once a second, and as soon as the disk is low. What fails is tried again."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.dropped_bytes: dict[str, int] = {}
        """Bytes that retention has let go of, by its first reason."""
        self.dropped_segments = 0
        self._left: deque[Held] = deque()
        self._once = Once()
        self._gone: deque[Path] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._noted_at = float("-inf")

    def begin(self) -> None:
        """Take on what the volume held when it was opened."""
        volume = self.volume
        self._tell_unknown()
        self._left = deque(volume.streams.values())
        self._gone = deque(volume.found.gone)
        self._noted_at = float("-inf")
        self._unsubscribe = volume.disk.subscribe(lambda _state, _fault: self._wake())

    def end(self) -> None:
        """Let go of it."""
        self._unsubscribe()

    async def turn(self, stop: Stop) -> None:
        """Do what is due, and wait for the next turn: a second, or until the disk changes. Raises `Stopping`."""
        await self._remove_gone()
        await self._note()
        await self.recover()
        await self.retain()
        progress()
        loop = asyncio.get_running_loop()
        waiting = self._waiting = loop.create_future()
        timer = loop.call_later(0 if self._left and self.volume.disk.passable else EVERY_S, self._wake)
        try:
            await stop.until(waiting)
        finally:
            timer.cancel()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    # After the start.

    def _tell_unknown(self) -> None:
        unknown = self.volume.found.unknown
        for path, reason in unknown[:UNKNOWN_MAX]:
            text = "streams: no stream is known of the folder %s: %s. It is left as it is; run: outlast streams verify"
            logger.warning(text, path, reason)
        if len(unknown) > UNKNOWN_MAX:
            logger.warning("streams: nor of %d more folders in %s", len(unknown) - UNKNOWN_MAX, self.volume.folder)

    async def _remove_gone(self) -> None:
        """Remove what is left of streams that were deleted. What the disk does not let go of is asked for at the next start."""
        while self._gone:
            path = self._gone.popleft()
            with contextlib.suppress(OSError, Unavailable):
                await self.volume.readers.run(partial(remove, path, self.volume.files))

    async def recover(self) -> None:
        """Recover streams that nobody has used yet, for a while."""
        loop, left = asyncio.get_running_loop(), self._left
        until = loop.time() + RECOVERING_S
        while left and loop.time() < until:
            held = left[0]
            try:
                if held.known_log is None and not held.gone:
                    await self.volume.recovered(held)
            except (StreamError, ConfigurationError) as error:
                logger.error("stream %r cannot be opened, and is left as it is: %s", held.name, error)  # noqa: TRY400 - it says all
            except Unavailable:
                # The disk has its own lines. Later, or when somebody wants it.
                return
            left.popleft()

    async def _note(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._noted_at + NOTED_EVERY_S:
            self._noted_at = now
            await self._quietly(self.volume.note())

    # Retention.

    async def retain(self) -> None:
        """Let go of the segments that the streams may lose now."""
        volume = self.volume
        await self._roll_old()
        now_s = volume.clock.age_now_us() / 1e6
        missing = self._missing_bytes()
        volume.freed = volume.freed.looked(now_s, missing)
        drops = _retention.plan(self._retained(), now_s, missing_bytes=missing, freed=volume.freed)
        for drop in drops:
            held = volume.streams.get(drop.stream)
            if held is not None and (log := held.known_log) is not None and not held.gone:
                await self._quietly(self._drop(held, partial(log.drop, drop.segments), drop))

    async def _roll_old(self) -> None:
        """Let streams whose records go by age begin a new segment now and then: the one that is written to is never let go of."""
        clock = self.volume.clock
        now_us, rolled = clock.age_now_us(), 0
        for held in list(self.volume.streams.values()):
            age_s = held.options.retention.age_s
            if age_s is None or held.gone or (log := held.known_log) is None or rolled >= ROLLED_MAX:
                continue
            view = log.view
            last = view.segments[-1]
            if view.tail > last.first and not view.closed and now_us - last.newest_us > age_s * 1e6 * ROLL_SHARE:
                rolled += 1
                await self._quietly(self.volume.control(held, partial(log.roll, clock.now_us())))

    def _retained(self) -> Iterator[_retention.Held]:
        for held in self.volume.streams.values():
            retention = held.options.retention
            if retention.is_any and (log := held.known_log) is not None:
                view = log.view
                closed = [_retention.ClosedSegment(each.end, each.newest_us / 1e6) for each in view.segments[:-1]]
                if closed:
                    yield _retention.Held(held.name, retention, closed, view.size_bytes)

    def _missing_bytes(self) -> int | None:
        """Return the bytes that the disk lacks before it takes appends again; None: it lacks none."""
        disk = self.volume.disk
        fault = disk.fault
        if disk.passable or fault is None or fault.kind is not Kind.EXHAUSTED:
            return None
        watch = disk.watch
        return max(NO_ROOM_BYTES, watch.band_bytes - watch.left_bytes)

    async def _drop(self, held: Held, drop: Callable[[], None], planned: Drop) -> None:
        volume = self.volume
        await volume.control(held, drop)
        now_s = volume.clock.age_now_us() / 1e6
        volume.freed = volume.freed.deleted(now_s, planned.size_bytes)
        self.dropped_segments += planned.segments
        reason = planned.reasons[0].value
        self.dropped_bytes[reason] = self.dropped_bytes.get(reason, 0) + planned.size_bytes
        # Once an outage for a disk that is low: what an operator would want to know is that records go because of it.
        is_low = _retention.Reason.LOW in planned.reasons
        level = logging.WARNING if is_low and self._once.news(volume.disk.health.opened_at, subject="low") else logging.DEBUG
        text = "stream %r: let go of its %d oldest segments, %s, by retention (%s); the oldest position is now %d"
        reasons = ", ".join(each.value for each in planned.reasons)
        logger.log(level, text, held.name, planned.segments, size_text(planned.size_bytes), reasons, held.oldest)

    async def _quietly(self, work: Awaitable[None]) -> None:
        """Do it, or leave it for the next time: a disk has its own lines."""
        try:
            await work
        except (Unavailable, StreamError) as error:
            if self._once.news(str(error), subject="left"):
                logger.debug("streams: %s", error)
