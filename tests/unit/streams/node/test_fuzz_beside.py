"""Requests beside the protocol, of any kind: none is a bug, every refusal says why, and what is refused changes nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from fuzzed_node import Call, check
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_values import JSON, NO_JSON, NUMBERS, PIECES, values
from store_parts import disk_in_memory, opened

from outlast.streams import Node
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

EXAMPLES: Final = 60
MANY: Final = 2_000
STREAMS: Final = [*[b"a", b"b"] * 6, b"gone", b"%61", b"a%2Fb"]
CONSUMERS: Final = [*[b"c", b"d"] * 6, b"never", b"%00", b"%ff", b"x" * 201, b""]
VERBS: Final = [*["fetch", "acknowledge", "renew", "release", "put_back"] * 2, "", "x"]
KINDS: Final = ["list", "one", *["records", "trim"] * 2, "consumers", *["consumer"] * 8, "usage", "verify", "odd"]
METHODS: Final = [*["GET", "POST"] * 4, "PUT", "PUT", "DELETE", "HEAD", "PATCH"]
PLACES: Final = [0, 1, 2, 3, 5, 8, 10, 2**53 - 1]
ODD: Final = [-1, 2**53, 2**70, 0.5, True, None, "1", [], {}, 1e308, [[0]], 1e-320]
MEMBERS: Final[dict[str, SearchStrategy[Any]]] = {
    "before": st.sampled_from([*PLACES[:4], *PLACES[:4], *PLACES, *ODD]),
    "lease_s": st.sampled_from([30, 0.001, 604800, *ODD]),
    "deliveries_max": st.sampled_from([1, 5, *ODD]),
    "start": st.sampled_from([*PLACES, *ODD]),
    "records_max": st.sampled_from([1, 3, 10_000, 10_001, *ODD]),
    "wait_s": st.sampled_from([0, 0.5, 60, 1e9, *ODD]),
    "positions": st.one_of(
        st.lists(st.sampled_from(PLACES), max_size=4), st.sampled_from([*ODD, [-1], [True], [1.0], list(range(20_000))])
    ),
    "volume": st.sampled_from(["/disk", "/other", *ODD]),
    "x": st.just(1),
}
WANTED: Final = {
    "trim": ["before"],
    "PUT": ["lease_s", "deliveries_max", "start"],
    "fetch": ["records_max", "wait_s"],
    "acknowledge": ["positions"],
    "renew": ["positions"],
    "release": ["positions"],
    "put_back": ["positions"],
    "verify": ["volume"],
}
QUERIES: Final = {
    b"from": values([b"0", b"3", b"99", *NUMBERS]),
    b"limit": values([b"1", b"10", *NUMBERS]),
    b"wait_s": values([b"0", b"0.5", b"1e3", b"inf", *NUMBERS]),
    b"prefix": values([b"a", b"%ff", b"%C3%A9"]),
    b"after": values([b"a", b"b", b"%ff"]),
}


@st.composite
def requests(draw: Any) -> Call:
    """Return a request beside the protocol: mostly with a meaning, and anything may be wrong with it."""
    method = draw(st.sampled_from(METHODS))
    stream, consumer = draw(st.sampled_from(STREAMS)), draw(st.sampled_from(CONSUMERS))
    what = draw(
        st.sampled_from(
            ["list", "one", "records", "records", "trim", "trim", "consumers", *["consumer"] * 8, "usage", "verify", "odd"]
        )
    )
    path = b"/v1/streams/" + stream
    match what:
        case "list":
            path = b"/v1/streams"
        case "usage" | "verify":
            path = b"/v1/" + what.encode()
        case "records" | "trim" | "consumers":
            path += b"/" + what.encode()
        case "consumer":
            path += b"/consumers/" + consumer
            if method == "POST":
                what = draw(st.sampled_from(VERBS))
                path += b"/" + what.encode()
        case "odd":
            path = b"/v1/streams/" + b"".join(draw(st.lists(st.sampled_from(PIECES), max_size=5)))
        case _:
            pass
    headers = [(b"content-type", b"application/json")]
    headers += draw(st.sampled_from([[], [], [], [(b"content-encoding", b"gzip")], [(b"x-request-timeout", b"0.5")]]))
    asked = draw(st.lists(st.sampled_from(sorted(QUERIES)), max_size=3)) if method in {"GET", "HEAD"} else []
    body = draw(bodies(WANTED.get(method if method == "PUT" else what, ["x"]))) if method in {"POST", "PUT"} else b""
    return Call(
        method,
        path,
        b"&".join(b"%b=%b" % (name, draw(QUERIES[name])) for name in asked),
        tuple(headers),
        (body,),
        draw(st.sampled_from([None, None, 0.0, 1.0])),
        draw(st.integers(0, 20)) == 7,
    )


def bodies(wanted: list[str]) -> SearchStrategy[bytes]:
    """Return what is wanted, something else, and what is no object."""
    good = st.fixed_dictionaries({}, optional={name: MEMBERS[name] for name in wanted})
    other = st.dictionaries(st.sampled_from(sorted(MEMBERS)), st.sampled_from(ODD), max_size=2)
    dumped = st.one_of(good, good, good, other, JSON).map(lambda value: json.dumps(value).encode())
    return st.one_of(dumped, dumped, st.sampled_from(NO_JSON))


def run(calls: list[Call]) -> None:
    """Ask one after the other, of a store with two streams of ten records."""

    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            node = Node(streams)
            for name in ("a", "b"):
                stream = await streams.create(name, records=[b"%d" % number for number in range(10)])
                await stream.consumer("c", lease_s=30.0, deliveries_max=5)
            for call in calls:
                await check(node, call)

    run_virtual(main)


@given(st.lists(requests(), min_size=4, max_size=20))
@settings(max_examples=EXAMPLES, deadline=None)
def test_requests_of_any_kind_beside_the_protocol(calls: list[Call]) -> None:
    run(calls)


@pytest.mark.long
@pytest.mark.timeout(1_200)
@given(st.lists(requests(), min_size=4, max_size=40))
@settings(max_examples=MANY, deadline=None)
def test_many_requests_of_any_kind_beside_the_protocol(calls: list[Call]) -> None:
    run(calls)
