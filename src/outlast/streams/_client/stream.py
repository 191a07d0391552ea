"""A stream as a client sees it: appends, reads, and what is said of it."""

from __future__ import annotations

import asyncio
import enum
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from outlast import Stopping
from outlast.streams._client.asking import Request
from outlast.streams._client.consumer import ClientConsumer
from outlast.streams._client.decisions.failures import Asked, number
from outlast.streams._client.decisions.retrying import Effect
from outlast.streams._client.listed import ConsumerInfo, RecordPage, StreamInfo, consumer_info, record_page, stream_info
from outlast.streams._client.paths import beside, path_of
from outlast.streams._client.reading import NEXT, Reader
from outlast.streams._client.values import BYTES_TYPE, START, Batch, Sent, StreamHead, body_of, is_true
from outlast.streams._errors import OutcomeUnknownError, SequenceError, StreamNotFoundError

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator, Mapping

    from outlast.http import Answer
    from outlast.streams._client.asking import Asking
    from outlast.streams._client.writing import Writer, Writers
    from outlast.streams._model import Producer


class Auto(enum.Enum):
    """The producer of this client, for the stream that is written to."""

    AUTO = "auto"


AUTO: Final = Auto.AUTO


class ClientStream:
    """A stream of a server, by its name. Made by `Client.stream` or `Client.create`; nothing is asked to make it."""

    def __init__(self, name: str, prefix: str, asking: Asking, writers: Writers, content_type: str = "") -> None:
        self.name = name
        self._path = path_of(prefix, name)
        self._asking = asking
        self._writers = writers
        if content_type:
            writers.get(name).content_type = content_type

    def __repr__(self) -> str:
        """Show the name."""
        return f"<ClientStream {self.name!r}>"

    # Writing.

    async def append(
        self,
        data: object,
        *,
        close: bool = False,
        producer: Producer | Auto | None = AUTO,
        sequence: str | None = None,
        deadline_s: float | None = None,
        wait_for_room: bool = False,
    ) -> Sent:
        """Append, and return the offset behind it. It is stored once, however often it had to be sent.

        Bytes are sent as they are. Of a stream of `application/json` anything else is a message, and a list several; of another
        one, a text is sent as UTF-8. `close`: it is the last append, stored and closed in one step. Appends of one client to one
        stream are sent one after the other. `sequence` is the `Stream-Seq` of the protocol.

        Raises `OutcomeUnknownError` when nobody knows at the deadline whether it is stored: its `producer` sends the same again,
        stored once. `Unavailable`, `LimitError`, `StreamClosedError` and all others: it is not stored, and never will be. A full
        disk is `Unavailable` at once, unless `wait_for_room`; it has the first cause, and until `retry_after_s` further appends
        are refused here, with that cause. Cancelled: nobody knows, and what comes after it is never taken for it.

        `producer=None` sends it without: then what may have been sent is never sent again.
        """
        writer, loop = self._writers.get(self.name), asyncio.get_running_loop()
        deadline_at = loop.time() + (self._asking.deadline_s if deadline_s is None else deadline_s)
        if not wait_for_room and (refusal := writer.refused(loop.time())) is not None:
            await self._asking.throttler.take_turn()
            raise refusal
        async with writer.turn(self.name, self._asking.peer.name, deadline_at):
            if not wait_for_room and (refusal := writer.refused(loop.time())) is not None:
                raise refusal
            headers = {"content-type": writer.content_type or await self._ask_type(writer, deadline_at - loop.time())}
            body = body_of(data, headers["content-type"])
            if close:
                headers["stream-closed"] = "true"
            if sequence is not None:
                headers["stream-seq"] = sequence
            try:
                return await self._append(writer, body, headers, producer, deadline_at, wait_for_room=wait_for_room)
            except Exception as exc:
                writer.remember(exc, loop.time(), self._rng)
                if isinstance(exc, StreamNotFoundError):
                    # The next of this name may have another.
                    writer.content_type = ""
                raise

    async def close(self, *, deadline_s: float | None = None) -> Sent:
        """Close it: it takes no more, and readers come to its end. Returns the offset of that. To close it twice does no harm."""
        request = Request(self._asked(Effect.SAME, "close"), "POST", self._path, headers={"stream-closed": "true"}, content=b"")
        reply = await self._asking.ask(request, deadline_s)
        return Sent(reply.answer.headers.get(NEXT, ""), closed=True)

    async def delete(self, *, deadline_s: float | None = None) -> None:
        """Delete it with all its data. Raises `StreamNotFoundError` if there was none.

        What may have reached the server is not sent again: it might delete another stream of this name, made meanwhile. If the
        stream is gone afterwards, it is done; else `OutcomeUnknownError`.
        """
        request = Request(self._asked(Effect.TWICE, "delete"), "DELETE", self._path)
        try:
            await self._asking.ask(request, deadline_s)
        except OutcomeUnknownError:
            try:
                await self.head(deadline_s=deadline_s)
            except StreamNotFoundError:
                return
            raise

    async def trim(self, before: int, *, deadline_s: float | None = None) -> tuple[int, int]:
        """Let go of the records before a position, of a node of ours; returns the oldest position and the tail."""
        found = (await self._beside("POST", "trim", effect=Effect.SAME, json={"before": before}, deadline_s=deadline_s)).json()
        return found["oldest"], found["tail"]

    # Reading.

    async def head(self, *, deadline_s: float | None = None) -> StreamHead:
        """Return its state."""
        reply = await self._asking.ask(Request(self._asked(Effect.NONE, "head"), "HEAD", self._path), deadline_s)
        return head_of(self.name, reply.answer)

    async def read(
        self, offset: str = START, *, follow: bool = False, sse: bool = False, deadline_s: float | None = None
    ) -> AsyncGenerator[Batch]:
        """Yield what is stored from `offset` on, a piece at a time. `follow`: and what will be, until it is closed.

        `offset` is "-1" (all that is there), "now", or the `next` of an earlier batch. Each batch has all of its piece, so
        reading goes on where it broke. Without `follow` it ends at the tail, and each answer has `deadline_s`; with it, it waits
        for a server that is away as long as it takes. At the tail it asks by long polls, which every proxy lets through, or by
        server-sent events (`sse`), which cost a busy stream less.

        Raises `TrimmedError` for an offset that is gone, `BeyondTailError`, `OffsetGoneError`, `StaleAnswerError`,
        `StreamNotFoundError` (also when it is deleted meanwhile), `DamagedError`, and without `follow` `Unavailable`.
        """
        reader = Reader(self.name, self._path, self._asking, follow=follow, sse=sse, deadline_s=deadline_s)
        async with aclosing(reader.batches(offset)) as batches:
            async for batch in batches:
                yield batch

    # Beside the protocol: for a node of ours.

    async def info(self, *, deadline_s: float | None = None) -> StreamInfo:
        """Return its positions and its size."""
        return stream_info((await self._beside("GET", deadline_s=deadline_s)).json())

    async def records(
        self, start: int | None = None, *, limit: int = 1000, wait_s: float = 0.0, deadline_s: float | None = None
    ) -> RecordPage:
        """Return records one by one with their positions, at most `limit` and about 1 MiB, from `start` or else the oldest.

        At the tail it waits for the next one, at most `wait_s` seconds (60 and more are 60). Go on at `next`. Raises as `read`.
        """
        params = {"limit": str(limit)} | ({} if start is None else {"from": str(start)})
        params |= {"wait_s": f"{wait_s:g}"} if wait_s else {}
        asked = Asked(self.name, Effect.NONE, "records", params.get("from", ""), beside=True)
        request = Request(asked, "GET", beside(self.name, "records"), params)
        limit_s = (self._asking.deadline_s if deadline_s is None else deadline_s) + wait_s
        answer = (await self._asking.ask(request, limit_s, attempt_s=self._asking.attempt_s + wait_s)).answer
        return record_page(answer.json())

    async def consumer(
        self,
        name: str,
        *,
        lease_s: float = 30.0,
        deliveries_max: int = 5,
        start: int = 0,
        deadline_s: float | None = None,
    ) -> ClientConsumer:
        """Return a consumer, which is made if there is none: it begins at `start`, or the oldest record. See
        `Stream.consumer`.
        """
        settings = {"lease_s": lease_s, "deliveries_max": deliveries_max, "start": start}
        consumer = ClientConsumer(self.name, name, self._asking, settings)
        await consumer.begin(deadline_s=deadline_s)
        return consumer

    async def consumers(self, *, deadline_s: float | None = None) -> list[ConsumerInfo]:
        """Return all its consumers."""
        return [consumer_info(row) for row in (await self._beside("GET", "consumers", deadline_s=deadline_s)).json()["consumers"]]

    async def delete_consumer(self, name: str, *, deadline_s: float | None = None) -> None:
        """Forget a consumer, durably. One that is not there is no error."""
        await self._beside("DELETE", "consumers", name, effect=Effect.SAME, deadline_s=deadline_s)

    # Inside.

    async def _beside(
        self,
        method: str,
        *parts: str,
        effect: Effect = Effect.NONE,
        json: Mapping[str, int] | None = None,
        deadline_s: float | None,
    ) -> Answer:
        asked = Asked(self.name, effect, parts[0] if parts else "list", beside=True)
        return (await self._asking.ask(Request(asked, method, beside(self.name, *parts), json=json), deadline_s)).answer

    @property
    def _rng(self) -> random.Random:
        return self._asking.rule.rng

    def _asked(self, effect: Effect, action: str) -> Asked:
        return Asked(self.name, effect, action)

    async def _ask_type(self, writer: Writer, left_s: float) -> str:
        """Return the content type, which each append has to name; it is asked for once."""
        writer.content_type = (await self.head(deadline_s=left_s)).content_type
        return writer.content_type

    async def _append(
        self,
        writer: Writer,
        body: bytes,
        headers: dict[str, str],
        producer: Producer | Auto | None,
        deadline_at: float,
        *,
        wait_for_room: bool,
    ) -> Sent:
        if producer is not AUTO:
            return await self._send(body, headers, producer, deadline_at, wait_for_room=wait_for_room)
        sequences, restarted = writer.sequences, False
        while True:
            identity = sequences.begin()
            try:
                sent = await self._send(body, headers, identity, deadline_at, wait_for_room=wait_for_room)
            except (OutcomeUnknownError, Stopping):
                # In doubt, as it is when this is cancelled.
                raise
            except SequenceError:
                sequences.refused()
                if restarted:
                    raise
                # The server does not know this producer (any more): nothing of this append is stored.
                sequences.restart()
                restarted = True
            except Exception:
                sequences.refused()
                raise
            else:
                sequences.stored()
                return sent

    async def _send(
        self, body: bytes, headers: dict[str, str], producer: Producer | None, deadline_at: float, *, wait_for_room: bool
    ) -> Sent:
        effect = Effect.TWICE if producer is None else Effect.ONCE
        asked = Asked(self.name, effect, "append", producer=producer, size=len(body))
        identity = {} if producer is None else producer_headers(producer)
        request = Request(asked, "POST", self._path, headers={**headers, **identity}, content=body)
        left_s = deadline_at - asyncio.get_running_loop().time()
        try:
            answer = (await self._asking.ask(request, left_s, waits_for_room=wait_for_room)).answer
        except OutcomeUnknownError as error:
            error.producer = producer
            raise
        duplicate = producer is not None and answer.status == 204
        return Sent(answer.headers.get(NEXT, ""), duplicate, is_true(dict(answer.headers), "stream-closed"))


def producer_headers(producer: Producer) -> dict[str, str]:
    """Return the headers by which an append names its producer."""
    return {
        "producer-id": producer.id,
        "producer-epoch": str(producer.epoch),
        "producer-seq": str(producer.sequence),
    }


def head_of(name: str, answer: Answer) -> StreamHead:
    """Return the state of a stream from the headers of an answer."""
    headers = dict(answer.headers)
    ttl_s = number(headers.get("stream-ttl"))
    return StreamHead(
        name,
        headers.get("content-type", BYTES_TYPE),
        headers.get(NEXT, ""),
        is_true(headers, "stream-closed"),
        ttl_s if ttl_s >= 0 else None,
        headers.get("stream-expires-at"),
        headers,
    )
