"""Appends of a client: what is sent again and what is not, and what is said when nobody knows."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from typing import Any

import pytest
from client_site import Site

from outlast import ConfigurationError, Fault, Kind, Stopping, Unavailable
from outlast.admission import Throttle
from outlast.streams import (
    AppendTooLargeError,
    ClientStream,
    ExpiredError,
    FencedError,
    LimitError,
    OutcomeUnknownError,
    Producer,
    SequenceError,
    StreamClosedError,
    StreamError,
    StreamNotFoundError,
)
from outlast.streams._client import writing
from outlast.streams._client.decisions.sequences import Sequences
from outlast.testing import run_virtual

pytestmark = pytest.mark.expected_logs


async def made(site: Site, **options: Any) -> ClientStream:
    client = site.made(**options)
    return await client.create("orders")


def test_an_append_whose_answer_was_lost_is_sent_again_and_stored_once() -> None:
    async def main() -> None:
        site = Site()
        orders = await made(site)
        site.script = [site.lose, site.lose, site.drop, None]
        sent = await orders.append(b"one")
        assert (sent.duplicate, sent.next) == (True, "ab")
        assert (await orders.append(b"two")).duplicate is False
        assert site.streams["orders"].records == [b"one", b"two"]
        identities = [request.headers["producer-seq"] for request in site.asked("POST")]
        assert identities == ["0", "0", "0", "0", "1"]

    run_virtual(main)


def test_without_a_producer_what_may_have_arrived_is_unknown_and_never_sent_again() -> None:
    async def main() -> None:
        site = Site()
        orders = await made(site)
        site.script = [site.lose]
        with pytest.raises(OutcomeUnknownError, match="orders") as caught:
            await orders.append(b"one", producer=None)
        assert caught.value.producer is None
        assert len(site.asked("POST")) == 1
        assert site.streams["orders"].records == [b"one"]
        site.script = [site.refuse, None]
        await orders.append(b"two", producer=None)
        assert len(site.asked("POST")) == 3, "a connection that was refused has carried nothing"

    run_virtual(main)


def test_what_is_not_known_at_the_deadline_is_unknown_whatever_the_last_answer_was() -> None:
    async def main() -> None:
        site = Site()
        orders = await made(site)
        site.script = [site.lose]
        site.always = site.say(507, "ENOSPC", "exhausted", detail="disk full", retry_after_s=1.0)
        with pytest.raises(OutcomeUnknownError) as caught:
            await orders.append(b"one", deadline_s=8.0)
        assert caught.value.producer is not None
        assert len(site.asked("POST")) > 2
        site.always = None
        sent = await orders.append(b"one", producer=caught.value.producer)
        assert sent.duplicate, "the same identity finds out"
        assert site.streams["orders"].records == [b"one"]

    run_virtual(main)


def test_data_that_follows_an_unknown_append_is_never_taken_for_it() -> None:
    async def main() -> None:
        site = Site()
        orders = await made(site)
        for lost in (True, False):
            before = list(site.streams["orders"].records)
            site.script = [site.lose if lost else site.drop]
            site.always = site.drop
            with pytest.raises(OutcomeUnknownError):
                await orders.append(b"in doubt", deadline_s=2.0)
            site.always = None
            assert not (await orders.append(b"next")).duplicate
            assert site.streams["orders"].records == [*before, *([b"in doubt"] if lost else []), b"next"]

    run_virtual(main)


def test_an_unknown_append_that_arrives_late_is_fenced_by_the_next_one() -> None:
    async def main() -> None:
        site = Site()
        orders = await made(site)
        site.script = [site.late]
        site.always = site.drop
        with pytest.raises(OutcomeUnknownError):
            await orders.append(b"late", deadline_s=2.0)
        site.always = None
        await orders.append(b"next")
        await asyncio.sleep(30.0)
        assert site.streams["orders"].records == [b"next"]

    run_virtual(main)


def test_a_cancelled_append_is_in_doubt_as_well() -> None:
    async def main() -> None:
        site = Site()
        orders = await made(site)
        await orders.append(b"one")
        site.script = [site.hang]
        task = asyncio.create_task(orders.append(b"two"))
        await asyncio.sleep(1.0)
        task.cancel()
        await asyncio.wait({task})
        await orders.append(b"three")
        assert [(r.headers["producer-epoch"], r.headers["producer-seq"]) for r in site.asked("POST")] == [
            ("0", "0"),
            ("0", "1"),
            ("1", "0"),
        ]

    run_virtual(main)


def test_a_server_that_has_forgotten_the_producer_gets_a_new_epoch() -> None:
    async def main() -> None:
        site = Site()
        orders = await made(site)
        await orders.append(b"one")
        await orders.append(b"two")
        site.streams["orders"].producers.clear()
        await orders.append(b"three")
        assert site.streams["orders"].records == [b"one", b"two", b"three"]
        await orders.delete()
        with pytest.raises(StreamNotFoundError):
            await orders.append(b"gone")

    run_virtual(main)


def test_a_full_disk_is_said_at_once_with_its_first_cause_and_then_from_memory() -> None:
    async def main() -> None:
        site = Site()
        orders = await made(site)
        full = site.say(507, "ENOSPC", "exhausted", detail="no space on /disk1", since_s=12.5, retry_after_s=2.0, free_bytes=0)
        site.always = full
        told = []
        for _ in range(50):
            with pytest.raises(Unavailable) as caught:
                await orders.append(b"one")
            told.append((caught.value.fault.kind.value, caught.value.fault.code, caught.value.fault.reason))
        assert set(told) == {("exhausted", "ENOSPC", "no space on /disk1")}
        posts = [time for request, time in zip(site.requests, site.times, strict=True) if request.method == "POST"]
        assert len(posts) < 25, "the others were answered from memory"
        assert all(later - time >= 2.0 for time, later in itertools.pairwise(posts)), "nobody asks before it is worth it"
        assert caught.value.since_s >= 12.5
        assert 0 < caught.value.retry_after_s <= 3.0
        site.always = None
        await asyncio.sleep(caught.value.retry_after_s)
        assert not (await orders.append(b"one")).duplicate
        assert site.streams["orders"].records == [b"one"]

    run_virtual(main)


def test_an_append_that_wants_to_wait_for_room_is_stored_when_there_is_some() -> None:
    async def main() -> None:
        site = Site()
        orders = await made(site)
        full = site.say(507, "ENOSPC", "exhausted", detail="no space", retry_after_s=1.0)
        site.script = [full, full, full, None]
        await orders.append(b"one", wait_for_room=True)
        assert site.streams["orders"].records == [b"one"]

    run_virtual(main)


def test_refusals_are_typed_as_in_the_process_and_never_retried() -> None:
    async def main() -> None:
        site = Site()
        orders = await made(site)
        cases = [
            (site.say(429, "limit", "exhausted", detail="quota", retry_after_s=60), LimitError),
            (site.say(413, "too large", "rejected", detail="?", limit=10), AppendTooLargeError),
            (site.plain(413), AppendTooLargeError),
            (site.plain(403, headers={"producer-epoch": "5"}), FencedError),
            (site.plain(409, headers={"stream-closed": "true"}), StreamClosedError),
            (site.plain(409), StreamError),
            (site.plain(400, b"no"), StreamError),
            (site.plain(404), StreamNotFoundError),
        ]
        for fault, kind in cases:
            count = len(site.asked("POST"))
            site.script = [fault]
            with pytest.raises(kind):
                await orders.append(b"one")
            assert len(site.asked("POST")) == count + 1, kind
        assert not (await orders.append(b"one")).duplicate
        assert site.asked("POST")[-1].headers["producer-seq"] == "0", "a refused sequence is free"
        assert site.streams["orders"].records == [b"one"]

    run_virtual(main)


def test_appends_of_one_stream_are_sent_one_after_the_other_in_their_order() -> None:
    async def main() -> None:
        site = Site()
        orders = await made(site)
        await asyncio.gather(*(orders.append(b"%d" % n) for n in range(10)))
        assert site.streams["orders"].records == [b"%d" % n for n in range(10)]

    run_virtual(main)


def test_what_stores_nothing_is_refused_before_it_is_sent() -> None:
    async def main() -> None:
        site = Site()
        client = site.made()
        orders = await client.create("orders")
        letters = await client.create("letters", content_type="application/json")
        for stream, data in ((orders, b""), (orders, ""), (letters, []), (letters, b"")):
            with pytest.raises(ValueError, match=r"append of no messages|at least one byte"):
                await stream.append(data)
        with pytest.raises(TypeError, match="bytes or text"):
            await orders.append({"id": 1})
        assert site.asked("POST") == []
        await letters.append([{"id": 1}, [2]])
        await letters.append({"id": 3}, close=True)
        assert site.streams["letters"].records == [b'{"id":1}', b"[2]", b'{"id":3}']
        assert site.streams["letters"].closed

    run_virtual(main)


def test_a_closing_append_that_was_lost_is_a_duplicate_and_not_an_error() -> None:
    async def main() -> None:
        site = Site()
        orders = await made(site)
        site.script = [site.lose]
        sent = await orders.append(b"last", close=True)
        assert (sent.duplicate, sent.closed) == (True, True)
        assert site.streams["orders"].records == [b"last"]
        await orders.close()

    run_virtual(main)


def test_an_identity_of_the_callers_own_is_sent_as_it_is() -> None:
    async def main() -> None:
        site = Site()
        orders = await made(site)
        identity = Producer("importer", 3, 0)
        assert not (await orders.append(b"one", producer=identity)).duplicate
        assert (await orders.append(b"one", producer=identity)).duplicate
        with pytest.raises(FencedError) as caught:
            await orders.append(b"two", producer=Producer("importer", 2, 1))
        assert (caught.value.epoch, caught.value.newest) == (2, 3)

    run_virtual(main)


def test_an_append_whose_turn_does_not_come_before_its_deadline_is_not_sent() -> None:
    async def main() -> None:
        site = Site()
        orders = await made(site)
        site.script = [site.hang]
        first = asyncio.create_task(orders.append(b"hangs", deadline_s=20.0))
        await asyncio.sleep(0.1)
        with pytest.raises(ExpiredError, match="was not sent"):
            await orders.append(b"late", deadline_s=5.0)
        with pytest.raises(ExpiredError, match="was not sent"):
            await orders.append(b"late", deadline_s=0.0)
        assert len(site.asked("POST")) == 1
        await first
        assert site.streams["orders"].records == [b"hangs"]
        with pytest.raises(ExpiredError, match="before it was sent"):
            await orders.append(b"late", deadline_s=0.0)
        assert b"late" not in site.streams["orders"].records

    run_virtual(main)


def test_appends_that_wait_for_their_turn_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "WAITING_MAX", 3)

    async def main() -> None:
        site = Site()
        orders = await made(site)
        tasks = [asyncio.create_task(orders.append(b"%d" % n)) for n in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="wait already"):
            await orders.append(b"too many")
        await asyncio.gather(*tasks)
        assert site.streams["orders"].records == [b"0", b"1", b"2", b"3"]

    run_virtual(main)


def test_the_streams_that_are_remembered_are_bounded_and_a_forgotten_one_gets_a_new_producer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        site = Site()
        client = site.made()
        writers = writing.Writers(lambda: Sequences(client._new_id), limit=2)
        monkeypatch.setattr(client, "_writers", writers)
        streams = [await client.create(f"s{n}") for n in range(3)]
        for _ in range(2):
            for stream in streams:
                await stream.append(b"x")
        assert len(writers._by_name) == 2
        assert len({request.headers["producer-id"] for request in site.asked("POST")}) == 6
        assert [kept.records for kept in site.streams.values()] == [[b"x", b"x"]] * 3

    run_virtual(main)


def test_a_delete_whose_answer_was_lost_is_looked_after_and_not_sent_again() -> None:
    async def main() -> None:
        site = Site()
        orders = await made(site)
        site.script = [site.lose]
        await orders.delete()
        assert len(site.asked("DELETE")) == 1
        orders = await made(site)
        site.script = [site.drop]
        with pytest.raises(OutcomeUnknownError):
            await orders.delete()
        assert "orders" in site.streams, "another one might have made it meanwhile"
        site.script = [site.refuse]
        await orders.delete()
        assert site.streams == {}

    run_virtual(main)


def test_a_create_whose_answer_was_lost_does_not_say_that_it_was_there_before() -> None:
    async def main() -> None:
        site = Site()
        client = site.made()
        site.script = [site.lose]
        with pytest.raises(OutcomeUnknownError, match="made by this or before"):
            await client.create("orders")
        site.script = [site.lose]
        await client.create("bills", data=b"x", exist_ok=True)
        assert site.streams["bills"].records == [b"x"]

    run_virtual(main)


def test_what_the_server_refuses_too_often_is_refused_here() -> None:
    async def main() -> None:
        site = Site()
        client = site.made(throttle=Throttle(k=1.0))
        orders = await client.create("orders")
        site.always = site.say(429, "rate", "overloaded", detail="too many", retry_after_s=0.1)
        for _ in range(20):
            with pytest.raises(Unavailable) as caught:
                await orders.append(b"x", deadline_s=3.0)
            assert caught.value.fault.kind is Kind.OVERLOADED
        assert client._asking.throttler.refused > len(site.asked("POST")) // 2

    run_virtual(main)


def test_a_client_that_is_closed_ends_what_is_under_way_and_leaves_it_in_doubt() -> None:
    async def main() -> None:
        site = Site()
        client = site.made()
        async with client:
            orders = await client.create("orders")
            site.script = [site.hang]
            task = asyncio.create_task(orders.append(b"x"))
            await asyncio.sleep(1.0)
            await client.close()
            with pytest.raises(Stopping):
                await task
            assert client._writers.get("orders").sequences.in_doubt

    run_virtual(main)


def test_a_server_that_knows_no_producer_twice_is_told_to_the_caller() -> None:
    async def main() -> None:
        site = Site()
        orders = await made(site)
        gap = site.plain(409, headers={"producer-expected-seq": "7"})
        site.script = [gap, gap]
        with pytest.raises(SequenceError) as caught:
            await orders.append(b"x")
        assert (caught.value.sequence, caught.value.expected) == (0, 7)
        assert len(site.asked("POST")) == 2
        await orders.append(b"x", sequence="0001")
        assert site.asked("POST")[-1].headers["stream-seq"] == "0001"

    run_virtual(main)


def test_those_in_line_behind_a_refusal_are_refused_with_it() -> None:
    async def main() -> None:
        site = Site()
        orders = await made(site)
        site.always = site.say(507, "ENOSPC", "exhausted", detail="full", retry_after_s=5.0)
        told = await asyncio.gather(*(orders.append(b"%d" % n) for n in range(10)), return_exceptions=True)
        assert {type(each) for each in told} == {Unavailable}
        assert len(site.asked("POST")) == 1

    run_virtual(main)


def test_a_call_that_gets_no_connection_is_unavailable_and_was_not_sent() -> None:
    async def main() -> None:
        site = Site()
        client = site.made(connections_max=1)
        orders, bills = await client.create("orders"), await client.create("bills")
        site.script = [site.hang]
        first = asyncio.create_task(orders.append(b"hangs", deadline_s=60.0))
        await asyncio.sleep(0.1)
        with pytest.raises(Unavailable, match="in use") as caught:
            await bills.append(b"x", deadline_s=3.0)
        assert caught.value.fault.kind is Kind.OVERLOADED
        await first
        assert site.streams["bills"].records == []

    run_virtual(main)


@pytest.mark.parametrize("name", ["", "a/../b", ".", "a\nb", "x" * 1025, "\x7f"])
def test_a_name_that_would_be_another_in_a_url_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"name"):
        Site().made().stream(name)


def test_names_travel_encoded_and_a_server_may_have_its_streams_elsewhere() -> None:
    async def main() -> None:
        site = Site()
        client = site.made(prefix="streams/v2/")
        for name in ("a/b c", "é?#%", "a//b/"):
            with pytest.raises(StreamNotFoundError):
                await client.stream(name).head()
        assert [request.url.raw_path for request in site.requests] == [
            b"/streams/v2/a/b%20c",
            b"/streams/v2/%C3%A9%3F%23%25",
            b"/streams/v2/a//b/",
        ]

    run_virtual(main)


def test_a_client_says_what_cannot_work_and_shows_no_secret() -> None:
    with pytest.raises(ConfigurationError, match="attempt_s"):
        Site().made(attempt_s=0.0)
    client = Site().made(token="secret")
    assert (repr(client), repr(client.stream("orders"))) == ("<Client node up>", "<ClientStream 'orders'>")


def test_clients_that_were_refused_together_do_not_come_back_together() -> None:
    full = Unavailable("node", Fault(Kind.EXHAUSTED, "ENOSPC", "full", "node"), 0.0, 5.0)
    counts: Counter[int] = Counter()
    for number in range(1000):
        writer = writing.Writer(Sequences(lambda: "p"))
        writer.remember(full, 100.0, random.Random(number))
        assert writer.refused(105.0) is not None
        assert writer.refused(107.5) is None
        counts[int((writer.refused_until - 105.0) * 10)] += 1
    # 1,000 within 2.5 s are 40 in each tenth of a second.
    assert max(counts.values()) <= 3 * 40
    assert len(counts) == 25
