"""Requests that wait for something to happen: their slot is for others meanwhile, and they end with the stop or their client."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from outlast.http._app.extensions import PARKED, STOP, TICKET, extensions

if TYPE_CHECKING:
    from collections.abc import Generator

    from outlast import Stop
    from outlast.http._app.extensions import Receive, Scope


class Parkable(Protocol):
    """The part of a ticket of admission that waiting needs."""

    def park(self) -> None:
        """Let others have the slot. Raises `Refused` where as many are parked as may be."""

    def unpark(self) -> None:
        """Count as under way again."""


async def until_gone(receive: Receive) -> None:
    """Return when the client has left. What it still sends of a body is thrown away."""
    while (await receive())["type"] != "http.disconnect":
        pass


def park(scope: Scope) -> None:
    """Let others have the slot of the request, if it has one. Raises `Refused` where as many are parked as may be."""
    known = extensions(scope)
    ticket: Parkable | None = known.get(TICKET)
    if ticket is not None:
        ticket.park()
        known[PARKED] = True


def unpark(scope: Scope) -> None:
    """Count as under way again."""
    ticket: Parkable | None = extensions(scope).get(TICKET)
    if ticket is not None:
        ticket.unpark()


@contextlib.contextmanager
def fired(scope: Scope, stop: Stop | None) -> Generator[asyncio.Future[None]]:
    """Yield a future that is done when the stop is fired: `stop`, or without one that of the server. At once if it has been."""
    stop = stop or extensions(scope).get(STOP)
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def finish(_: Stop) -> None:
        future.set_result(None)

    forget = (lambda: None) if stop is None else stop.on_fire(finish)
    try:
        yield future
    finally:
        forget()


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until they have ended, also if this is cancelled meanwhile; what they raise is dropped."""
    for task in tasks:
        task.cancel()
    cancelled = False
    while running := {task for task in tasks if not task.done()}:
        try:
            await asyncio.wait(running)
        except asyncio.CancelledError:
            cancelled = True
    for task in tasks:
        if not task.cancelled():
            task.exception()
    if cancelled:
        raise asyncio.CancelledError
