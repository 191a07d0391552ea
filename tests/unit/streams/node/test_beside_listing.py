"""The list of streams, one stream, the disks, and what has no such path."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import pytest
from beside_parts import asking, path_of
from store_parts import disk_in_memory, fill

from outlast.streams import Producer, Retention, StreamOptions
from outlast.testing import run_virtual


def test_streams_are_listed_in_pages_in_the_order_of_their_names() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            for name in ("b", "a/2", "a/1", "a/3", "c", "ä"):
                await ask.node.streams.create(name)
            listed: list[str] = []
            target, pages = "/v1/streams?limit=2", 0
            while target:
                page = await ask.json("GET", target)
                listed += [row["name"] for row in page["streams"]]
                pages += 1
                target = f"/v1/streams?limit=2&after={page['next']}" if page["next"] else ""
            assert (listed, pages) == (["a/1", "a/2", "a/3", "b", "c", "ä"], 3)
            of_a = await ask.json("GET", "/v1/streams?prefix=a%2F&after=a%2F1")
            assert ([row["name"] for row in of_a["streams"]], of_a["next"]) == (["a/2", "a/3"], None)
            assert (await ask.json("GET", "/v1/streams?prefix=zz"))["streams"] == []
            # An `after` that is before the prefix, and one that is behind it.
            assert len((await ask.json("GET", "/v1/streams?prefix=a%2F&after=a"))["streams"]) == 3
            assert (await ask.json("GET", "/v1/streams?prefix=a%2F&after=b"))["streams"] == []

    run_virtual(main)


def test_a_stream_is_shown_with_the_way_it_is_kept() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            options = StreamOptions(retention=Retention(age_s=3600.0), quota_bytes=1 << 20)
            stream = await ask.node.streams.create("a/b ü", options)
            await stream.append([b"x", b"y"], producer=Producer("p", 0, 0))
            await stream.consumer("billing")
            await stream.close()
            found = await ask.json("GET", path_of("a/b ü"))
            (row,) = (await ask.json("GET", "/v1/streams"))["streams"]
            assert found.items() >= row.items()
            assert (row["name"], row["id"], row["content_type"]) == ("a/b ü", stream.id, "application/octet-stream")
            assert (row["oldest"], row["tail"], row["segments"], row["closed"]) == (0, 2, 1, True)
            assert row["volume"] == "/disk"
            assert row["created"].endswith("+00:00")
            assert (found["producers"], found["consumers"]) == (1, ["billing"])
            assert (found["options"]["quota_bytes"], found["options"]["retention"]["age_s"]) == (1 << 20, 3600.0)

    run_virtual(main)


def test_a_stream_that_cannot_be_read_has_its_error_in_the_list_and_hides_no_other(expected_logs: Any) -> None:
    expected_logs("is damaged", optional=True)
    files = disk_in_memory()

    async def main() -> None:
        async with asking(files) as ask:
            kept = [await ask.node.streams.create(name) for name in ("a", "b")]
        for path in (f"/disk/streams/{kept[0].id}/{name}" for name in files.names(f"/disk/streams/{kept[0].id}")):
            if path.endswith(".log"):
                files.unlink(path)
        async with asking(files) as ask:
            first, second = (await ask.json("GET", "/v1/streams"))["streams"]
            assert (first["name"], first["code"]) == ("a", "damaged")
            assert "segment" in first["error"]
            assert (second["name"], second["tail"]) == ("b", 0)
            assert await ask.problem("GET", path_of("a")) == (500, "damaged")

    run_virtual(main)


def test_a_stream_that_has_expired_is_not_listed() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            for name, labels in (("a", {"ttl": "10"}), ("b", {})):
                await ask.node.streams.create(name, labels=labels)
            assert len((await ask.json("GET", "/v1/streams"))["streams"]) == 2
            await asyncio.sleep(11)
            assert [row["name"] for row in (await ask.json("GET", "/v1/streams"))["streams"]] == ["b"]

    run_virtual(main)


def test_the_streams_of_a_disk_that_cannot_be_read_hide_no_others(expected_logs: Any) -> None:
    expected_logs("/lost")
    files = disk_in_memory("/lost", "/well")

    async def main() -> None:
        async with asking(files, "/lost", "/well") as ask:
            for name, volume in (("a", "/lost"), ("b", "/well")):
                await ask.node.streams.create(name, volume=volume)
        async with asking(files, "/lost", "/well") as ask:
            files.fail("open", errno.EIO, times=9, path="/lost/*.log")
            first, second = (await ask.json("GET", "/v1/streams"))["streams"]
            assert (first["name"], first["code"], second["name"], second["tail"]) == ("a", "EIO", "b", 0)
            assert await ask.problem("GET", path_of("a")) == (503, "EIO")

    run_virtual(main)


def test_a_fork_and_a_stream_that_is_there_for_its_forks_alone_are_listed_as_such() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            await ask.make("base", [b"one", b"two"])
            await ask.make("fork", [], **{"stream-forked-from": "/v1/stream/base", "stream-fork-offset": f"{1:016d}"})
            await (await ask.node.streams.open("fork")).append(b"three")
            await ask.json("PUT", path_of("fork", "consumers", "billing"), status=201)
            assert (await ask("DELETE", "/v1/stream/base")).status == 204
            base, fork = (await ask.json("GET", "/v1/streams"))["streams"]
            assert (base["name"], base["code"]) == ("base", "deleted")
            assert (fork["oldest"], fork["tail"], fork["labels"]["fork-offset"]) == (0, 2, "1")
            assert await ask.problem("GET", path_of("base")) == (410, "deleted")
            # Its records are those of its source, and its own; a consumer has its own, and trimming lets go of them alone.
            records = (await ask.json("GET", path_of("fork", "records")))["records"]
            assert [(each["position"], each["data"]) for each in records] == [(0, "one"), (1, "three")]
            got = (await ask.json("POST", path_of("fork", "consumers", "billing", "fetch")))["records"]
            assert [each["position"] for each in got] == [1]
            assert await ask.json("POST", path_of("fork", "trim"), {"before": 1}) == {"oldest": 0, "tail": 2}
            assert await ask.json("POST", path_of("fork", "trim"), {"before": 2}) == {"oldest": 2, "tail": 2}

    run_virtual(main)


def test_usage_shows_each_disk_and_the_first_cause_of_what_is_wrong_with_it(expected_logs: Any) -> None:
    expected_logs("/full")
    files = disk_in_memory("/full", "/well")

    async def main() -> None:
        async with asking(files, "/full", "/well") as ask:
            orders = await ask.node.streams.create("orders", volume="/full")
            await ask.node.streams.create("others", volume="/well")
            before = await ask.json("GET", "/v1/usage")
            assert [volume["state"] for volume in before["volumes"]] == ["up", "up"]
            files.fill()
            await fill(orders)
            full, _ = (await ask.json("GET", "/v1/usage"))["volumes"]
            assert (full["name"], full["state"], full["kind"]) == ("/full", "down", "exhausted")
            assert full["cause"]
            assert full["since_s"] >= 0
            assert (full["streams"], full["backlog"]) == (1, {"appends": 0, "bytes": 0})
            assert full["total_bytes"] >= full["available_bytes"] >= 0

    run_virtual(main)


def test_a_stream_called_usage_is_a_stream() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            for name in ("usage", "verify", "records"):
                await ask.node.streams.create(name)
                assert (await ask.json("GET", path_of(name)))["name"] == name

    run_virtual(main)


def test_head_has_the_headers_of_get_and_no_body() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            await ask.node.streams.create("orders")
            whole, head = await ask("GET", "/v1/streams"), await ask("HEAD", "/v1/streams")
            assert (head.status, head.headers, head.body) == (200, whole.headers, b"")

    run_virtual(main)


@pytest.mark.parametrize(
    ("method", "target", "answer"),
    [
        ("GET", "/", (404, "no such path")),
        ("GET", "/v1/stream", (404, "no such path")),
        ("GET", "/v1/streams/orders/", (404, "no such path")),
        ("GET", "/v1/streams/orders/nothing", (404, "no such path")),
        ("GET", "/v1/streams/orders/consumers/a/nothing", (404, "no such path")),
        ("GET", "/v1/streams/a/b", (404, "no such path")),
        ("GET", "/v1/streams/", (400, "name")),
        ("GET", "/v1/streams/%00", (400, "name")),
        ("GET", "/v1/streams/%ff", (400, "name")),
        ("GET", "/v1/streams/a%2F..%2Fb", (400, "name")),
        ("GET", "/v1/streams/" + "x" * 1025, (400, "name")),
        ("GET", "/v1/streams/orders/consumers/%ff", (400, "name")),
        ("GET", "/v1/streams/orders/consumers/%0a", (400, "name")),
        ("GET", "/v1/streams/orders/consumers/" + "x" * 201, (400, "name")),
        ("GET", "/v1/streams/nobody", (404, "no such stream")),
        ("GET", "/v1/streams?limit=0", (400, "field")),
        ("GET", "/v1/streams?limit=-1", (400, "field")),
        ("GET", "/v1/streams?limit=%D9%A1", (400, "field")),
        ("GET", "/v1/streams?limit=1&limit=2", (400, "repeated parameter")),
        ("GET", "/v1/streams?prefix=%ff", (400, "query")),
        ("DELETE", "/v1/streams/orders", (405, "method")),
        ("GET", "/v1/verify", (405, "method")),
        ("POST", "/v1/usage", (405, "method")),
        ("POST", "/v1/streams", (405, "method")),
    ],
)
def test_what_is_not_there_or_not_right_is_refused_by_its_reason(method: str, target: str, answer: tuple[int, str]) -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            await ask.node.streams.create("orders")
            assert await ask.problem(method, target) == answer

    run_virtual(main)


def test_a_method_that_a_path_has_not_is_answered_with_those_that_it_has() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            await ask.node.streams.create("orders")
            exchange = await ask("POST", path_of("orders", "consumers", "billing"))
            assert (exchange.status, exchange.headers["allow"]) == (405, "DELETE, GET, PUT, HEAD")

    run_virtual(main)
