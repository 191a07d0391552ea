"""The memory that a client has of a stream that it writes to: its producer, its content type, and the last refusal."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from outlast import Kind, Unavailable
from outlast.extend import FLOOR_SPREAD

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from outlast.streams._client.decisions.sequences import Sequences

WRITERS_MAX: Final = 10_000
"""Streams that are remembered. A forgotten one is written to by a new producer, as by a new client."""
REFUSED_S_MAX: Final = 30.0
"""The longest that a refusal is answered from memory."""


@dataclass(slots=True)
class Writer:
    """One stream as this client writes to it, by whatever handle."""

    sequences: Sequences
    # Held by the append under way: a sequence is given out when the one before it is settled.
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    content_type: str = ""
    refusal: Unavailable | None = None
    refused_until: float = 0.0

    def remember(self, error: BaseException, now: float, rng: random.Random) -> None:
        """Keep the refusal of a full disk: until it is worth coming back, appends are refused here, with the same cause.

        The time is spread, so that the clients of a server do not come back together.
        """
        if isinstance(error, Unavailable) and error.fault.kind is Kind.EXHAUSTED:
            self.refusal = error
            self.refused_until = now + min(error.retry_after_s, REFUSED_S_MAX) * (1 + FLOOR_SPREAD * rng.random())

    def refused(self, now: float) -> Unavailable | None:
        """Return the refusal that still holds, as it is now, or None."""
        last = self.refusal
        if last is None or now >= self.refused_until:
            self.refusal = None
            return None
        left_s = self.refused_until - now
        error = Unavailable(last.dependency, last.fault, last.since_s + last.retry_after_s - left_s, left_s)
        error.__cause__ = last.__cause__
        return error


class Writers:
    """The streams that a client has written to, the most recent last."""

    def __init__(self, new_sequences: Callable[[], Sequences], limit: int = WRITERS_MAX) -> None:
        """At `limit` the one that was idle for longest is forgotten."""
        self._new = new_sequences
        self._limit = limit
        self._by_name: dict[str, Writer] = {}

    def get(self, name: str) -> Writer:
        """Return that of a stream."""
        writer = self._by_name.pop(name, None)
        if writer is None:
            writer = Writer(self._new())
            self._forget()
        self._by_name[name] = writer
        return writer

    def peek(self, name: str) -> Writer | None:
        """Return that of a stream, if it is remembered."""
        return self._by_name.get(name)

    def _forget(self) -> None:
        if len(self._by_name) < self._limit:
            return
        idle = next((name for name, writer in self._by_name.items() if not writer.lock.locked()), None)
        if idle is not None:
            del self._by_name[idle]
