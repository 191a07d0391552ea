"""The end of streams that have one: those that nobody has used for their TTL, and those whose instant has come.

A request that finds its stream over deletes it and answers 404. This finds the streams that nobody asks for. The time of a TTL is
the event loop's, which nobody sets, and begins again when the node does; an instant is compared with the wall clock as it was at
the start and what the event loop has counted since: so a clock that jumps while the process runs ends nothing. A stream is told
apart by its id: nothing that was known of one that is deleted is ever held against the next of its name.
"""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from outlast import Unavailable
from outlast.streams._errors import StreamError
from outlast.streams._node import protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast import Stop
    from outlast.streams._node.node import Node

EVERY_S: Final = 1.0
LOOKED_AT: Final = 1000
"""The streams that one turn looks at, or one in ten when that is more: all of them within 10 turns."""


@dataclass(frozen=True, slots=True)
class _Asleep:
    """A stream that nobody has asked for since the start, and its end on the clock of the event loop."""

    id: str
    ends_at: float


class Expiry:
    """Finds the streams of a node that are over, and deletes them. On the event loop's thread only."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._has_begun = False
        self._asleep: dict[str, _Asleep] = {}
        self._left: deque[str] = deque()
        """The names that are still to be looked at in this round."""

    async def turn(self, stop: Stop) -> None:
        """Look at the next streams, and delete those that are over; one whose disk refuses that is met again."""
        if not self._has_begun:
            self._begin()
        await self._node.served.forks.clean_up(self._node.now())
        mortal = self._node.served.mortal
        if not self._left:
            self._left.extend(mortal.keys() | self._asleep.keys())
        for _ in range(min(len(self._left), max(LOOKED_AT, (len(mortal) + len(self._asleep)) // 10))):
            if stop.requested:
                return
            # One that is damaged or gone meanwhile is left alone.
            with contextlib.suppress(StreamError, Unavailable):
                await self._look(self._left.popleft())

    def _begin(self) -> None:
        node = self._node
        self._has_begun = True
        for listed in node.streams.listed():
            left_s = left(listed.labels, node.wall())
            if left_s is not None:
                self._asleep[listed.name] = _Asleep(listed.id, node.now() + left_s)

    async def _look(self, name: str) -> None:
        node = self._node
        if (served := node.served.mortal.get(name)) is not None:
            if served.is_expired(node.now(), node.wall()):
                await node.delete(served)
        elif (asleep := self._asleep.get(name)) is not None and node.now() >= asleep.ends_at:
            await self._end(name, asleep)

    async def _end(self, name: str, asleep: _Asleep) -> None:
        """Delete a stream that nobody has asked for, unless somebody does so now, or its name is another's."""
        node = self._node
        try:
            served = await node.served.get(name, asleep.ends_at)
        except StreamError:
            del self._asleep[name]
            raise
        if served.id != asleep.id:
            served.touch(node.now())
        elif served.used_at <= asleep.ends_at and not served.readers:
            await node.delete(served)
        del self._asleep[name]


def left(labels: Mapping[str, str], wall_s: float) -> float | None:
    """Return the seconds until a stream with these labels ends that nobody uses; None for one that has no end."""
    ttl = protocol.parse_number(labels.get("ttl", "").encode())
    instant = protocol.parse_instant(labels.get("expires-at", ""))
    ends = [] if ttl is None else [float(ttl)]
    if instant is not None:
        ends.append(instant - wall_s)
    return min(ends, default=None)
