"""`verify` over HTTP, and what a node shows of itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from beside_parts import asking
from store_parts import disk_in_memory, entered

import outlast
from asgi_exchange import Exchange
from outlast.disk import Disk
from outlast.streams import Node, Streams
from outlast.testing import run_virtual


def test_a_check_reads_all_and_says_what_is_damaged() -> None:
    files = disk_in_memory("/a", "/b")

    async def main() -> None:
        async with asking(files, "/a", "/b") as ask:
            orders = await ask.node.streams.create("orders", volume="/a")
            await orders.append(b"x" * 1000)
            await orders.append(b"y" * 1000)
            whole = await ask.json("POST", "/v1/verify")
            assert (whole["is_healthy"], [volume["volume"] for volume in whole["volumes"]]) == (True, ["/a", "/b"])
            assert (whole["volumes"][0]["streams"], whole["volumes"][0]["records"]) == (1, 2)
            folder = f"/a/streams/{orders.id}"
            # In the first of two frames: the last one may be under way.
            (segment,) = [name for name in files.names(folder) if name.endswith(".log")]
            files.flip(f"{folder}/{segment}", 8 * (len(files.read(f"{folder}/{segment}")) - 1500))
            damaged = await ask.json("POST", "/v1/verify", {"volume": "/a"})
            (volume,) = damaged["volumes"]
            (finding,) = volume["findings"]
            assert (damaged["is_healthy"], finding["stream"], finding["position"], volume["findings_left_out"]) == (
                False,
                "orders",
                0,
                0,
            )
            assert (await ask.json("POST", "/v1/verify", {"volume": "/b"}))["is_healthy"]
            assert await ask.problem("POST", "/v1/verify", {"volume": "/c"}) == (404, "no such volume")
            assert await ask.problem("POST", "/v1/verify", {"repair": True}) == (400, "unknown field")
            assert await ask.problem("POST", "/v1/verify", {"volume": 1}) == (400, "field")

    run_virtual(main)


def test_one_check_runs_at_a_time_also_when_its_client_has_left() -> None:
    files = disk_in_memory()

    async def main() -> None:
        async with asking(files) as ask:
            orders = await ask.node.streams.create("orders")
            await orders.append(b"x")
            with files.hang("read_at", path="*.log") as hang:
                exchange, checking = ask.begin("POST", "/v1/verify")
                await entered(hang)
                assert await ask.problem("POST", "/v1/verify") == (409, "check under way")
                exchange.leave()
                await checking
                assert exchange.sent == []
                assert await ask.problem("POST", "/v1/verify") == (409, "check under way")
            while (await ask("POST", "/v1/verify")).status == 409:
                await asyncio.sleep(1)
            assert (await ask.json("POST", "/v1/verify"))["is_healthy"]

    run_virtual(main)


def test_a_check_that_hangs_holds_up_no_stop() -> None:
    files = disk_in_memory()

    async def main() -> None:
        async with asking(files) as ask:
            await (await ask.node.streams.create("orders")).append(b"x")
            with files.hang("read_at", path="*.log") as hang:
                exchange, checking = ask.begin("POST", "/v1/verify")
                await entered(hang)
                ask.stop.fire("enough")
                await checking
                assert (exchange.status, exchange.json["code"]) == (503, "stopping")

    run_virtual(main)


def test_a_node_in_a_service_shows_few_figures_and_is_ready_when_the_service_is() -> None:
    async def main() -> int:
        files = disk_in_memory()
        service = outlast.Service("streams")
        streams = Streams(Disk("/disk", name="/disk", files=files), files=files)
        streams.attach(service)
        node = Node(streams).attach(service)
        assert node.shown in service.all_shown()
        with pytest.raises(outlast.ConfigurationError, match="is part of streams already"):
            node.attach(service)
        early = await Exchange("GET", "/readyz").run(node)
        assert (early.status, early.json["code"], early.headers["retry-after"]) == (503, "not ready", "1")
        assert (await Exchange("GET", "/livez").run(node)).status == 200

        @service.task()
        async def ask(stop: outlast.Stop) -> None:
            await service.until_ready()
            assert (await Exchange("GET", "/readyz").run(node)).json["ready"]
            await Exchange("GET", "/v1/stream/nobody").run(node)
            stop.fire("enough")
            await stop.wait()

        code = await service.run()
        late = await Exchange("GET", "/readyz").run(node)
        assert late.status == 503
        shown = {figure.name: dict(figure.samples) for figure in node.shown.figures()}
        assert shown["requests"] == {
            ("answered",): 2,
            ("rejected",): 1,
            ("refused",): 2,
            ("unknown",): 0,
            ("failed",): 0,
        }
        assert shown["readers"] == {("long-poll",): 0, ("sse",): 0}
        assert (node.shown.health().well, node.shown.lag(), node.shown.acts()) == (True, None, [])
        return code

    assert run_virtual(main) == 0


def test_readers_are_counted_while_they_wait() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            with ask.node.counts.reading("sse"):
                assert ask.node.counts.readers == {"long-poll": 0, "sse": 1}
            assert ask.node.counts.readers == {"long-poll": 0, "sse": 0}

    run_virtual(main)


def test_a_bug_is_counted_as_a_failure(monkeypatch: Any) -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:

            def names() -> list[str]:
                raise ZeroDivisionError

            monkeypatch.setattr(ask.node.streams, "names", names)
            with pytest.raises(ZeroDivisionError):
                await ask("GET", "/v1/streams")
            assert ask.node.counts.by_status == {500: 1}

    run_virtual(main)
