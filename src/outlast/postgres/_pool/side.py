"""The places beside the pool: for dedicated connections while they are dialled, and for statements that were given up on them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from outlast.extend import Line
from outlast.postgres._pool.places import GRACE_S, Places
from outlast.postgres._pool.pool import UNENDED, no_connection

if TYPE_CHECKING:
    from collections.abc import Callable

PLACES: Final = 2
"""With the probe, which has a place of its own, at most three sessions beside the pool that are not in a caller's hands."""


class Side:
    """At most `PLACES` at a time, first come, first served. All methods belong to the event loop's thread."""

    def __init__(self, name: str) -> None:
        """`name` is the server's."""
        self.loop = asyncio.get_running_loop()
        self._name = name
        self._line: Line[object] = Line(self.leave)
        self._places: Places[object] = Places()

    async def enter(self, timeout_s: float) -> object:
        """Return a place, which is to be given back by `leave`. Raises `NoConnectionError` after `timeout_s` seconds."""
        if not self._line and self._places.taken < PLACES:
            return self._taken()
        if self._places.is_stuck(PLACES, self.loop.time()):
            raise self._not_ended()
        future = self._line.join()
        return await self._line.wait(
            future, timeout_s, lambda: self._error("pool timeout", f"no connection could be dialled within {timeout_s:g} s")
        )

    def leave(self, place: object) -> None:
        """Free a place."""
        self._places.dialling.discard(place)
        self._serve()

    def give_up(self, token: object) -> None:
        """Record a statement that was given up; it takes a place whether there is one or not."""
        self._places.given_up[token] = self.loop.time()
        if len(self._places.given_up) >= PLACES:
            self.loop.call_later(GRACE_S, self._refuse_if_stuck)

    def ended(self, token: object) -> None:
        """Free its place: its session has ended on the server."""
        self._places.given_up.pop(token, None)
        self._serve()

    def refuse(self, refusal: Callable[[], Exception]) -> None:
        """Refuse all who wait."""
        self._line.refuse(refusal)

    def _taken(self) -> object:
        place = object()
        self._places.dialling.add(place)
        return place

    def _serve(self) -> None:
        while self._line and self._places.taken < PLACES:
            place = self._taken()
            if not self._line.give(place):
                self._places.dialling.discard(place)

    def _refuse_if_stuck(self) -> None:
        if self._places.is_stuck(PLACES, self.loop.time()):
            self._line.refuse(self._not_ended)

    def _not_ended(self) -> Exception:
        return self._error("not ended", "no connection is dialled")

    def _error(self, code: str, reason: str) -> Exception:
        unended = self._places.unended(self.loop.time())
        return no_connection(self._name, code, f"{reason}: {unended}" if unended else reason, UNENDED)
