"""The memory that a client has of a stream that it writes to: its producer, its content type, and the last refusal."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from outlast import Fault, Kind, Scope, Unavailable
from outlast.extend import FLOOR_SPREAD
from outlast.streams._errors import ExpiredError

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator, Callable

    from outlast.streams._client.decisions.sequences import Sequences

WRITERS_MAX: Final = 10_000
"""Streams that are remembered. A forgotten one is written to by a new producer, as by a new client."""
WAITING_MAX: Final = 10_000
"""Appends to one stream that wait for their turn."""
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
    waiting: int = 0

    @contextlib.asynccontextmanager
    async def turn(self, stream: str, server: str, deadline_at: float) -> AsyncGenerator[None]:
        """Wait for the turn of an append, and hold it for the block.

        Raises `ExpiredError` when the deadline passes before it comes, and `Unavailable` when too many wait already.
        """
        if self.waiting >= WAITING_MAX:
            reason = f"{self.waiting} appends of this client to stream {stream!r} wait already: send them together, or fewer"
            raise Unavailable(server, Fault(Kind.OVERLOADED, "backlog", reason, server, Scope.CALL), 0.0, 1.0)
        self.waiting += 1
        try:
            async with asyncio.timeout_at(deadline_at):
                await self.lock.acquire()
        except TimeoutError:
            text = f"{self.waiting} appends of this client came before it, and its deadline has passed; it was not sent"
            raise ExpiredError(stream, text) from None
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            self.lock.release()

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

    def _forget(self) -> None:
        if len(self._by_name) < self._limit:
            return
        # Those under way stay: they are few beside the limit.
        for name in [name for name, writer in self._by_name.items() if not writer.lock.locked()][:1]:
            del self._by_name[name]
