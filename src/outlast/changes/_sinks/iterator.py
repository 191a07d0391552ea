"""A stream without a sink: its transactions are handed to whoever iterates, one at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from outlast import Stopping

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from outlast import Stop
    from outlast.changes._sinks.port import Delivery


class Handing:
    """The sink that hands over. What was given is durable when the next is asked for; until then `write` waits.

    Its position lives as long as the object: one iteration after the other goes on from there.
    """

    def __init__(self) -> None:
        self._durable_lsn = self._complete_lsn = 0
        self._offered: Delivery | None = None
        self._done: asyncio.Future[None] | None = None
        self._wanted: asyncio.Future[Delivery] | None = None

    # The stream's side.

    async def open(self, stream: str, epoch: int) -> int:
        """Go on after what was called durable."""
        del stream, epoch
        self._complete_lsn = self._durable_lsn
        return self._durable_lsn

    async def write(self, delivery: Delivery) -> None:
        """Offer one, and wait until the next is asked for. Cancelled, it is offered no more."""
        if delivery.commit_lsn >= self._durable_lsn:
            await self._hand_over(delivery)
        # Else it was called durable after its session had ended.
        if delivery.end_lsn is not None:
            self._complete_lsn = delivery.end_lsn

    async def flush(self) -> int:
        """Return the end of the last transaction that the user is done with."""
        return self._complete_lsn

    async def close(self) -> None:
        """Do nothing: no resource is held."""

    async def _hand_over(self, delivery: Delivery) -> None:
        self._offered = delivery
        self._done = asyncio.get_running_loop().create_future()
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(delivery)
        try:
            await self._done
        finally:
            self._offered = self._done = None

    # The iteration's side.

    def begin(self, after: int) -> None:
        """Begin an iteration, after the position that its user knows."""
        self._durable_lsn = max(self._durable_lsn, after)

    def next(self) -> asyncio.Future[Delivery]:
        """Return a future of what is offered, or will be."""
        self._wanted = asyncio.get_running_loop().create_future()
        if self._offered is not None:
            self._wanted.set_result(self._offered)
        return self._wanted

    def durable(self, delivery: Delivery) -> None:
        """Record that the user is done with it."""
        if delivery.end_lsn is not None:
            self._durable_lsn = max(self._durable_lsn, delivery.end_lsn)
        if self._offered is delivery and self._done is not None and not self._done.done():
            self._offered = None
            self._done.set_result(None)

    def abandon(self) -> None:
        """End the wait of `write`, since nobody will ask for the next: what is offered comes again."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(Stopping("the iteration ended"))


async def iterate(
    handing: Handing,
    run: Callable[[Stop], Coroutine[Any, Any, None]],
    over: Callable[[], Coroutine[Any, Any, Exception]],
    stop: Stop,
    after: int,
) -> AsyncGenerator[Delivery]:
    """Run the stream beside the iteration, and end it with it; `over` returns what ends both. See `Changes.stream`."""
    handing.begin(after)
    inner = stop.child()
    running = asyncio.create_task(run(inner), name="the stream of an iteration")
    ending = asyncio.create_task(over(), name="the end of a stream")
    try:
        while True:
            wanted = handing.next()
            waited: tuple[asyncio.Future[Any], ...] = (wanted, running, ending)
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not wanted.done():
                if ending.done():
                    raise ending.result()
                await running
                return
            delivery = wanted.result()
            yield delivery
            handing.durable(delivery)
    except Stopping:
        if not inner.requested:
            raise
    finally:
        inner.fire("the iteration ended")
        inner.detach()
        ending.cancel()
        handing.abandon()
        await _ended(running)


async def _ended(running: asyncio.Task[None]) -> None:
    """Wait for the stream to end, which confirms what is durable; cancelled, do not."""
    try:
        await asyncio.wait({running})
    finally:
        if not running.done():
            running.cancel()
        elif not running.cancelled():
            # It was raised before, or it is our own stop.
            running.exception()
