"""Requests of any kind beside the protocol: none is a bug, every refusal says why, and what is refused changes no stream."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from fuzzed_node import Call, check
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_values import NUMBERS, values
from store_parts import disk_in_memory, opened

from outlast.streams import Node
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

EXAMPLES: Final = 60
MANY: Final = 5_000
BAD_NAMES: Final = [b"nobody", b"", b"%00", b"%ff", b"..", b"%2e%2e", b"a%2f..", b"*", b"x" * 1025]
NAMES: Final = [*[b"a"] * 20, *[b"b%2Fc"] * 5, *BAD_NAMES]
CONSUMERS: Final = [*[b"c"] * 20, b"d", b"d%2F", *BAD_NAMES]
ACTS: Final = [
    ("GET", b"/v1/streams", ()),
    ("GET", b"/v1/usage", ()),
    ("POST", b"/v1/verify", ("volume",)),
    ("GET", b"/readyz", ()),
    ("GET", b"/v1/streams/%b", ()),
    ("GET", b"/v1/streams/%b/records", ()),
    ("POST", b"/v1/streams/%b/trim", ("before",)),
    ("GET", b"/v1/streams/%b/consumers", ()),
    ("GET", b"/v1/streams/%b/consumers/%b", ()),
    ("PUT", b"/v1/streams/%b/consumers/%b", ("lease_s", "deliveries_max", "start")),
    ("DELETE", b"/v1/streams/%b/consumers/%b", ()),
    *[("POST", b"/v1/streams/%b/consumers/%b/fetch", ("records_max", "wait_s"))] * 2,
    ("POST", b"/v1/streams/%b/consumers/%b/acknowledge", ("positions",)),
    ("POST", b"/v1/streams/%b/consumers/%b/renew", ("positions",)),
    ("POST", b"/v1/streams/%b/consumers/%b/release", ("positions",)),
    ("POST", b"/v1/streams/%b/consumers/%b/put_back", ("positions",)),
    ("POST", b"/v1/streams/%b/nothing", ()),
]
METHODS: Final = ["POST", "GET", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS", "get"]
# No consumer that is set aside: its line would be a matter of chance.
INTEGERS: Final = st.sampled_from([0, 1, 2, 3, 4, 100])
ODD: Final = st.sampled_from(
    [True, None, "", "/disk", "x", 0.0, 0.5, 1e300, {}, {"a": []}, "\ud800", -1, 2**53 - 1, 2**53, 10**30]
)
POSITIONS: Final = st.lists(st.sampled_from([0, 1, 2]), min_size=1, max_size=3)
QUERIES: Final[dict[bytes, SearchStrategy[bytes]]] = {
    name: values([*NUMBERS, b"a", b"%C3%BC", b"%ff", b"0.5"])
    for name in (b"from", b"limit", b"wait_s", b"prefix", b"after", b"other")
}


@st.composite
def requests(draw: Any) -> Call:
    """Return a request beside the protocol: mostly with a meaning, and anything may be wrong with it."""
    method, path, fields = draw(st.sampled_from(ACTS))
    if draw(st.integers(0, 9)) == 9:
        method = draw(st.sampled_from(METHODS))
    names = (draw(st.sampled_from(NAMES)), draw(st.sampled_from(CONSUMERS)))[: path.count(b"%b")]
    members: dict[str, object] = {}
    for field in fields:
        fit = POSITIONS if field == "positions" else INTEGERS
        if draw(st.integers(0, 3)):
            members[field] = draw(st.one_of(fit, fit, fit, ODD, st.lists(ODD, max_size=2)))
    if draw(st.integers(0, 19)) == 19:
        members["other"] = 1
    whole = json.dumps(members).encode()
    body = draw(st.sampled_from([whole] * 20 + [b"", b"null", b"[", whole[:-1], b"\xff", b'{"before":NaN}']))
    content_type = draw(st.sampled_from([b"application/json"] * 20 + [b"text/plain", b"application/json;charset=utf-8"]))
    asked = draw(st.lists(st.sampled_from(sorted(QUERIES)), max_size=3)) if method in {"GET", "HEAD"} else []
    return Call(
        method,
        path % names,
        b"&".join(b"%b=%b" % (each, draw(QUERIES[each])) for each in asked),
        ((b"content-type", content_type),),
        (body,),
        draw(st.sampled_from([None, None, 0.0, 1.0])),
        draw(st.integers(0, 15)) == 7,
    )


def run(calls: list[Call]) -> None:
    """Ask one after the other, of a store with two streams and a consumer."""

    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            node = Node(streams)
            for name in ("a", "b/c"):
                stream = await streams.create(name)
                await stream.append([b"1", b"\xff", b"3"])
            await (await streams.open("a")).consumer("c", deliveries_max=1_000)
            for call in calls:
                await check(node, call)

    run_virtual(main)


@given(st.lists(requests(), min_size=4, max_size=20))
@settings(max_examples=EXAMPLES, deadline=None)
def test_requests_of_any_kind_beside_the_protocol(calls: list[Call]) -> None:
    run(calls)


@pytest.mark.long
@given(st.lists(requests(), min_size=4, max_size=40))
@settings(max_examples=MANY, deadline=None)
def test_many_requests_of_any_kind_beside_the_protocol(calls: list[Call]) -> None:
    run(calls)
