"""One watch: a stream of changes that is asked whether it is still there, and that ends with an error, never silently."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

from outlast import Fault, Kind, OutlastError, Scope
from outlast.etcd._gateway.answers import decoded, error_for, error_in
from outlast.etcd._gateway.codec import number, revision_of
from outlast.etcd._values import WatchBatch
from outlast.extend import size_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast.etcd._gateway.codec import Codec
    from outlast.etcd._gateway.duplex import Duplex
    from outlast.etcd._values import Event

JSON = dict[str, Any]

PATH: Final = "/v3/watch"
LINE_BYTES_MAX: Final = 16 * 2**20
"""etcd divides what is larger than `--max-request-bytes`, 1.5 MiB, which is 2 MiB of base64."""
EVENTS_MAX: Final = 1_000
"""The changes of one batch. What has been read and is more is handed out by the next one."""
PROGRESS: Final = b'{"progress_request":{}}\n'
UNKNOWN: Final = 2
"""The number of gRPC's status that is none: the end of a watch comes with the text alone."""


class Watch:
    """The changes below a prefix, from a revision on, inside the block of `Etcd.watch`.

        async for batch in watch: ...

    A stream that says nothing for `heartbeat_s` seconds is asked, and has the same time to answer, else it ends with
    `TimeoutError`. One that ends, or is cut, ends with `ConnectionError` or `EtcdError`; `CompactedError`: read again. Each is
    classified and evidence, and a later watch goes on after `revision`: no change is missed or handed out twice. With an older
    `epoch` than etcd's it began before the last outage.
    """

    def __init__(
        self,
        stream: Duplex,
        codec: Codec,
        *,
        asked: str,
        after: int,
        epoch: int,
        heartbeat_s: float,
        failed: Callable[[Exception], Awaitable[Exception]],
    ) -> None:
        self.revision = after
        """All changes up to this revision have been handed out."""
        self.epoch = epoch
        self.is_cut = False
        """Whether it was ended by our own close."""
        self._stream = stream
        self._codec = codec
        self._asked = asked
        self._heartbeat_s = heartbeat_s
        self._failed = failed
        self._read = bytearray()
        self._events: tuple[Event, ...] = ()
        """Events that were read and not handed out."""
        self._is_partial = False
        """Whether more of the newest revision among these is still to come."""
        self._error: Exception | None = None

    async def begin(self, prefix: bytes) -> None:
        """Ask for the changes, and return when etcd watches. Raises `OSError`, `EtcdError`."""
        create = {**self._codec.span(prefix), "start_revision": str(self.revision + 1), "progress_notify": True, "fragment": True}
        self._stream.send(json.dumps({"create_request": create}).encode() + b"\n")
        status = await self._stream.status()
        told = await self._message()
        if status != 200 or not told.get("created"):
            msg = f"{self._asked}: answered {status} in place of a watch"
            raise ConnectionError(msg)

    def __aiter__(self) -> Watch:
        """Iterate over the batches."""
        return self

    async def __anext__(self) -> WatchBatch:
        """Return the next changes. There is no end but an error, which stays the same. Cancelled, it may be asked again."""
        if self._error is not None:
            raise self._error
        try:
            while (batch := self._take()) is None:
                batch = self._note(await self._heard())
                if batch is not None:
                    break
        except Exception as exc:
            self._error = await self._failed(exc)
            if self._error is exc:
                raise
            raise self._error from None
        self.revision = batch.revision
        return batch

    def end(self) -> None:
        """End the connection, by which etcd sees that nobody watches any more. May be called again."""
        self._stream.abort()

    def cut(self) -> None:
        """End it because of our own close."""
        self.is_cut = True
        self.end()

    # Inside.

    def _take(self) -> WatchBatch | None:
        """Return what can be handed out of that which has been read: whole revisions alone."""
        whole = self._whole(len(self._events) - 1) if self._is_partial and self._events else len(self._events)
        if whole == 0:
            return None
        end = whole if whole <= EVENTS_MAX else self._whole(EVENTS_MAX) or self._following(EVENTS_MAX)
        taken, self._events = self._events[:end], self._events[end:]
        return WatchBatch(taken, taken[-1].kv.mod_revision)

    def _whole(self, end: int) -> int:
        """Return how many of the first `end` events belong to revisions of which none comes later."""
        cut_in = self._events[end].kv.mod_revision
        while end > 0 and self._events[end - 1].kv.mod_revision == cut_in:
            end -= 1
        return end

    def _following(self, end: int) -> int:
        """Return the end of the revision that is larger than a batch: one transaction is not divided."""
        cut_in = self._events[end].kv.mod_revision
        while end < len(self._events) and self._events[end].kv.mod_revision == cut_in:
            end += 1
        return end

    def _note(self, told: JSON) -> WatchBatch | None:
        """Keep the events of a message; return a batch without any if it says that there were none up to a later revision."""
        events = self._codec.events(told.get("events", ()))
        if events:
            self._events += events
            self._is_partial = bool(told.get("fragment"))
            return None
        # The answer to a request for progress has the watch id -1. Up to 3.4.24 and 3.5.7 it may overtake changes, so its
        # revision is not used: it shows that the stream lives. The notice that etcd sends by itself comes in its turn.
        is_in_turn = number(told, "watch_id") >= 0 and not told.get("created") and not self._events
        revision = revision_of(told)
        return WatchBatch((), revision) if is_in_turn and revision > self.revision else None

    async def _heard(self) -> JSON:
        """Return the next message; ask whether the stream lives when there is none for a while."""
        try:
            async with asyncio.timeout(self._heartbeat_s):
                return await self._message()
        except TimeoutError:
            self._stream.send(PROGRESS)
        try:
            async with asyncio.timeout(self._heartbeat_s):
                return await self._message()
        except TimeoutError:
            msg = f"{self._asked}: silent for {2 * self._heartbeat_s:g} s, also when it was asked for its progress"
            raise TimeoutError(msg) from None

    async def _message(self) -> JSON:
        """Return what the next line holds. Raises the error that it is."""
        told = decoded(await self._line())
        if told is None:
            msg = f"{self._asked}: a message is no JSON"
            raise ConnectionError(msg)
        if (error := error_in(self._asked, told)) is not None:
            raise error
        result: JSON = told.get("result", {})
        if result.get("canceled"):
            said = str(result.get("cancel_reason", ""))
            raise error_for(self._asked, UNKNOWN, said, number(result, "compact_revision"))
        return result

    async def _line(self) -> bytes:
        while (end := self._read.find(b"\n")) < 0:
            piece = await self._stream.read()
            if not piece:
                msg = f"{self._asked}: the stream ended without a word"
                raise ConnectionError(msg)
            self._read += piece
            if len(self._read) > LINE_BYTES_MAX:
                text = f"{self._asked}: a message is larger than {size_text(LINE_BYTES_MAX)}: write less in one transaction"
                raise OutlastError(text, Fault(Kind.REJECTED, "answer too large", text, scope=Scope.CALL))
        line = bytes(self._read[:end])
        del self._read[: end + 1]
        return line
