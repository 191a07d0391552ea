"""PUT, HEAD, DELETE, OPTIONS: streams are made as they are asked for, described, and gone."""

from __future__ import annotations

import asyncio

import pytest
from node_parts import NodeClient, producer, served
from store_parts import data, disk_in_memory

from outlast.testing import run_virtual


def test_a_put_makes_a_stream_and_says_where_and_a_second_one_finds_it() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            made = await client.put("orders/7", b"first", content_type="text/plain; charset=utf-8")
            assert (made.status, made.next, made.body) == (201, "0000000000000001", b"")
            assert made.headers["location"] == "http://node:4437/v1/stream/orders/7"
            assert made.headers["content-type"] == "text/plain; charset=utf-8"
            assert made.headers["x-content-type-options"] == "nosniff"
            assert made.headers["cross-origin-resource-policy"] == "cross-origin"
            there = await client.put("orders/7", b"ignored", content_type="TEXT/PLAIN")
            assert (there.status, there.next) == (200, "0000000000000001")
            assert "location" not in there.headers
            assert await data(await client.node.streams.open("orders/7")) == [b"first"]

    run_virtual(main)


def test_a_client_that_names_no_host_or_a_strange_one_is_told_the_path() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            for name, host in (("a%20b", b""), ("c", b'evil"<'), ("d", b"a/b")):
                client.host = host
                made = await client("PUT", f"/v1/stream/{name}?x=1")
                assert (made.status, made.headers["location"]) == (201, f"/v1/stream/{name}")

    run_virtual(main)


@pytest.mark.parametrize(
    "other",
    [
        {"content_type": "application/json"},
        {"stream_ttl": "60"},
        {"stream_expires_at": "2999-01-01T00:00:00Z"},
        {"stream_closed": "true"},
    ],
)
def test_a_stream_that_is_there_otherwise_is_a_conflict(other: dict[str, str]) -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            assert (await client.put("orders")).status == 201
            refused = await client("PUT", "/v1/stream/orders", b"x", **{"content_type": "text/plain", **other})
            assert refused.reads == 0
            assert (refused.status, refused.problem["code"], refused.problem["kind"]) == (409, "stream exists", "rejected")
            assert (await client.put("others", **other) if "content_type" not in other else refused).status in {201, 409}

    run_virtual(main)


def test_what_a_stream_was_made_with_is_compared_as_what_it_means() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            assert (await client.put("a", stream_expires_at="2999-01-01T00:00:00Z")).status == 201
            assert (await client.put("a", stream_expires_at="2999-01-01T01:00:00.0+01:00")).status == 200
            assert (await client.put("a", stream_expires_at="2999-01-01T00:00:00+01:00")).status == 409
            assert (await client.put("b", b"x", stream_closed="TRUE")).headers["stream-closed"] == "true"
            assert (await client.put("b", stream_closed="true")).status == 200
            assert (await client.put("b")).status == 409
            assert (await client.put("c", stream_closed="yes")).status == 201
            assert (await client.head("c")).headers.get("stream-closed") is None

    run_virtual(main)


@pytest.mark.parametrize(
    "headers",
    [
        *(
            {"stream_ttl": text}
            for text in ("", "+1", "1_0", " 7 ", "-0", "-1", "007", "1.5", "1e3", "\xb2", "9" * 5000, str(2**53))
        ),
        *({"stream_expires_at": text} for text in ("", "tomorrow", "2030-01-01", "2030-13-01T00:00:00Z", "1" * 5000)),
        {"stream_ttl": "1", "stream_expires_at": "2030-01-01T00:00:00Z"},
        {"content_type": "text"},
        {"content_type": "text/plain, text/html"},
        {"content_type": "text/" + "a" * 300},
    ],
)
def test_a_stream_that_is_asked_for_in_no_way_is_not_made(headers: dict[str, str]) -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            refused = await client("PUT", "/v1/stream/orders", b"body", **headers)
            assert refused.status == 400
            assert refused.problem["kind"] == "rejected"
            assert refused.reads == 0
            assert client.node.streams.names() == []

    run_virtual(main)


def test_a_body_that_is_no_json_makes_no_stream_and_an_empty_array_an_empty_one() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            assert (await client.put("a", b"{", "application/json")).status == 400
            assert client.node.streams.names() == []
            assert (await client.put("a", b"[]", "application/json")).next == "0000000000000000"
            assert (await client.put("b", b'[1, "x"]', "application/json")).next == "0000000000000002"

    run_virtual(main)


def test_many_who_make_the_same_stream_at_once_make_it_once() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            got = await asyncio.gather(*(client.put("orders", b"one") for _ in range(8)))
            assert sorted(each.status for each in got) == [200] * 7 + [201]
            assert (await client.head("orders")).next == "0000000000000001"

    run_virtual(main)


