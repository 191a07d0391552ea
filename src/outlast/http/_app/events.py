"""Events as the field's event streams have them (server-sent events), and a feed of them for many viewers."""

from __future__ import annotations

import asyncio
import random
import re
from collections import deque
from dataclasses import dataclass
from typing import Final

HISTORY_BYTES_MAX: Final = 2**20
"""The bytes of events that a feed keeps."""
TAKEN_BYTES_MAX: Final = 64 * 1024
"""The bytes of events that a viewer takes at a time, unless a single event is larger: what it holds outside the feed."""
ID_CHARS_MAX: Final = 64
_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_NO_FIELD: Final = re.compile(r"[\r\n\0]")


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its data, of any number of lines, the name of its kind ("" is `message`), and an id."""

    data: str
    event: str = ""
    id: str = ""

    def __post_init__(self) -> None:
        for name in ("event", "id"):
            if _NO_FIELD.search(getattr(self, name)):
                raise ValueError(f"the {name} of an event has a line end or a NUL; it must be one line")

    def frame(self) -> bytes:
        """Return it as it is sent."""
        lines = [f"id: {self.id}\n" if self.id else "", f"event: {self.event}\n" if self.event else ""]
        lines += [f"data: {line}\n" for line in _LINE_END.split(self.data)]
        return f"{''.join(lines)}\n".encode()


class EventFeed:
    """Events for many viewers, each of whom gets every one once and in order, or is told that some are missing.

        feed = EventFeed()
        feed.publish('{"order": 7}', event="order")
        ...
        return EventStream(feed.watch(request.headers.get("last-event-id")))

    The newest `history_bytes_max` bytes are kept, once for all viewers: a viewer is a place in them, and publishing waits for
    nobody. A viewer that has fallen behind what is kept gets the event `resync`, and its stream ends: it has to read the state
    as a whole, and comes back after that event. So does one that comes with an id of another process, of the future, or none
    at all of ours; one that comes with the last id it has seen gets what it has missed. Ids hold for one feed of one process:
    they begin with its epoch. On the event loop's thread only.
    """

    def __init__(self, *, history_bytes_max: int = HISTORY_BYTES_MAX, rng: random.Random | None = None) -> None:
        if history_bytes_max < 1:
            raise ValueError(f"history_bytes_max must be at least 1, not {history_bytes_max}")
        self.history_bytes_max = history_bytes_max
        self.epoch = f"{(rng or random.Random()).getrandbits(48):012x}"
        self.newest = 0
        """The number of the newest event; 0: there was none yet."""
        self.viewers = 0
        self.cut = 0
        """The viewers that were told to read the state as a whole."""
        self._history: deque[bytes] = deque()
        self._bytes = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def publish(self, data: str, *, event: str = "") -> str:
        """Add an event, and wake those who wait for one; return its id. Raises ValueError for one larger than the history."""
        name = f"{self.epoch}-{self.newest + 1}"
        frame = Event(data, event, name).frame()
        if len(frame) > self.history_bytes_max:
            raise ValueError(f"an event of {len(frame)} bytes is larger than the history of its feed, {self.history_bytes_max}")
        self.newest += 1
        self._history.append(frame)
        self._bytes += len(frame)
        while self._bytes > self.history_bytes_max:
            self._bytes -= len(self._history.popleft())
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)
        return name

    def watch(self, last_event_id: str | None = None) -> EventViewer:
        """Return the events after `last_event_id`, to be iterated once; without one, those from now on."""
        return EventViewer(self, self.newest if not last_event_id else self._number(last_event_id))

    def resync(self) -> bytes:
        """Return the event that says: read the state as a whole, and go on after the newest event."""
        return Event("", "resync", f"{self.epoch}-{self.newest}").frame()

    def after(self, number: int) -> list[bytes] | None:
        """Return the next events after that number, in order; None if they are no longer, or were never, here."""
        first = self.newest - len(self._history)
        if not first <= number <= self.newest:
            return None
        frames: list[bytes] = []
        size = 0
        for place in range(number - first, len(self._history)):
            size += len(self._history[place])
            if frames and size > TAKEN_BYTES_MAX:
                break
            frames.append(self._history[place])
        return frames

    async def wait(self) -> None:
        """Return when there is another event."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    def _number(self, last_event_id: str) -> int:
        """Return the number in an id; -1 for one that is none of ours."""
        if len(last_event_id) > ID_CHARS_MAX:
            return -1
        epoch, _, number = last_event_id.rpartition("-")
        return int(number) if epoch == self.epoch and number.isascii() and number.isdigit() else -1


class EventViewer:
    """One viewer's place in a feed: an async iterator of frames, which `aclose` ends. It counts from its first step on."""

    def __init__(self, feed: EventFeed, number: int) -> None:
        self._feed = feed
        self._number = number
        self._begun = False
        self._ended = False

    def __aiter__(self) -> EventViewer:
        """Return itself."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next frames; wait for one if there is none."""
        feed = self._feed
        if not self._begun and not self._ended:
            self._begun = True
            feed.viewers += 1
        while not self._ended:
            frames = feed.after(self._number)
            if frames is None:
                feed.cut += 1
                self._end()
                return feed.resync()
            if frames:
                self._number += len(frames)
                return b"".join(frames)
            await feed.wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Leave the feed. Twice is the same as once."""
        self._end()

    def _end(self) -> None:
        if self._begun and not self._ended:
            self._feed.viewers -= 1
        self._ended = True
