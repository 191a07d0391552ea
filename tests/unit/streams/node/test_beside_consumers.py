"""Consumers over HTTP: what they are handed, and what they keep over a restart of the node."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from beside_parts import Asker, asking, path_of
from store_parts import disk_in_memory, fill

from outlast.testing import run_virtual

BILLING = path_of("orders", "consumers", "billing")


async def with_records(ask: Asker, count: int = 3) -> None:
    orders = await ask.node.streams.create("orders", exist_ok=True)
    await orders.append([b"%d" % number for number in range(count)])


async def positions(ask: Asker, body: object = b"") -> list[int]:
    return [record["position"] for record in (await ask.json("POST", f"{BILLING}/fetch", body))["records"]]


def test_a_consumer_is_made_once_and_shows_where_it_is() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            await with_records(ask)
            assert await ask.problem("GET", BILLING) == (404, "no such consumer")
            made = await ask.json("PUT", BILLING, {"start": 1}, status=201)
            assert made == {
                "stream": "orders",
                "consumer": "billing",
                "next": 1,
                "lag": 2,
                "open": 0,
                "skipped": 0,
                "set_aside": [],
            }
            assert await ask.json("PUT", BILLING, {"start": 2}) == made
            assert await ask.json("GET", BILLING) == made
            assert (await ask.json("GET", path_of("orders", "consumers")))["consumers"] == [made]

    run_virtual(main)


def test_what_is_acknowledged_is_done_and_what_is_not_comes_again_after_its_lease() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            await with_records(ask)
            await ask.json("PUT", BILLING, {"lease_s": 5}, status=201)
            got = await ask.json("POST", f"{BILLING}/fetch", {"records_max": 2})
            assert [(each["position"], each["data"], each["deliveries"]) for each in got["records"]] == [(0, "0", 1), (1, "1", 1)]
            assert got["lag"] == 3
            assert await positions(ask) == [2]
            await ask.json("POST", f"{BILLING}/acknowledge", {"positions": [1, 2]}, status=204)
            await asyncio.sleep(3)
            assert await ask.json("POST", f"{BILLING}/renew", {"positions": [0, 1]}) == {"positions": [0]}
            await asyncio.sleep(3)
            assert await positions(ask) == []
            await asyncio.sleep(3)
            (again,) = (await ask.json("POST", f"{BILLING}/fetch"))["records"]
            assert (again["position"], again["deliveries"]) == (0, 2)
            await ask.json("POST", f"{BILLING}/release", {"positions": [0]}, status=204)
            assert await positions(ask) == [0]
            await ask.json("POST", f"{BILLING}/acknowledge", {"positions": [0]}, status=204)
            assert (await ask.json("GET", BILLING))["lag"] == 0

    run_virtual(main)


def test_what_is_delivered_too_often_is_set_aside_and_can_be_put_back(expected_logs: Any) -> None:
    expected_logs("set aside")

    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            await with_records(ask, 1)
            await ask.json("PUT", BILLING, {"deliveries_max": 1}, status=201)
            assert await positions(ask) == [0]
            await ask.json("POST", f"{BILLING}/release", {"positions": [0]}, status=204)
            assert await positions(ask) == []
            assert (await ask.json("GET", BILLING))["set_aside"] == [[0, 1]]
            await ask.json("POST", f"{BILLING}/put_back", {"positions": [0]}, status=204)
            assert await positions(ask) == [0]

    run_virtual(main)


def test_after_a_restart_of_the_node_its_settings_are_asked_for_again_and_nothing_is_lost() -> None:
    files = disk_in_memory()

    async def before() -> None:
        async with asking(files) as ask:
            await with_records(ask)
            await ask.json("PUT", BILLING, {"lease_s": 300}, status=201)
            assert await positions(ask) == [0, 1, 2]
            await ask.json("POST", f"{BILLING}/acknowledge", {"positions": [1]}, status=204)

    async def after() -> None:
        async with asking(files) as ask:
            assert (await ask.json("GET", BILLING))["lag"] == 2
            for act in ("fetch", "renew", "release", "acknowledge", "put_back"):
                body = b"" if act == "fetch" else {"positions": [0]}
                assert await ask.problem("POST", f"{BILLING}/{act}", body) == (409, "consumer not in use")
            assert await ask.problem("POST", path_of("orders", "consumers", "others", "fetch")) == (404, "no such consumer")
            assert (await ask.json("PUT", BILLING, {"lease_s": 300}))["lag"] == 2
            assert await positions(ask) == [0, 2]

    run_virtual(before)
    run_virtual(after)


def test_one_that_is_in_use_with_other_settings_keeps_them() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            await with_records(ask)
            await ask.json("PUT", BILLING, {"lease_s": 5}, status=201)
            assert await ask.problem("PUT", BILLING, {"lease_s": 6}) == (409, "consumer settings")
            # Deleting it twice is the same as once, and one that is made then begins at the oldest.
            await ask.json("DELETE", BILLING, status=204)
            await ask.json("DELETE", BILLING, status=204)
            assert await ask.problem("POST", f"{BILLING}/fetch") == (404, "no such consumer")
            assert (await ask.json("PUT", BILLING, {"lease_s": 6}, status=201))["next"] == 0

    run_virtual(main)


def test_who_waits_for_records_gets_those_that_come_and_who_leaves_takes_none() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            orders = await ask.node.streams.create("orders")
            await ask.json("PUT", BILLING, status=201)
            gone, leaving = ask.begin("POST", f"{BILLING}/fetch", {"wait_s": 50})
            await asyncio.sleep(1)
            gone.leave()
            await leaving
            _, waiting = ask.begin("POST", f"{BILLING}/fetch", {"wait_s": 50})
            await asyncio.sleep(1)
            await orders.append(b"x")
            assert [record["position"] for record in (await waiting).json["records"]] == [0]
            assert (await ask.json("POST", f"{BILLING}/fetch", {"wait_s": 0.5}))["records"] == []
            exchange, waiting = ask.begin("POST", f"{BILLING}/fetch", {"wait_s": 50})
            await asyncio.sleep(1)
            ask.stop.fire("enough")
            await waiting
            assert (exchange.status, exchange.json["code"]) == (503, "stopping")

    run_virtual(main)


def test_a_stream_that_somebody_works_on_or_waits_at_is_not_idle() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            await ask.node.streams.create("orders", labels={"ttl": "10"})
            await ask.json("PUT", BILLING, status=201)
            for _ in range(3):
                await asyncio.sleep(8)
                assert await positions(ask) == []
            _, waiting = ask.begin("POST", f"{BILLING}/fetch", {"wait_s": 20})
            await asyncio.sleep(15)
            assert ask.node.counts.readers["long-poll"] == 1
            # Looking is no use of it.
            assert (await ask.json("GET", path_of("orders")))["tail"] == 0
            assert (await waiting).json["records"] == []
            assert ask.node.counts.readers["long-poll"] == 0
            await asyncio.sleep(8)
            assert (await ask.json("GET", path_of("orders", "records")))["records"] == []
            await asyncio.sleep(8)
            await ask.json("GET", path_of("orders"))
            await asyncio.sleep(8)
            assert await ask.problem("GET", path_of("orders")) == (404, "no such stream")

    run_virtual(main)


def test_nobody_waits_longer_than_the_client_does() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            await ask.node.streams.create("orders")
            await ask.json("PUT", BILLING, status=201)
            exchange, waiting = ask.begin("POST", f"{BILLING}/fetch", {"wait_s": 50})
            exchange.scope["headers"].append((b"x-request-timeout", b"2"))
            began = asyncio.get_running_loop().time()
            assert (await waiting).json["records"] == []
            assert asyncio.get_running_loop().time() - began == pytest.approx(2)

    run_virtual(main)


def test_a_consumer_of_a_closed_stream_is_told_when_it_has_had_all() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            await with_records(ask, 1)
            await (await ask.node.streams.open("orders")).close()
            await ask.json("PUT", BILLING, status=201)
            assert await positions(ask) == [0]
            await ask.json("POST", f"{BILLING}/acknowledge", {"positions": [0]}, status=204)
            assert await ask.problem("POST", f"{BILLING}/fetch", {"wait_s": 50}) == (409, "stream closed")

    run_virtual(main)


def test_on_a_full_disk_records_are_still_handed_out_and_acknowledged(expected_logs: Any) -> None:
    expected_logs("/disk")

    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            orders = await ask.node.streams.create("orders")
            await ask.json("PUT", BILLING, status=201)
            await fill(orders)
            assert await positions(ask, {"records_max": 1}) == [0]
            await ask.json("POST", f"{BILLING}/acknowledge", {"positions": [0]}, status=204)

    run_virtual(main)


def test_a_deleted_stream_takes_its_consumers_with_it() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            await with_records(ask)
            await ask.json("PUT", BILLING, status=201)
            waiting = [ask.begin("POST", f"{BILLING}/fetch", {"wait_s": 50})[1] for _ in range(2)]
            assert await positions(ask) in ([0, 1, 2], [])
            await ask.node.streams.delete("orders")
            late = (await asyncio.gather(*waiting))[1]
            assert (late.status, late.json["code"]) == (404, "no such stream")
            await with_records(ask)
            assert await ask.problem("POST", f"{BILLING}/fetch") == (404, "no such consumer")

    run_virtual(main)


@pytest.mark.parametrize(
    ("method", "act", "body"),
    [
        ("PUT", "", {"lease_s": 0}),
        ("PUT", "", {"lease_s": -1}),
        ("PUT", "", {"lease_s": "5"}),
        ("PUT", "", {"lease_s": True}),
        ("PUT", "", {"lease_s": 1e12}),
        ("PUT", "", {"deliveries_max": 0}),
        ("PUT", "", {"start": -1}),
        ("PUT", "", {"lease": 5}),
        ("POST", "/fetch", {"records_max": 0}),
        ("POST", "/fetch", {"records_max": 10_001}),
        ("POST", "/fetch", {"wait_s": -1}),
        ("POST", "/acknowledge", {}),
        ("POST", "/acknowledge", {"positions": []}),
        ("POST", "/acknowledge", {"positions": 0}),
        ("POST", "/acknowledge", {"positions": [0.0]}),
        ("POST", "/acknowledge", {"positions": [True]}),
        ("POST", "/acknowledge", {"positions": [-1]}),
        ("POST", "/acknowledge", {"positions": [0] * 16_385}),
        ("POST", "/acknowledge", {"positions": [1 << 53]}),
        # Never handed out.
        ("POST", "/acknowledge", {"positions": [2]}),
        ("POST", "/put_back", {"positions": ["0"]}),
    ],
)
def test_what_is_not_right_is_refused_and_changes_nothing(method: str, act: str, body: object) -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            await with_records(ask)
            await ask.json("PUT", BILLING, status=201)
            assert await positions(ask, {"records_max": 1}) == [0]
            before = await ask.json("GET", BILLING)
            status, _ = await ask.problem(method, BILLING + act, body)
            assert status == 400
            assert await ask.json("GET", BILLING) == before

    run_virtual(main)


def test_there_are_at_most_a_hundred_consumers_of_a_stream() -> None:
    async def main() -> None:
        async with asking(disk_in_memory()) as ask:
            await ask.node.streams.create("orders")
            for number in range(100):
                await ask.json("PUT", path_of("orders", "consumers", f"c{number}"), status=201)
            assert await ask.problem("PUT", BILLING) == (429, "limit")

    run_virtual(main)
