"""Requests of any kind, one after the other: none is a bug, every refusal says why, and what is refused is not stored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from fuzzed_node import Call, check
from hypothesis import given, settings
from hypothesis import strategies as st
from store_parts import disk_in_memory, opened

from outlast.streams import Node
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

EXAMPLES: Final = 60
MANY: Final = 5_000
NUMBERS: Final = [
    b"0", b"1", b"2", b"3", b"10", b"-1", b"+1", b"1_0", b" 7 ", b"-0", b"007", b"\xb2", b"1.5", b"1e3", b"", b"0x1", b"NaN", b"true",
    b"9007199254740990", b"9007199254740991", b"9007199254740992", b"9" * 5000, "１２".encode(),
]  # fmt: skip
OFFSETS: Final = [b"-1", b"now", *(b"%016d" % number for number in (0, 1, 2, 5, 2**53 - 1, 2**53)), b"NOW", b"%31", b"0_0", *NUMBERS]
TYPES: Final = [
    b"application/json", b"application/json", b"Application/JSON; charset=utf-8", b"text/plain", b"text/plain;charset=utf-8",
    b"application/octet-stream", b"", b"/", b"text", b"text/", b"a/b;", b"\xff/\xfe", b"text/plain, text/html", b"x/" + b"y" * 300,
]  # fmt: skip
NAMES: Final = [b"a", b"b", b"a/b", b"%C3%A9", b"A", b"a/"]
PIECES: Final = [
    b"a", b"/", b"%2f", b"%2F", b"%00", b"%0a", b"%", b"%zz", b"..", b".", b"%2e", b"%ff", b"\xc3", b"__ds", b"*", b" ", b"?", b"#", b"~",
    b"x" * 300, b"%F0%9F%98%80", b"+", b":", b"\\",
]  # fmt: skip
NO_JSON: Final = [
    b"[", b"]", b"[1,]", b"[,1]", b"{", b'{"a"}', b"nul", b"NaN", b"[Infinity]", b"-", b"01", b"1 2", b'"\x01"', b'"\\x"', b"\xef\xbb\xbf1", b"\xff",
    b"'a'", b"\x00", b" ", b"[" * 100_000, b'{"a":' * 50_000, b"[" * 60 + b"]" * 60, b"9" * 5000, b"[1e400, -0, 1.0, 1E2]", b'["\\ud800"]',
]  # fmt: skip
INSTANTS: Final = [
    b"2030-01-01T00:00:00Z", b"1999-01-01T00:00:00Z", b"2030-02-30T00:00:00Z", b"0000-01-01T00:00:00Z", b"9999-12-31T23:59:60Z", b"2030-01-01",
    b"2030-01-01T00:00:00+99:99", b"2030-01-01T00:00:00.123456789Z", b"9999-12-31T23:59:59-14:00", b"0001-01-01T00:00:00+14:00", b"soon",
]  # fmt: skip


def values(known: list[bytes]) -> SearchStrategy[bytes]:
    """Return what a client may send for a header: what is known to be odd, and anything else."""
    # A server has taken blanks, line ends and NULs away.
    anything = st.binary(max_size=6).map(lambda value: value.translate(None, b"\0\r\n"))
    return st.one_of(st.sampled_from(known), st.sampled_from(known), anything)


HEADERS: Final[dict[bytes, SearchStrategy[bytes]]] = {
    b"content-type": values(TYPES),
    b"stream-closed": values([b"true", b"TRUE", b"false", b"1"]),
    b"stream-seq": values([b"a", b"b", b"c", *NUMBERS]),
    b"stream-ttl": values(NUMBERS),
    b"stream-expires-at": values(INSTANTS),
    b"stream-forked-from": values([b"/v1/stream/a", b"/v1/stream/b", b"/v1/stream/%2f", b"http://[", b"//", b"a", b"/v1/stream/", b"/v1/stream/a/../b"]),
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
    b"live": values([b"long-poll", b"sse", b"true", b"1", b""]),
    b"cursor": values(NUMBERS),
    b"x": values([b"%ff", b"%", b"=", b"&&"]),
}
JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def bodies() -> SearchStrategy[bytes]:
    """Return JSON, nearly JSON, and bytes."""
    dumped = JSON.map(lambda value: json.dumps(value).encode())
    return st.one_of(dumped, st.sampled_from(NO_JSON), st.binary(max_size=20), st.just(b""), st.just(b"[1, 2]"))


@st.composite
def requests(draw: Any) -> Call:
    """Return a request about a stream: mostly with a meaning, and anything may be wrong with it."""
    method = draw(st.sampled_from(["PUT", "POST", "POST", "GET", "GET", "HEAD", "DELETE", "PATCH", "OPTIONS", "get"]))
    path = draw(st.one_of(st.sampled_from(NAMES), st.sampled_from(NAMES), st.lists(st.sampled_from(PIECES), max_size=4).map(b"".join)))
    names = draw(st.lists(st.sampled_from(sorted(HEADERS)), max_size=5, unique=draw(st.integers(0, 9)) > 0))
    headers = [(name, draw(HEADERS[name])) for name in names]
    if method in {"PUT", "POST"} and b"content-type" not in names and draw(st.integers(0, 5)):
        headers.append((b"content-type", draw(st.sampled_from(TYPES[:6]))))
    if b"producer-id" in names and draw(st.integers(0, 3)):
        headers += [(name, draw(HEADERS[name])) for name in (b"producer-epoch", b"producer-seq") if name not in names]
    asked = draw(st.lists(st.sampled_from(sorted(QUERIES)), max_size=3)) if method in {"GET", "HEAD"} else []
    body = draw(bodies()) if method in {"PUT", "POST"} or not draw(st.integers(0, 5)) else b""
    at = draw(st.integers(0, len(body)))
    return Call(
        method,
        b"/v1/stream/" + path,
        b"&".join(b"%b=%b" % (name, draw(QUERIES[name])) for name in asked),
        tuple(headers),
        (body[:at], body[at:]) if draw(st.booleans()) else (body,),
        draw(st.sampled_from([None, None, 0.0, 1.0])),
        not draw(st.integers(0, 15)),
    )


def run(calls: list[Call]) -> None:
    """Ask one after the other, of a store with two streams."""

    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            node = Node(streams, long_poll_s=2.0, sse_s=5.0, body_bytes_max=300_000)
            for name, content_type in ((b"a", b"application/json"), (b"b", b"text/plain")):
                made = Call("PUT", b"/v1/stream/" + name, headers=((b"content-type", content_type),), parts=(b'["\\r", 1]',))
                assert (await check(node, made)).status == 201
            for call in calls:
                await check(node, call)

    run_virtual(main)


@given(st.lists(requests(), min_size=1, max_size=12))
@settings(max_examples=EXAMPLES, deadline=None)
def test_requests_of_any_kind(calls: list[Call]) -> None:
    run(calls)


@pytest.mark.long
@given(st.lists(requests(), min_size=1, max_size=30))
@settings(max_examples=MANY, deadline=None)
def test_many_requests_of_any_kind(calls: list[Call]) -> None:
    run(calls)
