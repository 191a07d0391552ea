"""What the fuzz tests of the node share: requests of any kind, one of them asked in-process, and what holds of every answer."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from outlast.streams import StreamNotFoundError

if TYPE_CHECKING:
    from outlast.streams import Node, Stream, Streams

TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
IN_A_VALUE: Final = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
OFFSET: Final = re.compile(rb"[0-9]{16}")


@dataclass(frozen=True)
class Call:
    """A request. Its client sends the body in parts, and leaves `leaves_after_s` seconds later; None: it stays.

    `breaks_off`: it leaves before the last part.
    """

    method: str
    path: bytes
    query: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    parts: tuple[bytes, ...] = ()
    leaves_after_s: float | None = None
    breaks_off: bool = False

    def header(self, name: bytes) -> bytes | None:
        return next((value for each, value in self.headers if each == name), None)

    def scope(self) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            # As a server decodes it.
            "path": unquote_to_bytes(self.path).decode("utf-8", "replace"),
            "raw_path": self.path,
            "query_string": self.query,
            "root_path": "",
            "headers": list(self.headers),
            "client": ("192.0.2.1", 12345),
            "server": ("127.0.0.1", 80),
        }


@dataclass
class Answer:
    """What came of a request."""

    status: int = 0
    """0: there was none."""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    is_whole: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(app: Any, call: Call) -> Answer:
    """Call the application as a server does, and check that what it sends is an answer."""
    answer = Answer()
    parts = list(call.parts or (b"",))
    if call.breaks_off:
        parts.pop()
    left = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if parts:
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts) or call.breaks_off}
        if not call.breaks_off:
            if call.leaves_after_s is None:
                await asyncio.Event().wait()
            await asyncio.sleep(call.leaves_after_s or 0.0)
        left.set()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if left.is_set():
            return
        assert not answer.is_whole, f"{message} was sent behind the end of the answer"
        if message["type"] == "http.response.start":
            assert not answer.status, f"a second answer began: {message}"
            answer.status = message["status"]
            for name, value in message["headers"]:
                assert TOKEN.fullmatch(name), f"the header {name!r} is none, or not in lower case"
                assert IN_A_VALUE.fullmatch(value), f"the header {name!r} has the value {value!r}"
                assert name not in answer.headers, f"the header {name!r} is there twice"
                answer.headers[name] = value
            return
        assert answer.status, f"{message} was sent before the answer began"
        answer.body += message.get("body", b"")
        answer.is_whole = not message.get("more_body", False)

    await app(call.scope(), receive, send)
    if not left.is_set():
        assert answer.is_whole, f"{call} has no whole answer: {answer}"
        length = answer.headers.get(b"content-length")
        if length is not None and call.method != "HEAD":
            assert int(length) == len(answer.body)
    return answer


State = dict[str, tuple[object, ...]]


async def state_of(streams: Streams) -> State:
    """Return all that is stored, but for the bytes of the records."""
    found: State = {}
    for name in streams.names():
        try:
            stream = await streams.open(name)
            cursors = {each.name: (each.next, sorted(each.open), each.skipped) for each in await stream.cursors()}
            found[name] = (stream.id, stream.oldest, stream.tail, stream.is_closed, cursors, dict(stream.labels))
        except StreamNotFoundError:
            continue
    return found


async def check(node: Node, call: Call) -> Answer:
    """Ask, and check what holds of every answer."""
    before = await state_of(node.streams)
    answer = await ask(node, call)
    status = answer.status
    if status == 0:
        assert call.leaves_after_s is not None or call.breaks_off
        if call.breaks_off:
            assert await state_of(node.streams) == before, f"{call} was not whole, and something is stored"
        return answer
    in_time = call.header(b"x-request-timeout") is None
    assert status < 500 or status == 501 or (status in {503, 504} and not in_time), f"{call} was answered {answer}"
    if status >= 400:
        check_problem(call, answer)
        if status != 504:
            assert await unexpired(node, before) == await state_of(node.streams), f"{call} was refused, and something is stored"
    elif call.path.startswith(b"/v1/stream/"):
        await check_offsets(node, call, answer)
    return answer


def check_problem(call: Call, answer: Answer) -> None:
    """Check that a refusal is a problem with a code; that of a HEAD has no body."""
    assert answer.headers[b"content-type"] == b"application/problem+json", f"{call} was answered {answer}"
    if call.method == "HEAD":
        assert answer.body == b""
        return
    problem = answer.json
    assert problem["status"] == answer.status
    assert problem["code"], f"{call} was refused without a code"
    assert problem["kind"], f"{call} was refused without a kind"
    assert "Traceback" not in str(problem)


async def unexpired(node: Node, before: State) -> State:
    """Return the streams of a state that are there, or were refused for another reason than that their time is over."""
    names = set(node.streams.names())
    return {name: kept for name, kept in before.items() if name in names or not {"ttl", "expires-at"} & set(kept[-1])}  # type: ignore[call-overload]


async def check_offsets(node: Node, call: Call, answer: Answer) -> None:
    """Check the offset that an answer names against the store, and what a reader got against its records."""
    if answer.status == 304 or call.method in {"DELETE", "OPTIONS"}:
        return
    named = answer.headers.get(b"stream-next-offset")
    name = unquote_to_bytes(call.path.removeprefix(b"/v1/stream/")).decode()
    try:
        stream = await node.streams.open(name)
    except StreamNotFoundError:
        # Its time is over by now.
        return
    if answer.headers.get(b"content-type") == b"text/event-stream":
        check_events(answer.body)
        return
    assert named is not None, f"{call} was answered without an offset: {answer}"
    assert OFFSET.fullmatch(named)
    if call.method in {"HEAD", "POST", "PUT"} or (up_to_date := b"stream-up-to-date" in answer.headers):
        assert int(named) == stream.tail or (call.method == "POST" and call.header(b"producer-id") is not None)
    if call.method in {"HEAD", "PUT", "POST"}:
        assert (b"stream-closed" in answer.headers) == stream.is_closed
    if call.method == "GET" and "forked-from" not in stream.labels:
        assert up_to_date == (int(named) == stream.tail)
        await check_records(call, answer, stream, int(named))


async def check_records(call: Call, answer: Answer, stream: Stream, following: int) -> None:
    """Check that a reader got the records from its offset to the one that it was told, and no others."""
    asked = re.search(rb"(?:^|&)offset=([^&]*)", call.query)
    text = unquote_to_bytes(asked[1]) if asked else b"-1"
    start = {b"-1": stream.oldest, b"now": stream.tail}.get(text)
    start = int(text) if start is None else start
    records = [record.data async for record in stream.read(start)][: following - start]
    is_json = answer.headers[b"content-type"].lower().partition(b";")[0].strip() == b"application/json"
    if answer.status == 204:
        assert (records, answer.body) == ([], b"")
    else:
        assert answer.body == (b"[" + b",".join(records) + b"]" if is_json else b"".join(records))


def check_events(body: bytes) -> None:
    """Check that an event stream has nothing but the fields that there are, and only the events of the protocol."""
    for line in re.split(rb"\r\n|\r|\n", body):
        name, _, value = line.partition(b":")
        assert name in {b"", b"data", b"event", b"id", b"retry"}, f"{line!r} is in an event stream"
        if name == b"event":
            assert value.strip() in {b"data", b"control", b"error"}
