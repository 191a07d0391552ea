"""Waiting for what a request asks for, as long as its client is there and the service goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from outlast import Stopping
from outlast.http import PollEnd, long_poll
from outlast.streams._node.answers import RefusalError, refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from outlast.streams._node.beside.asked import Asked
    from outlast.streams._node.served import Served

T = TypeVar("T")

SPARE_S: Final = 60.0
"""The time that is left for what comes after the waiting, such as a slow disk. Past it the answer is given up."""


async def waited(asked: Asked, awaited: Awaitable[T], wait_s: float, served: Served | None = None) -> T | None:
    """Return what `awaited` returns, which itself waits for `wait_s` seconds; None when its client has left meanwhile.

    Without waiting nobody looks after the client. Who waits for records of `served` is one of its readers. Raises `Stopping`
    when the service stops.
    """
    if not wait_s:
        return await awaited
    request = asked.request
    polling = long_poll(request.scope, request.receive, awaited, wait_s=wait_s + SPARE_S)
    if served is None:
        polled = await polling
    else:
        served.enter()
        try:
            with asked.node.counts.reading("long-poll"):
                polled = await polling
        finally:
            served.leave(asked.node.now())
    if polled.ended is PollEnd.STOP:
        raise Stopping("this node stops; ask another, or come back")
    if polled.ended is PollEnd.TIME:
        slow = refusal(503, "slow", f"there was no answer within {wait_s + SPARE_S:g} s, of which {wait_s:g} s were asked for")
        raise RefusalError(replace(slow, retry_after_s=SPARE_S))
    return polled.value
