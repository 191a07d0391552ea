"""Long polls: a request waits for something to happen, for a while."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from outlast.http._app.parking import end, fired, park, unpark, until_gone

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from outlast import Stop
    from outlast.http._app.extensions import Receive, Scope

T = TypeVar("T")

WAIT_S: Final = 25.0
"""Below the 30 s after which many proxies and clients give up."""


class PollEnd(enum.Enum):
    """The reason why a long poll ended without what it waited for."""

    TIME = "time"
    """The seconds are over: answer 204, and the client asks again."""
    STOP = "stop"
    """The service stops: answer 204 or 503, and the client asks elsewhere."""
    CLIENT = "client"
    """The client has left: nobody reads the answer."""


@dataclass(frozen=True, slots=True)
class Polled(Generic[T]):
    """The outcome of a long poll: a value, or the reason why there is none."""

    value: T | None = None
    ended: PollEnd | None = None


async def long_poll(
    scope: Scope, receive: Receive, awaited: Awaitable[T], *, wait_s: float = WAIT_S, stop: Stop | None = None
) -> Polled[T]:
    """Wait for `awaited`, but no longer than `wait_s` seconds, until the service stops, or until the client has left.

        polled = await long_poll(request.scope, request.receive, orders.changed())
        if polled.ended:
            return Response(status_code=204)
        return JSONResponse(polled.value)

    While it waits, the slot of admission belongs to others. It is taken again, at once, when there is a value. `awaited` is
    cancelled, and has ended, when it returns without one or is cancelled itself; what `awaited` raises, this raises. `stop` is
    that of the server unless it is given. Read the body of the request before: what is left of it is thrown away. Raises
    `Refused` where as many are parked as may be.
    """
    waiting = asyncio.ensure_future(awaited)
    leaving = asyncio.ensure_future(until_gone(receive))
    try:
        park(scope)
        with fired(scope, stop) as stopped:
            any_of: set[asyncio.Future[Any]] = {waiting, leaving, stopped}
            done, _ = await asyncio.wait(any_of, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        if waiting in done:
            unpark(scope)
            return Polled(waiting.result())
        if leaving in done:
            return Polled(ended=PollEnd.CLIENT)
        return Polled(ended=PollEnd.STOP if stopped in done else PollEnd.TIME)
    finally:
        await end(waiting, leaving)