def test_a_head_says_what_there_is_and_has_no_body() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            await client.put("a", b"x", stream_ttl="60")
            await client.put("b", stream_expires_at="2999-01-01T00:00:00.500Z", stream_closed="true")
            got = await client.head("a")
            assert (got.status, got.body, got.next) == (200, b"", "0000000000000001")
            assert (got.headers["stream-ttl"], got.headers["cache-control"]) == ("60", "no-store")
            got = await client.head("b")
            assert (got.headers["stream-expires-at"], got.headers["stream-closed"]) == ("2999-01-01T00:00:00.500Z", "true")
            missing = await client.head("c")
            assert (missing.status, missing.body) == (404, b"")
            assert int(missing.headers["content-length"]) > 0

    run_virtual(main)


def test_a_stream_that_was_made_in_the_process_is_served_as_octets() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            stream = await client.node.streams.create("orders")
            await stream.append([b"a", b"b"])
            assert (await client.head("orders")).headers["content-type"] == "application/octet-stream"
            assert (await client.get("orders")).body == b"ab"
            assert (await client.put("orders", content_type="application/octet-stream")).status == 200
            await client.node.streams.delete("orders")
            assert (await client.head("orders")).status == 404

    run_virtual(main)


def test_the_next_stream_of_a_name_knows_nothing_of_the_one_before() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            await client.put("a", stream_ttl="2")
            assert (await client.post("a", b"x", **producer("p", 3, 0), stream_seq="9")).status == 200
            assert (await client("DELETE", "/v1/stream/a")).status == 204
            assert [(await client(method, "/v1/stream/a")).status for method in ("DELETE", "HEAD", "GET", "POST")] == [404] * 4
            assert (await client.put("a")).status == 201
            await asyncio.sleep(3.0)
            # Neither the TTL of the old one, nor its producer, nor its Stream-Seq.
            assert (await client.head("a")).headers.get("stream-ttl") is None
            gap = await client.post("a", b"x", **producer("p", 3, 1))
            assert (gap.status, gap.headers["producer-expected-seq"]) == (409, "0")
            assert (await client.post("a", b"y", **producer("p", 0, 0), stream_seq="1")).status == 200

    run_virtual(main)


def test_streams_that_come_and_go_in_the_process_are_not_remembered_for_good() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            client.node.served._sweep_at = 4
            await client.put("stays", b"x")
            for number in range(12):
                await client.node.streams.create(f"{number}")
                assert (await client.get(f"{number}")).status == 200
                await client.node.streams.delete(f"{number}")
                client.node.served._sweep_at = min(client.node.served._sweep_at, 4)
                assert len(client.node.served) <= 5
            assert (await client.get("stays")).body == b"x"

    run_virtual(main)


def test_streams_their_types_and_their_ends_outlive_the_process() -> None:
    files = disk_in_memory()

    async def make(client: NodeClient) -> None:
        await client.put("a", b"[1]", "application/json; charset=utf-8", stream_ttl="9000")
        await client.put("b", b"x", stream_expires_at="2999-01-01T00:00:00Z", stream_closed="true")

    async def look(client: NodeClient) -> None:
        got = await client.head("a")
        assert (got.headers["content-type"], got.headers["stream-ttl"]) == ("application/json; charset=utf-8", "9000")
        got = await client.head("b")
        assert (got.headers["stream-expires-at"], got.headers["stream-closed"]) == ("2999-01-01T00:00:00Z", "true")
        assert (await client.put("b", stream_expires_at="2999-01-01T00:00:00Z", stream_closed="true")).status == 200

    for step in (make, look):

        async def main(step: object = step) -> None:
            async with served(files) as client:
                await step(client)  # type: ignore[operator]

        run_virtual(main)


def test_a_preflight_says_what_may_be_sent_and_allows_no_origin() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            got = await client("OPTIONS", "/v1/stream/nothing", origin="https://example.com")
            assert got.status == 204
            assert {"if-none-match", "producer-id", "stream-closed"} <= set(
                got.headers["access-control-allow-headers"].split(", ")
            )
            assert "access-control-allow-origin" not in got.headers

    run_virtual(main)


def test_other_methods_and_paths_are_refused() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            refused = await client("PATCH", "/v1/stream/a")
            assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD, POST, PUT, DELETE, OPTIONS")
            for path in ("/", "/v1", "/v1/stream", "/v2/stream/a", "/v1/Stream/a"):
                assert (await client("GET", path)).status == 404
            reserved = await client("PUT", "/v1/stream/__ds/subscriptions/1")
            assert (reserved.status, reserved.problem["code"]) == (501, "not offered")
            with pytest.raises(ValueError, match="no websocket"):
                await client.node({"type": "websocket"}, None, None)  # type: ignore[arg-type]

    run_virtual(main)
