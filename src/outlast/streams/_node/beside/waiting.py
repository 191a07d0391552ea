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

T = TypeVar("T")

SPARE_S: Final = 60.0
"""The time that is left for what comes after the waiting, such as a slow disk. Past it the answer is given up."""


async def waited(asked: Asked, awaited: Awaitable[T], wait_s: float) -> T | None:
    """Return what `awaited` returns, which itself waits for `wait_s` seconds; None when its client has left meanwhile.

    Without waiting nobody looks after the client. Raises `Stopping` when the service stops.
    """
    if not wait_s:
        return await awaited
    request = asked.request
    polled = await long_poll(request.scope, request.receive, awaited, wait_s=wait_s + SPARE_S)
    if polled.ended is PollEnd.STOP:
        raise Stopping(f"the node stops: {asked.store.name}")
    if polled.ended is PollEnd.TIME:
        slow = refusal(503, "slow", f"there was no answer within {wait_s + SPARE_S:g} s, of which {wait_s:g} s were asked for")
        raise RefusalError(replace(slow, retry_after_s=SPARE_S))
    return polled.value
