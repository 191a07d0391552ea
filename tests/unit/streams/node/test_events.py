"""Streams of events: what a reader is sent, how each ends, and that a thousand readers are one follower."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
import sse_reader
from node_rig import JSON, TEXT, Open, Rig, offset, serving
from store_parts import disk_in_memory, opened

from outlast.streams import Node
from outlast.streams._node.live import events, pieces
from outlast.streams._node.served import Served
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from asgi_exchange import Exchange
    from outlast.streams._model import Chunk


async def settled(turns: int = 50) -> None:
    for _ in range(turns):
        await asyncio.sleep(0.001)


async def reading(rig: Rig, target: str = "a?offset=-1&live=sse") -> Open:
    opened = rig.begin("GET", target)
    await settled()
    return opened


def data(exchange: Exchange) -> list[bytes]:
    return sse_reader.of(exchange.body, "data")


def controls(exchange: Exchange) -> list[dict[str, object]]:
    found = sse_reader.controls(exchange.body)
    for control in found:
        cursor = control.pop("streamCursor", None)
        assert (cursor is None) == control.get("streamClosed", False)
    return found


def test_a_reader_gets_what_there_is_and_what_comes() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", TEXT, b"one")
            reader = await reading(rig)
            await rig.post("a", b"two\nthree")
            await settled()
            exchange = reader.exchange
            assert data(exchange) == [b"one", b"two\nthree"]
            assert controls(exchange) == [{"streamNextOffset": offset(position), "upToDate": True} for position in (1, 2)]
            assert exchange.headers["content-type"] == "text/event-stream"
            for name, value in (
                ("cache-control", "no-cache, no-store"),
                ("x-accel-buffering", "no"),
                ("x-content-type-options", "nosniff"),
            ):
                assert exchange.headers[name] == value
            assert "stream-sse-data-encoding" not in exchange.headers
            assert "content-length" not in exchange.headers
            await reader.leave()

    run_virtual(main)


def test_what_is_no_text_comes_in_base64() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", {"content-type": "image/png"}, b"\x89PNG\r\n\x1a\n")
            reader = await reading(rig)
            assert [base64.b64decode(each) for each in data(reader.exchange)] == [b"\x89PNG\r\n\x1a\n"]
            assert reader.exchange.headers["stream-sse-data-encoding"] == "base64"
            await reader.leave()

    run_virtual(main)


def test_messages_come_as_arrays() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", JSON, b'[9007199254740993, {"a":1,"a":2}]')
            reader = await reading(rig)
            assert data(reader.exchange) == [b'[9007199254740993,{"a":1,"a":2}]']
            await reader.leave()

    run_virtual(main)


@pytest.mark.parametrize("headers", [TEXT, {"content-type": "application/octet-stream"}])
def test_an_empty_stream_is_told_to_be_up_to_date(headers: dict[str, str]) -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", headers)
            for target in ("a?offset=-1&live=sse", "a?offset=now&live=sse"):
                reader = await reading(rig, target)
                assert data(reader.exchange) == []
                assert controls(reader.exchange) == [{"streamNextOffset": offset(0), "upToDate": True}]
                await reader.leave()

    run_virtual(main)


def test_a_reader_that_is_behind_is_not_told_to_be_up_to_date() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", TEXT, bytes(40_000))
            for _ in range(2):
                await rig.post("a", bytes(40_000))
            reader = await reading(rig)
            assert [control.get("upToDate", False) for control in controls(reader.exchange)] == [False, False, True]
            await reader.leave()

    run_virtual(main)


def test_a_close_is_told_with_the_last_records_and_ends_the_stream() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", TEXT, b"one")
            waiting = await reading(rig)
            await rig.post("a", b"two", {**TEXT, "stream-closed": "true"})
            late = await reading(rig)
            at_end = await reading(rig, "a?offset=now&live=sse")
            for reader in (waiting, late, at_end):
                exchange = await reader.task
                assert exchange.ended
                assert controls(exchange)[-1] == {"streamNextOffset": offset(2), "upToDate": True, "streamClosed": True}
            assert b"".join(data(waiting.exchange)) == b"".join(data(late.exchange)) == b"onetwo"
            assert data(at_end.exchange) == []

    run_virtual(main)


def test_it_ends_after_a_while_with_where_to_go_on() -> None:
    async def main() -> list[float]:
        async with serving(sse_s=60.0) as rig:
            await rig.put("a", TEXT, b"one")
            ended = list[float]()
            for _ in range(5):
                began = asyncio.get_running_loop().time()
                exchange = await rig.get("a?offset=-1&live=sse&cursor=5")
                ended.append(asyncio.get_running_loop().time() - began)
                assert exchange.ended
                assert controls(exchange) == 2 * [{"streamNextOffset": offset(1), "upToDate": True}]
                assert exchange.body.count(b":\n\n") == 3, "a comment after each 15 s of silence"
            assert (await rig.node.find("a")).readers == 0
            assert rig.node.counts.readers["sse"] == 0
            return ended

    ended = run_virtual(main)
    assert all(54 <= seconds <= 60 for seconds in ended)
    assert len(set(ended)) == 5, "those who came together do not come back together"


def test_a_cursor_never_goes_back() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", TEXT, b"one")
            reader = await reading(rig, "a?offset=-1&live=sse&cursor=99999999")
            await rig.post("a", b"two")
            await settled()
            first, second = (int(control["streamCursor"]) for control in sse_reader.controls(reader.exchange.body))
            assert 99_999_999 < first <= second
            await reader.leave()

    run_virtual(main)


def test_a_delete_is_told_and_breaks_off() -> None:
    async def main() -> float:
        async with serving() as rig:
            await rig.put("a", TEXT, b"one")
            readers = [rig.begin("GET", "a?offset=-1&live=sse") for _ in range(10)]
            await asyncio.sleep(1)
            await rig.ask("DELETE", "a")
            await rig.put("a", TEXT, b"another")
            for reader in readers:
                exchange = await reader.task
                (error,) = sse_reader.of(exchange.body, "error")
                assert (json.loads(error)["status"], json.loads(error)["code"]) == (404, "no such stream")
                assert sse_reader.events(exchange.body)[-1].event == "error"
                assert reader.cut
                assert not exchange.ended
                assert data(exchange) == [b"one"]
            return asyncio.get_running_loop().time()

    assert run_virtual(main) == 1


def test_a_delete_of_what_has_forks_is_told_in_the_same_way() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", TEXT, b"one")
            await rig.put("fork", {"stream-forked-from": "/v1/stream/a"})
            readers = [await reading(rig) for _ in range(3)]
            of_fork = await reading(rig, "fork?offset=-1&live=sse")
            poll = rig.begin("GET", "a?offset=now&live=long-poll")
            await settled()
            await rig.ask("DELETE", "a")
            for reader in readers:
                (error,) = map(json.loads, sse_reader.of((await reader.task).body, "error"))
                assert (error["status"], error["code"]) == (410, "deleted")
                assert reader.cut
                assert not reader.exchange.ended
            assert (await poll.task).status == 410
            await rig.post("fork", b"two")
            await settled()
            assert data(of_fork.exchange) == [b"one", b"two"]
            await of_fork.leave()

    run_virtual(main)


def test_what_was_let_go_of_under_a_reader_is_told_with_the_oldest_position() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", TEXT, b"0" * 70_000)
            stream = await rig.streams.open("a")
            for number in range(1, 6):
                await stream.append(b"%d" % number * 70_000)
            other = await reading(rig)
            reader = rig.begin("GET", "a?offset=-1&live=sse")
            reader.exchange.before_send = lambda: b"data:0" in reader.exchange.body and reader.exchange.stop_reading()
            await settled()
            await stream.trim(4)
            reader.exchange.before_send = lambda: None
            reader.exchange.read_on()
            exchange = await reader.task
            assert [each[:1] for each in data(exchange)] == [b"0"], "no jump over what is missing"
            (error,) = map(json.loads, sse_reader.of(exchange.body, "error"))
            assert (error["code"], error["oldest"]) == ("trimmed", offset(4))
            assert reader.cut
            assert len(data(other.exchange)) == 6, "what that one was sent is in memory, and served to nobody any more"
            await other.leave()

    run_virtual(main)


def test_the_stop_ends_it_whole() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", TEXT, b"one")
            reader = await reading(rig)
            rig.stop.fire("SIGTERM")
            exchange = await reader.task
            assert exchange.ended
            assert not reader.cut
            assert b": stopping\n" in exchange.body
            assert sse_reader.of(exchange.body, "error") == []

    run_virtual(main)


def test_a_store_that_lets_its_readers_go_ends_it_whole() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", TEXT, b"one")
            reader = await reading(rig)
            poll = rig.begin("GET", "a?offset=now&live=long-poll")
            await settled()
            await rig.streams._let_followers_go()
            exchange = await reader.task
            assert exchange.ended
            assert not reader.cut
            assert not {"streamClosed"} & controls(exchange)[-1].keys()
            assert ((await poll.task).status, poll.exchange.json["kind"]) == (503, "stopping")

    run_virtual(main)


def test_where_too_many_wait_a_reader_is_told_and_the_others_stay() -> None:
    async def main() -> None:
        async with opened(disk_in_memory(), followers_max=1) as streams:
            rig = Rig(Node(streams), streams)
            for name in "ab":
                await rig.put(name, TEXT, b"one")
            first = await reading(rig, "a?offset=now&live=sse")
            second = await reading(rig, "a?offset=now&live=sse")
            other = await reading(rig, "b?offset=now&live=sse")
            (error,) = map(json.loads, sse_reader.of((await other.task).body, "error"))
            assert (error["status"], error["code"]) == (503, "followers full")
            assert (await rig.get("b?offset=now&live=long-poll")).status == 503
            await rig.post("a", b"two")
            await settled()
            assert data(first.exchange) == data(second.exchange) == [b"two"]
            await first.leave()
            await second.leave()

    run_virtual(main)


@pytest.mark.expected_logs("is damaged at position 1")
def test_damage_is_told_with_where_to_go_on() -> None:
    async def main() -> None:
        files = disk_in_memory()
        async with serving(files) as rig:
            await rig.put("a", TEXT, b"0" * 70_000)
            for number in range(1, 3):
                await rig.post("a", b"%d" % number * 70_000)
            (segment,) = (path for path, content in files.tree().items() if b"1" * 70_000 in (content or b""))
            files.flip(segment, 8 * files.read(segment).index(b"1" * 1000))
            reader = await reading(rig)
            exchange = await reader.task
            assert [each[:1] for each in data(exchange)] == [b"0"]
            (error,) = map(json.loads, sse_reader.of(exchange.body, "error"))
            assert (error["code"], error["position"], error["next"]) == ("damaged", offset(1), offset(2))
            assert reader.cut

    run_virtual(main)


def test_a_thousand_readers_are_one_follower_and_one_event(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[int]()
    whole = pieces.data_frame
    monkeypatch.setattr(pieces, "data_frame", lambda records, **how: made.append(len(records)) or whole(records, **how))

    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", TEXT)
            readers = [rig.begin("GET", "a?offset=now&live=sse") for _ in range(1000)]
            await settled()
            stream = await rig.streams.open("a")
            assert len(rig.node.pieces) == 1
            for number in range(10):
                await stream.append(b"%d" % number)
                await asyncio.sleep(0.1)
            assert made == [1] * 10
            bodies = {each["body"] for reader in readers for each in reader.exchange.sent if b"data:5\n" in each.get("body", b"")}
            assert len(bodies) == 1
            for reader in readers:
                assert data(reader.exchange) == [b"%d" % number for number in range(10)]
                reader.exchange.leave()
            await asyncio.wait([reader.task for reader in readers])
            assert len(rig.node.pieces) == 0
            assert (await rig.node.find("a")).readers == 0
            assert rig.node.counts.readers["sse"] == 0

    run_virtual(main)


def test_a_reader_that_falls_behind_is_caught_up_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = list[int]()
    fetch = Served.fetch

    def counted(served: Served, position: int, bytes_max: int, wait_s: float = 0.0) -> Coroutine[Any, Any, Chunk]:
        fetched.append(position)
        return fetch(served, position, bytes_max, wait_s)

    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", TEXT)
            quick, slow = await reading(rig), await reading(rig)
            slow.exchange.stop_reading()
            monkeypatch.setattr(Served, "fetch", counted)
            for number in range(20):
                await rig.post("a", b"%d" % number)
                await settled(5)
            slow.exchange.read_on()
            await settled()
            assert data(slow.exchange) == data(quick.exchange) == [b"%d" % number for number in range(20)]
            assert fetched == list(range(1, 21)), "each piece is read once, for both"
            await quick.leave()
            await slow.leave()

    run_virtual(main)


def test_a_reader_that_does_not_read_is_dropped_and_the_others_go_on() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", TEXT)
            stuck, other = await reading(rig), await reading(rig)
            stuck.exchange.stop_reading()
            for _ in range(120):
                await rig.post("a", bytes(1000))
                await asyncio.sleep(0.1)
            assert stuck.task.done()
            assert stuck.cut
            assert not stuck.exchange.ended
            assert len(data(other.exchange)) == 120
            assert (await rig.node.find("a")).readers == 1
            await other.leave()

    run_virtual(main)


def test_a_long_event_is_sent_in_slices_each_of_which_has_its_time() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", {}, bytes(1_000_000))
            reader = await reading(rig)
            exchange = reader.exchange
            assert max(len(message.get("body", b"")) for message in exchange.sent) == events.SLICE_BYTES
            assert [base64.b64decode(each) for each in data(exchange)] == [bytes(1_000_000)]
            await reader.leave()

    run_virtual(main)


@pytest.mark.parametrize("turns", range(0, 24, 3))
def test_a_client_that_leaves_leaves_nothing_behind_whenever_it_leaves(turns: int) -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", TEXT, b"one")
            before = asyncio.all_tasks()
            reader = rig.begin("GET", "a?offset=-1&live=sse")
            for _ in range(turns):
                await asyncio.sleep(0)
            await reader.leave()
            await settled()
            assert asyncio.all_tasks() == before
            assert len(rig.node.pieces) == 0
            assert (await rig.node.find("a")).readers == 0
            assert rig.node.counts.readers["sse"] == 0

    run_virtual(main)
