"""Readers: catching up, and waiting at the tail by long polls or server-sent events. They resume where they broke."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from outlast.extend import clean
from outlast.http import Answer, AnswerError
from outlast.streams._client.asking import ReadBrokenError, Request
from outlast.streams._client.decisions import progress
from outlast.streams._client.decisions.event_stream import Batches, EventParser
from outlast.streams._client.decisions.failures import PROBLEM_TYPE, Asked, number
from outlast.streams._client.decisions.retrying import Effect
from outlast.streams._client.values import BYTES_TYPE, Batch, is_true
from outlast.streams._errors import StreamError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from outlast.http import AnswerStream
    from outlast.streams._client.asking import Asking

POLL_S: Final = 75.0
"""The longest silence of a server at the tail. Nodes answer a long poll after 25 s and send a comment every 15; others take
60.
"""
NEXT: Final = "stream-next-offset"
CURSOR: Final = "stream-cursor"


class Reader:
    """One reading of a stream."""

    def __init__(self, name: str, path: str, asking: Asking, *, follow: bool, sse: bool, deadline_s: float | None) -> None:
        """See `ClientStream.read`."""
        self._name = name
        self._path = path
        self._asking = asking
        self._follow = follow
        self._sse = sse
        self._deadline_s = deadline_s
        self._content_type = BYTES_TYPE
        """As the last answer had it: events do not say it, and come after the first answer."""

    async def batches(self, offset: str) -> AsyncGenerator[Batch]:
        """Yield batches from an offset on."""
        place, loop = progress.Place(offset), asyncio.get_running_loop()
        backoff, failed_at = progress.FRESH, loop.time()
        while True:
            source = self._events(place) if self._sse and place.live else self._answer(place)
            try:
                async with aclosing(source) as steps:
                    async for step in steps:
                        if step.batch is not None:
                            yield step.batch
                        if step.ended:
                            return
                        place = step.place
                        if step.wait_s:
                            await asyncio.sleep(step.wait_s)
            except ReadBrokenError as broken:
                # Whoever follows asks on while the server is away, from where it was.
                backoff = self._asking.rule.backoff.after_health(backoff, loop.time() - failed_at)
                failed_at = loop.time()
                backoff = await self._asking.pause(broken.failure, backoff)

    async def _answer(self, place: progress.Place) -> AsyncGenerator[progress.Step]:
        """Ask once for what is at a place, and yield the step that follows."""
        loop = asyncio.get_running_loop()
        asked = Asked(self._name, Effect.NONE, "read", place.offset)
        params = place.params("long-poll" if place.live else "")
        request = Request(asked, "GET", self._path, params, place.headers, accept=(200, 204), by_pieces=True)
        began_at = loop.time()
        if self._follow:
            answer = await self._asking.once(request, POLL_S if place.live else self._asking.attempt_s)
        else:
            answer = (await self._asking.ask(request, self._deadline_s)).answer
        took_s = loop.time() - began_at
        is_aged = number(answer.headers.get("age")) > 0
        batch = batch_of(answer)
        self._content_type = batch.content_type if answer.status == 200 else self._content_type
        yield self._step(place, batch, answer.headers.get(CURSOR, ""), aged=is_aged, took_s=took_s)

    async def _events(self, place: progress.Place) -> AsyncGenerator[progress.Step]:
        """Yield the steps of one connection, until it ends."""
        loop = asyncio.get_running_loop()
        asked = Asked(self._name, Effect.NONE, "read", place.offset)
        headers = {"accept": "text/event-stream", **place.headers}
        request = Request(asked, "GET", self._path, place.params("sse"), headers, accept=(200,))
        began_at = loop.time()
        async with self._asking.streamed(request, POLL_S) as answer:
            is_base64 = answer.headers.get("stream-sse-data-encoding", "").strip().lower() == "base64"
            batches = Batches(self._content_type, base64_encoded=is_base64)
            async for batch, cursor in self._read(answer, batches):
                took_s = POLL_S if batch.next != place.offset else loop.time() - began_at
                step = replace(self._step(place, batch, cursor, aged=False, took_s=took_s), wait_s=0.0)
                place = step.place
                yield step
                if place.past_cache or step.ended:
                    return
        # Servers end each after a while. One that ends it at once is not asked in a hot loop.
        ended = Batch(b"", place.offset, content_type=self._content_type)
        yield self._step(place, ended, place.cursor, aged=False, took_s=loop.time() - began_at)

    async def _read(self, answer: AnswerStream, batches: Batches) -> AsyncGenerator[tuple[Batch, str]]:
        parser = EventParser(self._asking.peer.body_bytes_max)
        try:
            async for piece in answer:
                for event in parser.feed(piece):
                    if event.type == "error":
                        # A node says why it ends, before it cuts the connection.
                        raise AnswerError(f"{self._asking.peer.name}: GET {self._path}", told(event.data))
                    found = batches.take(event)
                    if found is not None:
                        yield found
        except (ValueError, KeyError, TypeError) as error:
            raise StreamError(
                self._name, f"the server sends events that are none of the protocol: {clean(str(error))}"
            ) from error

    def _step(self, place: progress.Place, batch: Batch, cursor: str, *, aged: bool, took_s: float) -> progress.Step:
        return progress.after(
            place,
            batch,
            stream=self._name,
            cursor=cursor,
            follow=self._follow,
            aged=aged,
            now=asyncio.get_running_loop().time(),
            took_s=took_s,
            rng=self._asking.rule.rng,
        )


def told(problem: str) -> Answer:
    """Return the answer that a problem would have been, had the answer not begun."""
    status = json.loads(problem)["status"]
    return Answer(int(status), {"content-type": PROBLEM_TYPE}, problem.encode())


def batch_of(answer: Answer) -> Batch:
    """Return what an answer to a read has."""
    headers = dict(answer.headers)
    closed = is_true(headers, "stream-closed")
    up_to_date = closed or "stream-up-to-date" in headers
    return Batch(answer.body, headers.get(NEXT, ""), up_to_date, closed, headers.get("content-type", BYTES_TYPE))
