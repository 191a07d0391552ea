"""Long polls: what ends the wait, and what they cost while they wait."""

from __future__ import annotations

import asyncio

from node_rig import JSON, TEXT, offset, serving

from outlast.testing import run_virtual


async def settled(turns: int = 50) -> None:
    for _ in range(turns):
        await asyncio.sleep(0.001)


def test_records_that_are_there_are_returned_at_once() -> None:
    async def main() -> float:
        async with serving() as rig:
            await rig.put("a", TEXT, b"one")
            got = await rig.get("a?offset=-1&live=long-poll")
            assert (got.status, got.body, got.headers["stream-up-to-date"]) == (200, b"one", "true")
            assert got.headers["stream-cursor"].isdigit()
            return asyncio.get_running_loop().time()

    assert run_virtual(main) == 0


def test_records_that_come_end_the_wait_of_all_who_wait_by_one_read() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", JSON, b"[1]")
            polls = [rig.begin("GET", "a?offset=now&live=long-poll") for _ in range(100)]
            await settled()
            assert len(rig.node.pieces) == 1
            await rig.post("a", b"[2, 3]", JSON)
            for poll in polls:
                got = await poll.task
                assert (got.status, got.body, got.headers["stream-next-offset"]) == (200, b"[2,3]", offset(3))
            assert len(rig.node.pieces) == 0

    run_virtual(main)


def test_when_the_time_is_over_it_is_204_with_where_to_go_on() -> None:
    async def main() -> float:
        async with serving(long_poll_s=20.0) as rig:
            await rig.put("a", TEXT, b"one")
            got = await rig.get("a?offset=now&live=long-poll")
            assert (got.status, got.body, got.headers["stream-next-offset"]) == (204, b"", offset(1))
            assert got.headers["stream-up-to-date"] == "true"
            assert got.headers["cache-control"] == "no-store"
            assert got.headers["stream-cursor"].isdigit()
            assert len(rig.node.pieces) == 0
            return asyncio.get_running_loop().time()

    assert 18 <= run_virtual(main) <= 20


def test_those_who_began_together_do_not_come_back_together() -> None:
    async def main() -> set[float]:
        async with serving() as rig:
            await rig.put("a", TEXT)
            loop = asyncio.get_running_loop()
            polls = [rig.begin("GET", "a?offset=now&live=long-poll") for _ in range(50)]
            times = set[float]()
            for poll in polls:
                poll.task.add_done_callback(lambda _: times.add(loop.time()))
            await asyncio.wait([poll.task for poll in polls])
            return times

    times = run_virtual(main)
    assert len(times) > 30
    assert max(times) - min(times) > 1


def test_it_waits_no_longer_than_its_client_does() -> None:
    async def main() -> float:
        async with serving() as rig:
            await rig.put("a", TEXT)
            got = await rig.get("a?offset=now&live=long-poll", {"x-request-timeout": "2.5"})
            assert got.status == 204
            return asyncio.get_running_loop().time()

    assert run_virtual(main) == 2.5


def test_a_cursor_that_comes_back_is_never_given_again() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", TEXT, b"one")
            seen = int((await rig.get("a?offset=-1&live=long-poll")).headers["stream-cursor"])
            for _ in range(5):
                got = await rig.get(f"a?offset=-1&live=long-poll&cursor={seen}")
                seen, before = int(got.headers["stream-cursor"]), seen
                assert seen > before

    run_virtual(main)


def test_the_end_of_a_closed_stream_is_told_at_once_and_without_a_cursor() -> None:
    async def main() -> float:
        async with serving() as rig:
            await rig.put("a", TEXT, b"one")
            waiting = rig.begin("GET", "a?offset=now&live=long-poll")
            await asyncio.sleep(1)
            await rig.post("a", b"", {"stream-closed": "true"})
            for got in (await waiting.task, await rig.get("a?offset=now&live=long-poll")):
                assert (got.status, got.headers["stream-closed"], got.headers["stream-up-to-date"]) == (204, "true", "true")
                assert "stream-cursor" not in got.headers
            return asyncio.get_running_loop().time()

    assert run_virtual(main) == 1


def test_a_delete_ends_the_wait_with_404() -> None:
    async def main() -> float:
        async with serving() as rig:
            await rig.put("a", TEXT, b"one")
            polls = [rig.begin("GET", "a?offset=now&live=long-poll") for _ in range(10)]
            await asyncio.sleep(1)
            await rig.ask("DELETE", "a")
            await rig.put("a", TEXT, b"another")
            for poll in polls:
                got = await poll.task
                assert (got.status, got.json["code"]) == (404, "no such stream")
                assert not {"stream-up-to-date", "stream-closed"} & got.headers.keys()
            return asyncio.get_running_loop().time()

    assert run_virtual(main) == 1


def test_the_stop_ends_the_wait_with_503() -> None:
    async def main() -> float:
        async with serving() as rig:
            await rig.put("a", TEXT, b"one")
            poll = rig.begin("GET", "a?offset=now&live=long-poll")
            await asyncio.sleep(1)
            rig.stop.fire("SIGTERM")
            got = await poll.task
            assert (got.status, got.json["kind"], got.headers["connection"]) == (503, "stopping", "close")
            return asyncio.get_running_loop().time()

    assert run_virtual(main) == 1


def test_a_client_that_leaves_leaves_nothing_behind() -> None:
    async def main() -> float:
        async with serving() as rig:
            await rig.put("a", TEXT, b"one")
            before = asyncio.all_tasks()
            polls = [rig.begin("GET", "a?offset=now&live=long-poll") for _ in range(100)]
            for turns, poll in enumerate(polls):
                for _ in range(turns % 8):
                    await asyncio.sleep(0)
                await poll.leave()
                assert not poll.exchange.sent
            assert len(rig.node.pieces) == 0
            await settled()
            assert asyncio.all_tasks() == before
            assert (await rig.node.find("a")).readers == 0
            assert rig.node.counts.readers["long-poll"] == 0
            return asyncio.get_running_loop().time()

    assert run_virtual(main) < 1


def test_one_that_leaves_takes_nothing_from_the_others() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", TEXT, b"one")
            leaving, staying = (rig.begin("GET", "a?offset=now&live=long-poll") for _ in range(2))
            await settled()
            await leaving.leave()
            await rig.post("a", b"two")
            assert (await staying.task).body == b"two"

    run_virtual(main)


def test_records_that_were_let_go_of_before_the_next_poll_are_410() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", TEXT, b"one")
            poll = rig.begin("GET", "a?offset=now&live=long-poll")
            await settled()
            await rig.post("a", b"two")
            await poll.task
            await (await rig.streams.open("a")).trim(2)
            got = await rig.get(f"a?offset={offset(1)}&live=long-poll")
            assert (got.status, got.json["oldest"]) == (410, offset(2))

    run_virtual(main)
