"""A server of the protocol in memory, behind the mock transport of httpx2, that fails by a script. In virtual time.

Its offsets are opaque on purpose: letters, which no client can count with.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2

from outlast.streams import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

BYTES = "application/octet-stream"
CLOSED = {"stream-closed": "true"}
UP_TO_DATE = {"stream-up-to-date": "true"}
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def offset_of(count: int) -> str:
    return f"{ALPHABET[count // 26]}{ALPHABET[count % 26]}"


@dataclass
class Kept:
    """A stream of the site."""

    content_type: str
    closed: bool = False
    records: list[bytes] = field(default_factory=list)
    producers: dict[str, tuple[int, int]] = field(default_factory=dict)
    closed_by: tuple[str, int, int] | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def next(self) -> str:
        return offset_of(len(self.records))


class Site:
    """`script` has what happens to the next requests of `methods`: a function of the request, or None for nothing."""

    def __init__(self) -> None:
        self.streams: dict[str, Kept] = {}
        self.requests: list[Any] = []
        self.times: list[float] = []
        """When each of them came."""
        self.script: list[Callable[[Any], Any] | None] = []
        self.always: Callable[[Any], Any] | None = None
        """What happens to each request when the script is over."""
        self.methods = {"POST", "PUT", "DELETE", "GET"}
        self.chance = 0.0
        """How often something happens, for a test that draws it."""
        self.poll_s = 25.0
        self.sse_s = 60.0
        self.cuts: list[int | None] = []
        self.chunk = 3
        self.changed = asyncio.Event()
        self.tasks: list[asyncio.Task[Any]] = []

    def made(self, **options: Any) -> Client:
        transport = httpx2.AsyncClient(transport=httpx2.MockTransport(self.handle), trust_env=False)
        options.setdefault("rng", random.Random(7))
        return Client("http://node", client=transport, **options)

    def asked(self, *methods: str) -> list[Any]:
        return [request for request in self.requests if request.method in methods]

    # Faults.

    @staticmethod
    def drop(request: Any) -> Any:
        """The connection breaks before the server has done anything; the client cannot know."""
        raise httpx2.RemoteProtocolError("Server disconnected without sending a response.", request=request)

    def lose(self, request: Any) -> Any:
        """The server does it, and the answer is lost."""
        found = self.answer(request)
        if asyncio.iscoroutine(found):
            found.close()
        return self.drop(request)

    def behind(self, status: int) -> Callable[[Any], Any]:
        """The server does it, and a gateway in front of it has lost patience."""

        def answer(request: Any) -> Any:
            with contextlib.suppress(httpx2.RemoteProtocolError):
                self.lose(request)
            return httpx2.Response(status)

        return answer

    async def hang(self, request: Any) -> Any:
        return await self.after(3600.0, request)

    async def late(self, request: Any) -> Any:
        """The server does it after the client has gone."""
        task = asyncio.get_running_loop().create_task(self.after(20.0, request))
        self.tasks.append(task)
        return self.drop(request)

    async def after(self, seconds: float, request: Any) -> Any:
        await asyncio.sleep(seconds)
        found = self.answer(request)
        return await found if asyncio.iscoroutine(found) else found

    @staticmethod
    def refuse(request: Any) -> Any:
        raise httpx2.ConnectError("[Errno 111] Connection refused", request=request)

    @staticmethod
    def say(status: int, code: str = "", kind: str = "", *, headers: Any = None, **members: Any) -> Callable[[Any], Any]:
        """Answer with a problem, as a node of ours does if it has a code."""
        body = {"title": "?", "status": status, **members}
        if code:
            body |= {"code": code, "kind": kind}
        told = {"content-type": "application/problem+json", **(headers or {})}
        return lambda _: httpx2.Response(status, content=json.dumps(body).encode(), headers=told)

    @staticmethod
    def plain(status: int, content: bytes = b"", headers: Any = None) -> Callable[[Any], Any]:
        """Answer as any other server does."""
        return lambda _: httpx2.Response(status, content=content, headers=headers)

    # The server.

    async def handle(self, request: Any) -> Any:
        self.requests.append(request)
        self.times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.005)
        fault = None
        if request.method in self.methods:
            fault = self.script.pop(0) if self.script else self.always
        found = self.answer(request) if fault is None else fault(request)
        return await found if asyncio.iscoroutine(found) else found

    def answer(self, request: Any) -> Any:  # noqa: PLR0911 - a table
        name = request.url.path.removeprefix("/v1/stream/")
        if not request.url.path.startswith("/v1/stream/"):
            return httpx2.Response(404)
        kept = self.streams.get(name)
        if request.method == "PUT":
            return self._put(name, kept, request)
        if kept is None:
            return httpx2.Response(404)
        match request.method:
            case "DELETE":
                del self.streams[name]
                return httpx2.Response(204)
            case "POST":
                found = self._post(kept, request)
                self.changed.set()
                self.changed = asyncio.Event()
                return found
            case "GET" if request.url.params.get("live") == "sse":
                headers = {"content-type": "text/event-stream"}
                if kept.content_type == BYTES:
                    headers["stream-sse-data-encoding"] = "base64"
                return httpx2.Response(200, content=self._events(name, kept, request.url.params["offset"]), headers=headers)
            case "GET" if "live" in request.url.params:
                return self._poll(kept, request)
            case "GET":
                return self._get(kept, request.url.params.get("offset", "-1"))
            case _:
                headers = {"content-type": kept.content_type, "stream-next-offset": kept.next, **kept.headers}
                return httpx2.Response(200, headers=headers | (CLOSED if kept.closed else {}))

    def _put(self, name: str, kept: Kept | None, request: Any) -> Any:
        closed = request.headers.get("stream-closed") == "true"
        content_type = request.headers["content-type"]
        if kept is not None:
            same = (kept.content_type, kept.closed) == (content_type, closed)
            return httpx2.Response(200 if same else 409)
        kept = self.streams[name] = Kept(content_type, closed, self._records(content_type, request.content))
        return httpx2.Response(201, headers={"stream-next-offset": kept.next})

    @staticmethod
    def _records(content_type: str, body: bytes) -> list[bytes]:
        if not body:
            return []
        if content_type != "application/json":
            return [body]
        found = json.loads(body)
        return [json.dumps(each, separators=(",", ":")).encode() for each in (found if isinstance(found, list) else [found])]

    def _post(self, kept: Kept, request: Any) -> Any:
        headers = request.headers
        closes = headers.get("stream-closed") == "true"
        identity = headers.get("producer-id")
        told = {}
        if identity is not None:
            epoch, sequence = int(headers["producer-epoch"]), int(headers["producer-seq"])
            last_epoch, last = kept.producers.get(identity, (epoch, -1))
            if epoch < last_epoch:
                return httpx2.Response(403, headers={"producer-epoch": str(last_epoch)})
            last = last if epoch == last_epoch else -1
            if sequence <= last and (not kept.closed or kept.closed_by == (identity, epoch, sequence)):
                return httpx2.Response(204, headers={"stream-next-offset": kept.next} | (CLOSED if kept.closed else {}))
        if kept.closed and not (closes and not request.content):
            return httpx2.Response(409, headers={"stream-next-offset": kept.next, **CLOSED})
        if request.content and headers["content-type"] != kept.content_type:
            return httpx2.Response(409)
        if identity is not None:
            if sequence > last + 1:
                gap = {"producer-expected-seq": str(last + 1), "producer-received-seq": str(sequence)}
                return httpx2.Response(409, headers=gap)
            kept.producers[identity] = (epoch, sequence)
            told = {"producer-epoch": str(epoch), "producer-seq": str(sequence)}
            if closes:
                kept.closed_by = (identity, epoch, sequence)
        kept.records += self._records(kept.content_type, request.content)
        kept.closed = kept.closed or closes
        told |= {"stream-next-offset": kept.next} | (CLOSED if kept.closed else {})
        return httpx2.Response(200 if identity is not None else 204, headers=told)

    def _get(self, kept: Kept, offset: str) -> Any:
        first = {"-1": 0, "now": len(kept.records)}.get(offset)
        first = ALPHABET.index(offset[0]) * 26 + ALPHABET.index(offset[1]) if first is None else first
        part = kept.records[first : first + self.chunk]
        following = first + len(part)
        headers = {"content-type": kept.content_type, "stream-next-offset": offset_of(following)}
        if following == len(kept.records):
            headers |= UP_TO_DATE | (CLOSED if kept.closed else {})
        body = b"[" + b",".join(part) + b"]" if kept.content_type == "application/json" else b"".join(part)
        return httpx2.Response(200, content=body, headers=headers)

    async def _events(self, name: str, kept: Kept, offset: str) -> AsyncIterator[bytes]:
        """Send events until the stream is closed, deleted, or `sse_s` is over; cut off by `cuts`, each after so many pieces."""
        cut = self.cuts.pop(0) if self.cuts else None
        end = asyncio.get_running_loop().time() + self.sse_s
        sent = 0
        while True:
            found = self._get(kept, offset)
            following, changed = found.headers["stream-next-offset"], self.changed
            control = {"streamNextOffset": following, "streamCursor": "1", "upToDate": "stream-up-to-date" in found.headers}
            if kept.closed and following == kept.next:
                control = {"streamNextOffset": following, "streamClosed": True}
            data = found.content if kept.content_type != BYTES else base64.b64encode(found.content)
            events = [f"event: control\ndata: {json.dumps(control)}\n\n".encode()]
            if following != offset:
                events.insert(0, b"event: data\ndata: " + data + b"\n\n")
            for event in events:
                for piece in (event[:7], event[7:]):
                    if cut is not None and sent == cut:
                        raise httpx2.ReadError("cut")
                    sent += 1
                    yield piece
            offset = following
            if control.get("streamClosed"):
                return
            if control["upToDate"]:
                try:
                    await asyncio.wait_for(changed.wait(), end - asyncio.get_running_loop().time())
                except TimeoutError:
                    return
                if self.streams.get(name) is not kept:
                    raise httpx2.ReadError("deleted")

    async def _poll(self, kept: Kept, request: Any) -> Any:
        offset, cursor = request.url.params["offset"], request.url.params.get("cursor", "0")
        offset = kept.next if offset == "now" else offset
        if offset == kept.next and not kept.closed:
            try:
                await asyncio.wait_for(self.changed.wait(), self.poll_s)
            except TimeoutError:
                headers = {"stream-next-offset": kept.next, "stream-cursor": f"{int(cursor) + 1}", **UP_TO_DATE}
                return httpx2.Response(204, headers=headers)
        if kept is not self.streams.get(request.url.path.removeprefix("/v1/stream/")):
            return httpx2.Response(404)
        found = self._get(kept, offset)
        if not found.content and kept.closed:
            return httpx2.Response(204, headers={"stream-next-offset": kept.next, **UP_TO_DATE, **CLOSED})
        found.headers["stream-cursor"] = f"{int(cursor) + 1}"
        return found
