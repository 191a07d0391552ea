"""A node as the commands see it: the streams behind its URL, asked for over HTTP."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from outlast import Unavailable
from outlast._cli.streams import shown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from outlast._cli.streams.place import Url
    from outlast.streams import Chunk, Client, ClientStream, Records, Report

T = TypeVar("T")

DEADLINE_S: Final = 10.0
"""Of a request with all its attempts: somebody waits at a terminal."""
WAIT_S: Final = 20.0
"""The longest that one request of `tail -f` waits at the node."""
AGAIN_S_MAX: Final = 30.0


class Node:
    """The streams of a node. Each method asks it, and raises the errors of `outlast.streams.Client`."""

    unknown: tuple[tuple[str, str], ...] = ()

    def __init__(self, url: Url) -> None:
        """Ask nothing yet. Raises `ConfigurationError` for a URL that cannot work."""
        self._client = client_of(url)

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner()
        self._wait(self._client.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._wait(self._client.close())
        self._runner.close()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield each stream in values of JSON, with an `error` where it cannot be read."""
        for info in self._wait(_all(self._client)):
            yield {"name": info.name, "error": info.error} if info.error else shown.of_served(info)

    def open(self, name: str) -> NodeStream:
        """Return a stream."""
        return NodeStream(self, self._client.stream(name))

    def consumers(self, name: str | None) -> list[dict[str, Any]]:
        """Return the consumers of a stream, or of all, in values of JSON."""
        return self._wait(self._consumers(name))

    def reports(self) -> list[Report]:
        """Have the node check itself; return what was found on each volume."""
        return [shown.report_of(volume) for volume in self._wait(self._client.verify())]

    def ask(self, stream: ClientStream, position: int | None, *, limit: int = 1000, wait_s: float = 0.0) -> Records:
        """Return one answer with records of a stream."""
        return self._wait(stream.records(position, limit=limit, wait_s=wait_s))

    def _wait(self, what: Awaitable[T]) -> T:
        async def main() -> T:
            return await what

        return self._runner.run(main())

    async def _consumers(self, name: str | None) -> list[dict[str, Any]]:
        names = [info.name for info in await _all(self._client)] if name is None else [name]
        return [shown.of_consumer(each, found) for each in names for found in await self._client.stream(each).consumers()]


class NodeStream:
    """A stream of a node, as its last answer showed it."""

    def __init__(self, node: Node, stream: ClientStream) -> None:
        """Ask for its oldest records."""
        self._node = node
        self._stream = stream
        self._is_away = False
        self._last = node.ask(stream, None, limit=1)

    @property
    def oldest(self) -> int:
        """The oldest position that can be read."""
        return self._last.oldest

    @property
    def tail(self) -> int:
        """The position that the next record will get."""
        return self._last.tail

    @property
    def is_closed(self) -> bool:
        """Whether nothing is ever added to it."""
        return self._last.closed

    def read(self, position: int) -> Chunk:
        """Return records from a position on; none at the tail of the last answer."""
        if position not in {self._last.chunk.first, self.tail}:
            self._last = self._node.ask(self._stream, position)
        return self._last.chunk.part(position, self._last.next)

    def wait(self, position: int) -> None:
        """Wait until there is something new at a position, the stream is closed, or a while has passed. Also for the node."""
        try:
            self._last = self._node.ask(self._stream, position, wait_s=WAIT_S)
            self._is_away = False
        except Unavailable as refusal:
            if not self._is_away:
                shown.warn(f"{refusal}; waiting for it")
            self._is_away = True
            time.sleep(min(refusal.retry_after_s, AGAIN_S_MAX))


async def _all(client: Client) -> list[StreamInfo]:
    return [info async for info in client.list()]


def client_of(url: Url) -> Client:
    """Return a client of the node. Raises `ConfigurationError` for a URL that cannot work."""
    from outlast.streams import Client

    return Client(url.url, token=url.token, deadline_s=DEADLINE_S)
