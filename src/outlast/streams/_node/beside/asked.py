"""A request beside the protocol, as its handler gets it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from outlast.streams._node import protocol
from outlast.streams._node.answers import RefusalError, refusal
from outlast.streams._node.beside.fields import Fields

if TYPE_CHECKING:
    from outlast.streams._node.beside.checking import Checks
    from outlast.streams._node.node import Node
    from outlast.streams._node.requests import Request
    from outlast.streams._node.served import Served
    from outlast.streams._stream import Stream
    from outlast.streams._streams import Streams

BODY_BYTES_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, and the node that it came to."""

    request: Request
    node: Node
    checks: Checks
    consumer: str = ""
    """The name of the consumer that the path has."""

    @property
    def store(self) -> Streams:
        """The store that the node serves."""
        return self.node.streams

    async def fields(self, *names: str) -> Fields:
        """Read the body: an object of JSON with no other members than these, or nothing. Raises `RefusalError` (400, 413, 415).

        The content type is asked for because a page of another origin can make a browser send any other one unasked.
        """
        value = self.request.text(protocol.CONTENT_TYPE)
        if value is None or protocol.parse_content_type(value) != protocol.JSON:
            raise RefusalError(
                refusal(415, "content type", f"the request has Content-Type: {protocol.JSON}, also without a body")
            )
        return Fields(await self.request.body(BODY_BYTES_MAX), *names)

    def at_most(self, wait_s: float) -> float:
        """Return for how long to wait: no longer than the client does."""
        deadline_s = self.request.deadline_s
        return wait_s if deadline_s is None else min(wait_s, deadline_s)

    async def served(self) -> Served:
        """Return the stream of the path, as it is served. Raises `StreamNotFoundError` and others."""
        return await self.node.find(self.request.name)

    async def stream(self) -> Stream:
        """Return the stream of the path, where it is all the same how its records are served."""
        return (await self.served()).stream
