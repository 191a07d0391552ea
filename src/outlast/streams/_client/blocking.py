"""The client for threads: the same without `await`. Everything is promised where the asynchronous one promises it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from outlast.streams._client.client import VERIFY_S, Client
from outlast.streams._client.loop_thread import LoopThread
from outlast.streams._client.stream import AUTO
from outlast.streams._client.values import BYTES_TYPE, START

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from outlast.http import HttpPeer
    from outlast.streams._client.consumer import ClientConsumer
    from outlast.streams._client.listed import ConsumerInfo, RecordPage, StreamInfo, VolumeCheck, VolumeUsage
    from outlast.streams._client.stream import Auto, ClientStream
    from outlast.streams._client.values import Batch, Sent, StreamHead
    from outlast.streams._model import Delivered, Producer


class BlockingClient:
    """`Client` for threads, any number of them: each call waits for its answer.

        with BlockingClient("http://127.0.0.1:4437") as client:
            orders = client.create("orders", exist_ok=True)
            orders.append(b"an order")

    It has an event loop in a thread of its own. Closed, with a `with` block or by `close`, it raises `Stopping` in all who wait.
    """

    def __init__(self, url: str, **options: Any) -> None:  # noqa: ANN401 - `Client` has their types
        """`options` are those of `Client`. Nothing is dialled before the first request."""
        self._client = Client(url, **options)
        self._loop = LoopThread(f"outlast streams client {self._client.peer.name}")

    def __repr__(self) -> str:
        """Show the server and its state."""
        return f"<BlockingClient {self.peer.name} {self.peer.state.value}>"

    def __enter__(self) -> Self:
        """Return it; nothing is asked."""
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        """Close it."""
        self.close()

    @property
    def peer(self) -> HttpPeer:
        """The server as a dependency."""
        return self._client.peer

    def close(self) -> None:
        """End every request, every connection, and the thread. A second time does nothing."""
        self._loop.close(self._client.close())

    def stream(self, name: str, *, content_type: str = "") -> BlockingStream:
        """See `Client.stream`."""
        return BlockingStream(self._client.stream(name, content_type=content_type), self._loop)

    def create(
        self,
        name: str,
        *,
        content_type: str = BYTES_TYPE,
        ttl_s: int | None = None,
        expires_at: str | None = None,
        data: object = None,
        closed: bool = False,
        exist_ok: bool = False,
        deadline_s: float | None = None,
    ) -> BlockingStream:
        """See `Client.create`."""
        coroutine = self._client.create(
            name,
            content_type=content_type,
            ttl_s=ttl_s,
            expires_at=expires_at,
            data=data,
            closed=closed,
            exist_ok=exist_ok,
            deadline_s=deadline_s,
        )
        return BlockingStream(self._loop.call(coroutine), self._loop)

    def list(self, prefix: str = "", *, deadline_s: float | None = None) -> Iterator[StreamInfo]:
        """See `Client.list`."""
        return self._loop.each(self._client.list(prefix, deadline_s=deadline_s))

    def usage(self, *, deadline_s: float | None = None) -> tuple[VolumeUsage, ...]:
        """See `Client.usage`."""
        return self._loop.call(self._client.usage(deadline_s=deadline_s))

    def verify(self, volume: str | None = None, *, deadline_s: float = VERIFY_S) -> tuple[VolumeCheck, ...]:
        """See `Client.verify`."""
        return self._loop.call(self._client.verify(volume, deadline_s=deadline_s))


class BlockingStream:
    """`ClientStream` for threads. Get it from a `BlockingClient`."""

    def __init__(self, stream: ClientStream, loop: LoopThread) -> None:
        self.name = stream.name
        self._stream = stream
        self._loop = loop

    def __repr__(self) -> str:
        """Show the name."""
        return f"<BlockingStream {self.name!r}>"

    def append(
        self,
        data: object,
        *,
        close: bool = False,
        producer: Producer | Auto | None = AUTO,
        sequence: str | None = None,
        deadline_s: float | None = None,
        wait_for_room: bool = False,
    ) -> Sent:
        """See `ClientStream.append`."""
        return self._loop.call(
            self._stream.append(
                data,
                close=close,
                producer=producer,
                sequence=sequence,
                deadline_s=deadline_s,
                wait_for_room=wait_for_room,
            )
        )

    def close(self, *, deadline_s: float | None = None) -> Sent:
        """See `ClientStream.close`."""
        return self._loop.call(self._stream.close(deadline_s=deadline_s))

    def delete(self, *, deadline_s: float | None = None) -> None:
        """See `ClientStream.delete`."""
        self._loop.call(self._stream.delete(deadline_s=deadline_s))

    def trim(self, before: int, *, deadline_s: float | None = None) -> tuple[int, int]:
        """See `ClientStream.trim`."""
        return self._loop.call(self._stream.trim(before, deadline_s=deadline_s))

    def head(self, *, deadline_s: float | None = None) -> StreamHead:
        """See `ClientStream.head`."""
        return self._loop.call(self._stream.head(deadline_s=deadline_s))

    def read(
        self, offset: str = START, *, follow: bool = False, sse: bool = False, deadline_s: float | None = None
    ) -> Iterator[Batch]:
        """See `ClientStream.read`. Close the iterator, or leave it, to end it."""
        return self._loop.each(self._stream.read(offset, follow=follow, sse=sse, deadline_s=deadline_s))

    def info(self, *, deadline_s: float | None = None) -> StreamInfo:
        """See `ClientStream.info`."""
        return self._loop.call(self._stream.info(deadline_s=deadline_s))

    def records(
        self, start: int | None = None, *, limit: int = 1000, wait_s: float = 0.0, deadline_s: float | None = None
    ) -> RecordPage:
        """See `ClientStream.records`."""
        return self._loop.call(self._stream.records(start, limit=limit, wait_s=wait_s, deadline_s=deadline_s))

    def consumer(
        self,
        name: str,
        *,
        lease_s: float = 30.0,
        deliveries_max: int = 5,
        start: int = 0,
        deadline_s: float | None = None,
    ) -> BlockingConsumer:
        """See `ClientStream.consumer`."""
        coroutine = self._stream.consumer(
            name, lease_s=lease_s, deliveries_max=deliveries_max, start=start, deadline_s=deadline_s
        )
        return BlockingConsumer(self._loop.call(coroutine), self._loop)

    def consumers(self, *, deadline_s: float | None = None) -> list[ConsumerInfo]:
        """See `ClientStream.consumers`."""
        return self._loop.call(self._stream.consumers(deadline_s=deadline_s))

    def delete_consumer(self, name: str, *, deadline_s: float | None = None) -> None:
        """See `ClientStream.delete_consumer`."""
        self._loop.call(self._stream.delete_consumer(name, deadline_s=deadline_s))


class BlockingConsumer:
    """`ClientConsumer` for threads. Get it from a `BlockingStream`."""

    def __init__(self, consumer: ClientConsumer, loop: LoopThread) -> None:
        self.stream = consumer.stream
        self.name = consumer.name
        self._consumer = consumer
        self._loop = loop

    def __repr__(self) -> str:
        """Show the names."""
        return f"<BlockingConsumer {self.name!r} of stream {self.stream!r}>"

    def fetch(self, records_max: int = 100, *, wait_s: float = 0.0, deadline_s: float | None = None) -> list[Delivered]:
        """See `ClientConsumer.fetch`."""
        return self._loop.call(self._consumer.fetch(records_max, wait_s=wait_s, deadline_s=deadline_s))

    def acknowledge(self, *positions: int, deadline_s: float | None = None) -> None:
        """See `ClientConsumer.acknowledge`."""
        self._loop.call(self._consumer.acknowledge(*positions, deadline_s=deadline_s))

    def renew(self, *positions: int, deadline_s: float | None = None) -> tuple[int, ...]:
        """See `ClientConsumer.renew`."""
        return self._loop.call(self._consumer.renew(*positions, deadline_s=deadline_s))

    def release(self, *positions: int, deadline_s: float | None = None) -> None:
        """See `ClientConsumer.release`."""
        self._loop.call(self._consumer.release(*positions, deadline_s=deadline_s))

    def put_back(self, *positions: int, deadline_s: float | None = None) -> None:
        """See `ClientConsumer.put_back`."""
        self._loop.call(self._consumer.put_back(*positions, deadline_s=deadline_s))

    def info(self, *, deadline_s: float | None = None) -> ConsumerInfo:
        """See `ClientConsumer.info`."""
        return self._loop.call(self._consumer.info(deadline_s=deadline_s))

    def lag(self, *, deadline_s: float | None = None) -> int:
        """See `ClientConsumer.lag`."""
        return self._loop.call(self._consumer.lag(deadline_s=deadline_s))
