"""The names of streams: each path is a stream of its own, or refused, the same on every route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from node_parts import served
from store_parts import disk_in_memory

from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import MutableMapping

METHODS = ("PUT", "POST", "GET", "HEAD", "DELETE")


@pytest.mark.parametrize(
    "quoted",
    [
        "",
        "a%2Fb",
        "a%2fb",
        "..%2f..%2fx",
        "%2e%2e/x",
        "../x",
        "x/..",
        "./x",
        "x/.",
        ".",
        "a%00b",
        "a%0Ab",
        "a%7Fb",
        "a%C2%85b",
        "%FF",
        "%ED%A0%80",
        "%C0%AF",
        "a%",
        "a%2",
        "a%zz",
        "a" * 1025,
        "%E4%BD%A0" * 342,
    ],
)
def test_what_is_no_name_is_refused_on_every_route(quoted: str) -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            for method in METHODS:
                refused = await client(method, f"/v1/stream/{quoted}", content_type="text/plain")
                assert (method, refused.status) == (method, 400)
                assert method == "HEAD" or refused.problem["code"] == "name"
            assert client.node.streams.names() == []

    run_virtual(main)


NAMES = {
    "a/b": "a/b",
    "A/b": "A/b",
    "a": "a",
    "a/": "a/",
    "A": "A",
    "a//b": "a//b",
    "/a": "/a",
    "%C3%A9": "\xe9",
    "e%CC%81": "e\u0301",
    "a%20b": "a b",
    "a+b": "a+b",
    "a%25zz": "a%zz",
    "...": "...",
    "a.b": "a.b",
    "%5c..%5c": "\\..\\",
    "a%3Fb": "a?b",
    "a%26b=c;d": "a&b=c;d",
    "streams": "streams",
    "%E4%BD%A0" * 60: "你" * 60,
    "%E4%BD%A0" * 85: "你" * 85,
    "%E4%BD%A0" * 200: "你" * 200,
    "%E4%BD%A0" * 255: "你" * 255,
    "b" * 1024: "b" * 1024,
}


def test_every_other_name_is_a_stream_of_its_own() -> None:
    files = disk_in_memory()

    async def main() -> None:
        async with served(files) as client:
            for quoted, name in NAMES.items():
                assert (quoted, (await client.put(quoted, quoted.encode())).status) == (quoted, 201)
                assert name in client.node.streams.names()
            assert client.node.streams.names() == sorted(NAMES.values())
            for quoted in NAMES:
                assert (await client.get(quoted)).body == quoted.encode()
            # One folder each, none of them outside.
            assert {path.split("/")[1] for path in files.tree()} == {"disk"}
            assert len({path.split("/")[3] for path in files.tree() if path.count("/") > 3}) == len(NAMES)

    run_virtual(main)


def test_a_long_name_goes_through_a_whole_life() -> None:
    quoted = "%E4%BD%A0" * 255

    async def main() -> None:
        async with served(disk_in_memory()) as client:
            await client.put(quoted, content_type="application/json")
            stream = await client.node.streams.open("你" * 255)
            for number in range(20):
                assert (await client.post(quoted, b"%d" % number, "application/json")).status == 204
            consumer = await stream.consumer("c" * 200)
            delivered = await consumer.fetch(5)
            await consumer.acknowledge(*(each.record.position for each in delivered))
            await stream.trim(10)
            assert (await client.post(quoted, b"", stream_closed="true")).status == 204
            assert (await client("DELETE", f"/v1/stream/{quoted}")).status == 204
            assert client.node.streams.names() == []

    run_virtual(main)


def test_a_server_that_says_no_raw_path_serves_the_names_that_it_has_decoded() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            for path, name in (("/v1/stream/a b%", "a b%"), ("/v1/stream/\xe9/1?", "\xe9/1?"), ("/v1/stream/\udcff", "?")):
                scope = {"type": "http", "method": "PUT", "path": path, "query_string": b"", "headers": []}
                sent: list[Any] = []

                async def receive() -> dict[str, Any]:
                    return {"type": "http.request", "body": b""}

                async def send(message: MutableMapping[str, Any], sent: list[Any] = sent) -> None:
                    sent.append(message)

                await client.node(scope, receive, send)
                assert sent[0]["status"] == 201
                assert name in client.node.streams.names()

    run_virtual(main)
