"""A node as the commands see it: the streams behind its URL, asked for over HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from outlast import Unavailable
from outlast._cli.streams import shown
from outlast.streams import Chunk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from outlast._cli.streams.place import Url
    from outlast.streams import Client, ClientStream, RecordPage, Report, StreamInfo

T = TypeVar("T")

DEADLINE_S: Final = 5.0
"""Of a request with all its attempts: somebody waits at a terminal."""
STORED_S: Final = 30.0
"""The same of an append, which is better waited for than in doubt."""
PAGE: Final = 10_000
"""Records of one request, the most that a node returns; with about 1 MiB it returns fewer."""
WAIT_S: Final = 5.0
"""The longest that one request of `tail -f` waits at the node."""
LATE_S: Final = 2.0
"""The most by which its answer may be late: then the node is said to be away."""
AGAIN_S_MAX: Final = 30.0
EMPTY: Final = Chunk(0, 0, (), (), None)


class NodeStreams:
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
        """Let the node check itself; return what was found on each volume."""
        return [shown.report_of(volume) for volume in self._wait(self._client.verify())]

    def info(self, stream: ClientStream) -> StreamInfo:
        """Return where a stream begins and ends."""
        return self._wait(stream.info())

    def records(self, stream: ClientStream, position: int, wait_s: float = 0.0) -> RecordPage:
        """Return one answer with records of a stream."""
        deadline_s = LATE_S if wait_s else None
        return self._wait(stream.records(position, limit=PAGE, wait_s=wait_s, deadline_s=deadline_s))

    def _wait(self, what: Awaitable[T]) -> T:
        async def main() -> T:
            return await what

        return self._runner.run(main())

    async def _consumers(self, name: str | None) -> list[dict[str, Any]]:
        names = [info.name for info in await _all(self._client)] if name is None else [name]
        return [shown.of_consumer(each, found) for each in names for found in await self._client.stream(each).consumers()]


class NodeStream:
    """A stream of a node, as its last answer showed it."""

    def __init__(self, node: NodeStreams, stream: ClientStream) -> None:
        """Ask where it begins and ends."""
        self._node = node
        self._stream = stream
        self._state: StreamInfo | RecordPage = node.info(stream)
        self._come: Chunk | None = None
        """Records that came while something was waited for."""
        self._is_away = False

    @property
    def oldest(self) -> int:
        """The oldest position that can be read."""
        return self._state.oldest

    @property
    def tail(self) -> int:
        """The position that the next record will get."""
        return self._state.tail

    @property
    def is_closed(self) -> bool:
        """Whether nothing is ever added to it."""
        return self._state.closed

    def read(self, position: int) -> Chunk:
        """Return records from a position on; none at the tail, as the last answer had it."""
        if self._come is not None and self._come.first == position:
            found, self._come = self._come, None
            return found
        return EMPTY if position == self.tail else self._ask(position, 0.0)

    def wait(self, position: int) -> None:
        """Wait until there is something at a position, the stream is closed, or a while has passed. Also for the node."""
        try:
            self._come = self._ask(position, WAIT_S)
            self._is_away = False
        except Unavailable as refusal:
            if not self._is_away:
                shown.warn(f"the node is away ({refusal.fault.code}: {refusal.fault.reason}); waiting for it")
            self._is_away = True
            time.sleep(min(refusal.retry_after_s, AGAIN_S_MAX))

    def _ask(self, position: int, wait_s: float) -> Chunk:
        page = self._node.records(self._stream, position, wait_s)
        self._state = page
        return Chunk(
            position,
            page.next,
            [record.data for record in page.records],
            [round(record.time * 1e6) for record in page.records],
            [json.dumps(dict(record.headers)).encode() if record.headers else b"" for record in page.records],
        )


async def _all(client: Client) -> list[StreamInfo]:
    return [info async for info in client.list()]


def client_of(url: Url) -> Client:
    """Return a client of the node. Raises `ConfigurationError` for a URL that cannot work."""
    from outlast.streams import Client

    return Client(url.url, token=url.token, deadline_s=DEADLINE_S)
