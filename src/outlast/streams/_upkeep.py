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

from outlast import ConfigurationError, Kind, Unavailable
from outlast.extend import Once, size_text
from outlast.streams import _retention
from outlast.streams._errors import StreamError
from outlast.streams._log import remove

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from outlast.streams._held import Held
    from outlast.streams._retention import Drop
    from outlast.streams._volume import Volume

EVERY_S: Final = 1.0
NOTED_EVERY_S: Final = 60.0
RECOVERING_S: Final = 1.0
"""Seconds of recovering at a time: what makes room has its turn in between."""
NO_ROOM_BYTES: Final = 8 << 20
"""The room to make at least: a disk that refuses although it shows enough, as behind a quota, does not say how much is missing."""
UNKNOWN_MAX: Final = 5
"""Lines about folders of which no stream is known; the others are counted in one more."""
logger = logging.getLogger("outlast.streams")


class Upkeep:
    """The task that does it for one volume: once a second, and as soon as the disk is low. What fails is tried again."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.dropped_bytes: dict[str, int] = {}
        """Bytes that retention has let go of, by its first reason."""
        self._left: deque[Held] = deque()
        self._once = Once()
        self._low = asyncio.Event()
        self._noted_at = float("-inf")

    async def run(self) -> None:
        """Work until cancelled."""
        volume = self.volume
        self._tell_unknown()
        self._left.extend(volume.streams.values())
        unsubscribe = volume.disk.subscribe(lambda _state, _fault: self._low.set())
        try:
            for path in volume.found.gone:
                # A disk that does not let go of it now is asked again at the next start.
                with contextlib.suppress(OSError, Unavailable):
                    await volume.readers.run(partial(remove, path, volume.files))
            while True:
                self._low.clear()
                await self._note()
                await self.recover()
                await self.retain()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0 if self._left else EVERY_S):
                        await self._low.wait()
        finally:
            unsubscribe()

    # After the start.

    def _tell_unknown(self) -> None:
        unknown = self.volume.found.unknown
        for path, reason in unknown[:UNKNOWN_MAX]:
            text = "streams: no stream is known of the folder %s: %s. It is left as it is; run: outlast streams verify"
            logger.warning(text, path, reason)
        if len(unknown) > UNKNOWN_MAX:
            logger.warning("streams: nor of %d more folders in %s", len(unknown) - UNKNOWN_MAX, self.volume.folder)

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
        now_s = volume.clock.age_now_us() / 1e6
        missing = self._missing_bytes()
        volume.freed = volume.freed.looked(now_s, missing)
        drops = _retention.plan(self._retained(), now_s, missing_bytes=missing, freed=volume.freed)
        for drop in drops:
            held = volume.streams.get(drop.stream)
            if held is not None and (log := held.known_log) is not None and not held.gone:
                await self._quietly(self._drop(held, partial(log.drop, drop.segments), drop))

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
            if self._once.news(type(error), subject=str(error)):
                logger.debug("streams: %s", error)
