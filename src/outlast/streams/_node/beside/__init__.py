"""The interface beside the protocol, below `/v1/streams`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast.streams._node.answers import RefusalError, refusal

if TYPE_CHECKING:
    from outlast.streams._node.node import Node
    from outlast.streams._node.requests import Receive, Scope, Send


async def serve(node: Node, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request whose path is `/v1/streams`, or below it."""
    _ = node, scope, receive, send
    raise RefusalError(refusal(404, "no such path", "there is nothing here"))
