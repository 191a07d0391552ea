"""A read that waits at the tail: what `live=long-poll` is answered with there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlast import Stopping
from outlast.http import PollEnd, long_poll
from outlast.streams._node.requests import ClientGoneError

if TYPE_CHECKING:
    from outlast.streams._node.live.pieces import Piece
    from outlast.streams._node.node import Node
    from outlast.streams._node.requests import Request
    from outlast.streams._node.served import Served

SPREAD: Final = 0.1
"""Polls that began together do not come back together: each waits up to so much of the time less."""


async def next_piece(node: Node, request: Request, served: Served, position: int) -> Piece | None:
    """Wait for records at the tail, and return them; None when the time is over, a piece without records when it is closed.

    The time is that of the node, or what the client has left. Raises as `Stream.fetch`; `Stopping` from the step on that fires
    the stop; `ClientGoneError`.
    """
    wait_s = node.long_poll_s * (1 - SPREAD * node.rng.random())
    if request.deadline_s is not None:
        wait_s = min(wait_s, request.deadline_s)
    served.enter()
    try:
        with node.counts.reading("long-poll"):
            awaited = node.pieces.at(served, position)
            polled = await long_poll(request.scope, request.receive, awaited, wait_s=wait_s)
    finally:
        served.leave(node.now())
    match polled.ended:
        case PollEnd.STOP:
            raise Stopping("this node stops; ask another, or come back")
        case PollEnd.CLIENT:
            raise ClientGoneError
        case _:
            return polled.value
