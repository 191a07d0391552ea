"""Requests of any kind, one after the other: none is a bug, every refusal says why, and what is refused is not stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from fuzzed_node import Call, check
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_values import INSTANTS, NAMES, NUMBERS, OFFSETS, PIECES, TYPES, bodies, values
from store_parts import disk_in_memory, opened

from outlast.streams import Node
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

EXAMPLES: Final = 60
MANY: Final = 2_000
METHODS: Final = [*["POST"] * 8, *["GET"] * 8, *["PUT"] * 3, *["HEAD"] * 2, "DELETE", "PATCH", "OPTIONS", "get"]
HEADERS: Final[dict[bytes, SearchStrategy[bytes]]] = {
    b"content-type": values(TYPES),
    b"stream-closed": values([b"true", b"TRUE", b"false", b"1"]),
    b"stream-seq": values([b"a", b"b", b"c", *NUMBERS]),
    b"stream-ttl": values(NUMBERS),
    b"stream-expires-at": values(INSTANTS),
    b"stream-forked-from": values(
        [b"/v1/stream/a", b"/v1/stream/b", b"/v1/stream/%2f", b"http://[", b"//", b"a", b"/v1/stream/", b"/v1/stream/a/../b"]
    ),
    b"stream-fork-offset": values(OFFSETS),
    b"stream-fork-sub-offset": values(NUMBERS),
    b"producer-id": values([b"p", b"q", b"\xff", b"x" * 2000]),
    b"producer-epoch": values(NUMBERS),
    b"producer-seq": values(NUMBERS),
    b"if-none-match": values([b"*", b'"a"', b'W/"a"', b'"', b'"a", "b"', b"," * 50]),
    b"content-encoding": values([b"gzip", b"identity", b"br, gzip", b"IDENTITY"]),
    b"content-length": values(NUMBERS),
    b"expect": values([b"100-continue", b"other"]),
    b"x-request-timeout": values(NUMBERS),
    b"host": values([b"example.com", b"[::1]:80", b"a b", b"\xff", b"a/b"]),
    b"last-event-id": values(OFFSETS),
    b"accept": values([b"text/event-stream", b"application/json", b"*/*"]),
    b"stream-cursor": values(NUMBERS),
}
QUERIES: Final[dict[bytes, SearchStrategy[bytes]]] = {
    b"offset": values(OFFSETS),
    b"live": st.sampled_from([*[b"long-poll", b"sse"] * 4, b"true", b"", b"%FF"]),
    b"cursor": values(NUMBERS),
    b"x": values([b"%ff", b"%", b"=", b"&&"]),
}


@st.composite
def requests(draw: Any) -> Call:
    """Return a request about a stream: mostly with a meaning, and anything may be wrong with it."""
    method = draw(st.sampled_from(METHODS))
    path = draw(st.sampled_from([*NAMES, b""])) or b"".join(draw(st.lists(st.sampled_from(PIECES), max_size=4)))
    names = draw(st.lists(st.sampled_from(sorted(HEADERS)), max_size=4))
    headers = [(name, draw(HEADERS[name])) for name in names]
    if method in {"PUT", "POST"} and b"content-type" not in names:
        headers.append((b"content-type", b"text/plain" if path == b"b" else b"application/json"))
    if method == "POST" and draw(st.booleans()):
        producer = draw(st.tuples(st.sampled_from([b"p", b"q"]), st.integers(0, 2), st.integers(0, 3)))
        told = {b"producer-id": producer[0], b"producer-epoch": b"%d" % producer[1], b"producer-seq": b"%d" % producer[2]}
        headers += [(name, told[name]) for name in told if name not in names]
    if forks := method == "PUT" and draw(st.booleans()):
        path = draw(st.sampled_from([b"f", b"g", b"a/b", b"a"]))
        headers.append((b"stream-forked-from", draw(st.sampled_from([b"/v1/stream/a", b"/v1/stream/a", b"/v1/stream/f"]))))
    any_of = st.lists(st.sampled_from([b"offset", b"live", b"cursor", b"x"]), max_size=3)
    reads = st.one_of(st.sampled_from([[], [b"offset"], [b"offset", b"live"]]), any_of)
    asked = draw(reads) if method in {"GET", "HEAD"} else []
    body = draw(bodies()) if (method in {"PUT", "POST"} and not forks) or b"content-encoding" in names else b""
    at = draw(st.integers(0, min(len(body), 9)))
    return Call(
        method,
        b"/v1/stream/" + path,
        b"&".join(b"%b=%b" % (name, draw(QUERIES[name])) for name in asked),
        tuple(headers),
        (body[:at], body[at:]) if at else (body,),
        draw(st.sampled_from([None, None, 0.0, 1.0])),
        draw(st.integers(0, 15)) == 7,
    )


def run(calls: list[Call]) -> None:
    """Ask one after the other, of a store with two streams and a fork."""

    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            node = Node(streams, long_poll_s=2.0, sse_s=5.0, body_bytes_max=300_000)
            for name, content_type in ((b"a", b"application/json"), (b"b", b"text/plain")):
                made = Call("PUT", b"/v1/stream/" + name, headers=((b"content-type", content_type),), parts=(b'["\\r", 1]',))
                assert (await check(node, made)).status == 201
            forked = ((b"stream-forked-from", b"/v1/stream/a"), (b"stream-fork-offset", b"%016d" % 1))
            assert (await check(node, Call("PUT", b"/v1/stream/f", headers=forked))).status == 201
            for call in calls:
                await check(node, call)

    run_virtual(main)


@given(st.lists(requests(), min_size=4, max_size=20))
@settings(max_examples=EXAMPLES, deadline=None)
def test_requests_of_any_kind(calls: list[Call]) -> None:
    run(calls)


@pytest.mark.long
@pytest.mark.timeout(1_200)
@given(st.lists(requests(), min_size=4, max_size=40))
@settings(max_examples=MANY, deadline=None)
def test_many_requests_of_any_kind(calls: list[Call]) -> None:
    run(calls)
