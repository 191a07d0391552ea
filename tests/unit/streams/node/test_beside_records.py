"""Records with their positions, waiting for them, and trimming."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from beside_parts import asking, path_of
from store_parts import disk_in_memory, entered, figures, fill

from asgi_exchange import Exchange
from outlast.streams import StreamOptions
from outlast.streams._node.answers import RefusalError
from outlast.streams._node.beside.asked import Asked
from outlast.streams._node.beside.checking import Checks
from outlast.streams._node.beside.waiting import waited
from outlast.streams._node.requests import Request
from outlast.testing import run_virtual

RECORDS = path_of("orders", "records")


def test_records_come_with_position_time_and_headers() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            orders = await ask.node.streams.create("orders")
            await orders.append([b"one", b"\xff", b""], headers=[{"kind": "test"}, {}, {}])
            found = await ask.json("GET", RECORDS)
            one, two, three = found["records"]
            assert (one["position"], one["data"], one["headers"]) == (0, "one", {"kind": "test"})
            assert one["time"].endswith("+00:00")
            assert (base64.b64decode(two["data_base64"]), "data" in two, "headers" in two) == (b"\xff", False, False)
            assert three["data"] == ""
            assert {key: found[key] for key in ("next", "closed", "oldest", "tail")} == {
                "next": 3,
                "closed": False,
                "oldest": 0,
                "tail": 3,
            }
            some = await ask.json("GET", f"{RECORDS}?from=1&limit=1")
            assert ([record["position"] for record in some["records"]], some["next"], some["tail"]) == ([1], 2, 3)
            assert (await ask.json("GET", f"{RECORDS}?from=3"))["records"] == []

    run_virtual(main)


def test_an_answer_is_bounded_however_much_there_is() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            orders = await ask.node.streams.create("orders")
            for _ in range(4):
                await orders.append([bytes(1000)] * 500)
            found = await ask.json("GET", f"{RECORDS}?limit=9999999")
            assert 1 <= len(found["records"]) < 2000
            assert found["next"] == len(found["records"])

    run_virtual(main)


def test_what_is_gone_and_what_never_was_are_told_apart() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            orders = await ask.node.streams.create("orders")
            await orders.append([b"x"] * 5)
            assert await ask.json("POST", path_of("orders", "trim"), {"before": 3}) == {"oldest": 3, "tail": 5}
            assert await ask.problem("GET", f"{RECORDS}?from=2") == (410, "trimmed")
            assert await ask.problem("GET", f"{RECORDS}?from=6&wait_s=5") == (400, "beyond the tail")
            # Without a position it begins at the oldest that is there.
            assert [record["position"] for record in (await ask.json("GET", RECORDS))["records"]] == [3, 4]
            assert await ask.problem("POST", path_of("orders", "trim"), {"before": 6}) == (400, "beyond the tail")

    run_virtual(main)


def test_who_waits_at_the_tail_gets_what_comes_or_nothing_in_the_end() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            orders = await ask.node.streams.create("orders")
            _, waiting = ask.begin("GET", f"{RECORDS}?wait_s=20")
            await asyncio.sleep(1)
            assert not waiting.done()
            await orders.append(b"x")
            assert [record["data"] for record in (await waiting).json["records"]] == ["x"]
            assert (await ask.json("GET", f"{RECORDS}?from=1&wait_s=0.5"))["records"] == []
            # At the end of a closed stream there is nothing to wait for.
            await orders.close()
            end = await ask.json("GET", f"{RECORDS}?from=1&wait_s=60")
            assert (end["records"], end["closed"]) == ([], True)

    run_virtual(main)


def test_who_leaves_while_it_waits_leaves_nothing_behind() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            await ask.node.streams.create("orders")
            exchange, waiting = ask.begin("GET", f"{RECORDS}?wait_s=50")
            await asyncio.sleep(1)
            exchange.leave()
            await waiting
            assert exchange.sent == []
            assert figures(ask.node.streams)["followers"] == {(): 0}

    run_virtual(main)


def test_who_waits_when_the_service_stops_is_told_so() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            await ask.node.streams.create("orders")
            exchange, waiting = ask.begin("GET", f"{RECORDS}?wait_s=50")
            await asyncio.sleep(1)
            ask.stop.fire("enough")
            await waiting
            assert (exchange.status, exchange.json["code"]) == (503, "stopping")

    run_virtual(main)


def test_what_does_not_come_long_after_the_wait_is_given_up() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            exchange = Exchange("GET", RECORDS, extensions={"outlast.stop": ask.stop})
            asked = Asked(Request(exchange.scope, exchange.receive, exchange.send, "orders"), ask.node, Checks())
            with pytest.raises(RefusalError) as refused:
                # As a read of a disk that hangs.
                await waited(asked, asyncio.Event().wait(), 5.0)
            problem = refused.value.problem
            assert (problem.status, problem.code, problem.retry_after_s) == (503, "slow", 60.0)
            assert "65 s, of which 5 s were asked for" in problem.detail

    run_virtual(main)


def test_a_trim_works_on_a_full_disk(expected_logs: Any) -> None:
    expected_logs("/disk")
    files = disk_in_memory()

    async def main() -> None:
        async with asking(files) as ask:
            orders = await ask.node.streams.create("orders", StreamOptions(segment_bytes=1 << 20))
            positions = await fill(orders)
            assert (await ask("PUT", path_of("orders", "consumers", "late"))).status == 201
            before = (await ask.json("GET", path_of("orders")))["size_bytes"]
            assert (await ask.json("POST", path_of("orders", "trim"), {"before": positions[-1]}))["oldest"] == positions[-1]
            assert (await ask.json("GET", path_of("orders")))["size_bytes"] < before

    run_virtual(main)


def test_a_trim_that_is_cut_off_by_a_stop_is_told_that_nobody_knows() -> None:
    files = disk_in_memory()

    async def main() -> None:
        async with asking(files) as ask:
            orders = await ask.node.streams.create("orders")
            await orders.append([b"x"] * 3)
            with files.hang("sync_data", path="*meta*") as hang:
                exchange, trimming = ask.begin("POST", path_of("orders", "trim"), {"before": 2})
                await entered(hang)
                # As the server does when the time of the drain is over.
                trimming.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await trimming
            assert (exchange.status, exchange.json["code"]) == (504, "outcome unknown")

    run_virtual(main)


@pytest.mark.parametrize(
    "query",
    [
        "from=",
        "from=-1",
        "from=now",
        "from=+1",
        "from=01",
        "from=9007199254740992",
        "limit=0",
        "limit=x",
        "wait_s=",
        "wait_s=-1",
        "wait_s=1e3",
        "wait_s=nan",
        "wait_s=%EF%BC%91",
    ],
)
def test_what_is_no_number_is_refused(query: str) -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            await ask.node.streams.create("orders")
            assert await ask.problem("GET", f"{RECORDS}?{query}") == (400, "field")

    run_virtual(main)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "field"),
        (b"{}", "field"),
        (b"[]", "json"),
        (b"{", "json"),
        (b"\xff", "json"),
        (b'{"before": NaN}', "json"),
        (b'{"before": 1e999}', "json"),
        (b'{"before":' + b"1" * 5000 + b"}", "json"),
        (b"[" * 100_000, "json"),
        (b'{"before": 1.0}', "field"),
        (b'{"before": -1}', "field"),
        (b'{"before": true}', "field"),
        (b'{"before": "1"}', "field"),
        (b'{"before": 9007199254740992}', "field"),
        (b'{"before": 1, "Before": 2}', "unknown field"),
    ],
)
def test_a_body_that_is_not_right_changes_nothing(body: bytes, code: str) -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            orders = await ask.node.streams.create("orders")
            await orders.append([b"x"] * 3)
            assert await ask.problem("POST", path_of("orders", "trim"), body) == (400, code)
            assert orders.oldest == 0

    run_virtual(main)


def test_a_body_that_is_too_large_is_refused() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            await ask.node.streams.create("orders")
            assert await ask.problem("POST", path_of("orders", "trim"), b" " * ((1 << 20) + 1)) == (413, "too large")

    run_virtual(main)


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/json-seq", "json"]
)
@pytest.mark.parametrize(("method", "more"), [("POST", "trim"), ("POST", "consumers/a/fetch"), ("PUT", "consumers/a")])
def test_what_a_browser_sends_for_any_page_is_refused(method: str, more: str, content_type: str | None) -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            orders = await ask.node.streams.create("orders")
            headers = {} if content_type is None else {"content-type": content_type}
            exchange = Exchange(method, f"{path_of('orders')}/{more}", headers, body=b'{"before": 0}')
            await exchange.run(ask.node)
            assert (exchange.status, exchange.json["code"]) == (415, "content type")
            assert await orders.cursors() == ()

    run_virtual(main)
