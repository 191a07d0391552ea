"""POST: what is stored, what is refused for what it is, and in which order that is decided."""

from __future__ import annotations

import asyncio

import pytest
from node_parts import GONE, NodeClient, producer, served
from store_parts import data, disk_in_memory

from outlast.streams import Chunk, DamagedError
from outlast.streams._node.served import Served
from outlast.testing import run_virtual


async def stored(client: NodeClient, name: str = "orders") -> list[bytes]:
    return await data(await client.node.streams.open(name))


def test_each_append_is_one_record_whose_end_is_answered() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            await client.put("orders")
            got = await client.post("orders", b"one")
            assert (got.status, got.body, got.next) == (204, b"", "0000000000000001")
            assert "content-length" not in got.headers
            got = await client.post("orders", [b"t", b"", b"wo"], content_type="Text/Plain; charset=x")
            assert (got.status, got.next) == (204, "0000000000000002")
            assert await stored(client) == [b"one", b"two"]

    run_virtual(main)


def test_messages_of_json_are_records_byte_for_byte_also_after_a_restart() -> None:
    files = disk_in_memory()
    sent = b'[9007199254740993, 1.0, 1E2, -0, 1e400, {"a":1,"a":2}]'
    read = b'[9007199254740993,1.0,1E2,-0,1e400,{"a":1,"a":2}]'

    async def write() -> None:
        async with served(files) as client:
            await client.put("orders", content_type="application/json")
            assert (await client.post("orders", sent, "application/json")).next == "0000000000000006"
            assert (await client.get("orders")).body == read

    async def again() -> None:
        async with served(files) as client:
            assert (await client.get("orders")).body == read

    run_virtual(write)
    run_virtual(again)


def test_two_appends_at_once_have_two_ends_and_both_are_there() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            await client.put("orders")
            got = await asyncio.gather(*(client.post("orders", b"abc") for _ in range(2)))
            assert sorted(each.next for each in got) == ["0000000000000001", "0000000000000002"]
            whole = await client.get("orders")
            assert (whole.body, whole.next) == (b"abcabc", "0000000000000002")
            for each in got:
                assert (await client.get("orders", f"?offset={each.next}")).status == 200

    run_virtual(main)


def test_an_empty_append_is_refused_in_every_shape() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            await client.put("orders")
            await client.put("json", content_type="application/json")
            for name, body, content_type in (
                ("orders", b"", "text/plain"),
                ("orders", [b""], "text/plain"),
                ("json", b"", "application/json"),
                ("json", b"[]", "application/json"),
                ("json", b" [\n] ", "application/json"),
            ):
                assert (await client.post(name, body, content_type)).status == 400
                assert (await client.post(name, body, content_type, **producer("p", 0, 0))).status == 400
            assert await stored(client) == await stored(client, "json") == []
            # An empty message is a message.
            assert (await client.post("json", b'[""]', "application/json")).next == "0000000000000001"

    run_virtual(main)


@pytest.mark.parametrize(
    ("content_type", "status"), [(None, 400), ("", 400), ("text", 400), ("application/json", 409), ("text/html", 409)]
)
def test_an_append_of_another_type_is_refused_before_it_is_read(content_type: str | None, status: int) -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            await client.put("orders")
            headers = {} if content_type is None else {"content_type": content_type}
            refused = await client("POST", "/v1/stream/orders", b"x", **headers)
            assert (refused.status, refused.problem["code"], refused.reads) == (status, "content type", 0)
            refused = await client("POST", "/v1/stream/orders", [b"x"], **headers)
            assert (refused.status, refused.problem["code"]) == (status, "content type")
            assert await stored(client) == []

    run_virtual(main)


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate", "GZIP", "identity, gzip"])
def test_a_body_that_is_encoded_is_never_unpacked_nor_read(encoding: str) -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            await client.put("orders")
            for method, name in (("POST", "orders"), ("PUT", "others")):
                refused = await client(
                    method, f"/v1/stream/{name}", b"x" * 1000, content_type="text/plain", content_encoding=encoding
                )
                assert (refused.status, refused.problem["code"], refused.reads) == (415, "encoded body", 0)
            assert (await client.post("orders", b"x", content_encoding="identity")).status == 204
            assert client.node.streams.names() == ["orders"]
            assert await stored(client) == [b"x"]

    run_virtual(main)


def test_a_body_over_the_limit_is_refused_by_its_length_or_where_it_gets_too_long() -> None:
    async def main() -> None:
        async with served(disk_in_memory(), body_bytes_max=10) as client:
            await client.put("orders")
            assert (await client.post("orders", b"x" * 10)).status == 204
            refused = await client.post("orders", b"x" * 11)
            assert (refused.status, refused.problem["code"], refused.reads) == (413, "too large", 0)
            refused = await client.post("orders", [b"x" * 6, b"x" * 6, b"x"])
            assert (refused.status, refused.reads) == (413, 2)
            assert (await client.post("orders", [b"x" * 11])).status == 413
            assert (await client.post("orders", b"x", raw=[(b"content-length", b"1")])).status == 400
            assert (await client.put("others", b"x" * 11)).status == 413
            assert await stored(client) == [b"x" * 10]

    run_virtual(main)


def test_a_client_that_leaves_in_the_middle_of_its_body_has_appended_nothing() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            await client.put("orders")
            assert (await client.post("orders", [b"half", GONE])).status == 0
            assert (await client.post("orders", [GONE])).status == 0
            assert await stored(client) == []

    run_virtual(main)


def test_a_header_that_decides_something_comes_once() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            await client.put("orders")
            lines = [(b"content-type", b"text/plain"), (b"host", b"x"), (b"stream-seq", b"2"), (b"x-request-timeout", b"9")]
            for line in lines:
                refused = await client.post("orders", b"x", raw=[line], stream_seq="1", x_request_timeout="9")
                assert (refused.status, refused.problem["code"]) == (400, "repeated header")
            many = [(b"accept", b"a/b"), (b"accept", b"c/d"), (b"x-made-up", b"1"), (b"x-made-up", b"2")]
            assert (await client.post("orders", b"x", raw=many)).status == 204
            assert await stored(client) == [b"x"]

    run_virtual(main)


def test_json_is_looked_through_in_one_step_and_bounded_for_that() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            await client.put("json", content_type="application/json")
            body = b'"' + b"x" * (4 << 20) + b'"'
            for refused in (
                await client.post("json", body, "application/json"),
                await client.put("new", body, "application/json"),
            ):
                assert (refused.status, refused.problem["code"], refused.reads) == (413, "too large", 0)
            assert (await client.post("json", body[3:-1] + b'"', "application/json")).status == 400
            assert (await client.post("json", b'"' + body[3:], "application/json")).status == 204
            assert (await client.put("text", body)).status == 201

    run_virtual(main)


def test_a_page_of_another_site_cannot_make_a_browser_append() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            await client.put("orders")
            await client.put("json", content_type="application/json")
            for headers in ({"content_type": "text/plain;charset=UTF-8"}, {}):
                refused = await client("POST", "/v1/stream/orders", b"x", sec_fetch_site="cross-site", **headers)
                assert (refused.status, refused.problem["code"], refused.reads) == (403, "cross site", 0)
            assert await stored(client) == []
            # Its own pages may, and so may those that somebody in front has allowed when the browser asked.
            assert (await client.post("orders", b"x", sec_fetch_site="same-origin")).status == 204
            assert (await client.post("json", b"1", "application/json", sec_fetch_site="cross-site")).status == 204

    run_virtual(main)


# Closing.


def test_a_stream_is_closed_by_an_empty_post_or_with_its_last_record() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            for name in ("a", "b"):
                await client.put(name)
            got = await client("POST", "/v1/stream/a", b"", stream_closed="True", content_type="application/json")
            assert (got.status, got.headers["stream-closed"], got.next) == (204, "true", "0000000000000000")
            got = await client.post("b", b"last", stream_closed="true")
            assert (got.status, got.headers["stream-closed"], got.next) == (204, "true", "0000000000000001")
            again = await client("POST", "/v1/stream/b", b"", stream_closed="true")
            assert (again.status, again.headers["stream-closed"], again.next) == (204, "true", "0000000000000001")
            assert await stored(client, "b") == [b"last"]

    run_virtual(main)


def test_a_closed_stream_says_so_before_anything_else_and_reads_no_body() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            await client.put("orders", b"x", stream_closed="true")
            for headers in ({}, {"content_type": "application/json"}, {"stream_seq": "0"}, {"stream_closed": "true"}):
                refused = await client("POST", "/v1/stream/orders", b"y", **{"content_type": "text/plain", **headers})
                assert (refused.status, refused.problem["code"], refused.reads) == (409, "stream closed", 0)
                assert (refused.headers["stream-closed"], refused.next) == ("true", "0000000000000001")
            refused = await client.post("orders", [b"y"], stream_closed="true")
            assert (refused.status, refused.headers["stream-closed"]) == (409, "true")

    run_virtual(main)


# Producers.


def test_a_producer_stores_once_and_a_duplicate_is_told_the_highest_sequence() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            await client.put("orders")
            for sequence in range(3):
                got = await client.post("orders", b"%d" % sequence, **producer("p", 0, sequence))
                assert (got.status, got.headers["producer-seq"], got.headers["producer-epoch"]) == (200, str(sequence), "0")
            got = await client.post("orders", b"other", **producer("p", 0, 1))
            assert (got.status, got.headers["producer-seq"], got.next) == (204, "2", "0000000000000002")
            assert await stored(client) == [b"0", b"1", b"2"]

    run_virtual(main)


def test_gaps_old_epochs_and_new_ones_that_do_not_begin_at_0_are_refused_with_their_own_statuses() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            await client.put("orders")
            refused = await client.post("orders", b"x", **producer("p", 5, 3))
            assert (refused.status, refused.headers["producer-expected-seq"]) == (409, "0")
            await client.post("orders", b"x", **producer("p", 5, 0))
            refused = await client.post("orders", b"x", **producer("p", 5, 2))
            assert (refused.status, refused.problem["code"]) == (409, "sequence")
            assert (refused.headers["producer-expected-seq"], refused.headers["producer-received-seq"]) == ("1", "2")
            refused = await client.post("orders", b"x", **producer("p", 4, 0))
            assert (refused.status, refused.problem["code"], refused.headers["producer-epoch"]) == (403, "fenced", "5")
            refused = await client.post("orders", b"x", **producer("p", 6, 1))
            assert refused.status == 400
            assert await stored(client) == [b"x"]

    run_virtual(main)


@pytest.mark.parametrize(
    "text", ["", "+1", "1_0", " 7 ", "-0", "-1", "007", "1.0", "1e3", "1abc", "\xb2", "9" * 5000, str(2**53)]
)
def test_a_number_of_a_producer_has_ascii_digits_up_to_2_to_the_53_less_1(text: str) -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            await client.put("orders")
            for headers in (producer("p", 0, text), producer("p", text, 0)):
                refused = await client.post("orders", b"x", **headers)
                assert (refused.status, refused.problem["code"], refused.reads) == (400, "producer", 0)
            assert await stored(client) == []

    run_virtual(main)


def test_the_headers_of_a_producer_come_together() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            await client.put("orders")
            whole = producer("p", 0, 0)
            for name in whole:
                for headers in ({name: whole[name]}, {other: whole[other] for other in whole if other != name}):
                    assert (await client.post("orders", b"x", **headers)).status == 400
            assert (await client.post("orders", b"x", **producer("", 0, 0))).status == 400
            for name in ("p" * 257, "\xe4", "a\tb", "a\x7fb", "\xc2\x85"):
                assert (await client.post("orders", b"x", **producer(name, 0, 0))).status == 400
            assert await stored(client) == []
            assert (await client.post("orders", b"x", **producer("\xc3\xa4" * 128, 0, 0))).status == 200

    run_virtual(main)


def test_the_last_numbers_are_taken_and_none_beyond_also_after_a_restart() -> None:
    files = disk_in_memory()
    last = 2**53 - 1

    async def write() -> None:
        async with served(files) as client:
            await client.put("orders")
            assert (await client.post("orders", b"x", **producer("p", last, 0))).status == 200
            producers = (await client.node.streams.open("orders"))._held.log.producers
            # Nobody sends so many: the state is made old instead.
            state = producers._states["p"]
            producers._states["p"] = type(state)(state.id, state.epoch, last - 2, state.time_us, state.appends)
            for sequence in (last - 1, last):
                got = await client.post("orders", b"x", **producer("p", last, sequence))
                assert (got.status, got.headers["producer-seq"]) == (200, str(sequence))
            assert (await client.post("orders", b"x", **producer("p", last, last + 1))).status == 400
            assert (await client.post("orders", b"x", **producer("p", last + 1, 0))).status == 400

    async def again() -> None:
        async with served(files) as client:
            got = await client.post("orders", b"x", **producer("p", last, last - 1))
            assert (got.status, got.headers["producer-seq"], got.headers["producer-epoch"]) == (204, str(last), str(last))
            assert await stored(client) == [b"x"] * 3

    run_virtual(write)
    run_virtual(again)


def test_a_retry_is_answered_the_same_before_and_after_a_restart_although_its_record_is_gone() -> None:
    files = disk_in_memory()
    answers: list[tuple[int, dict[str, str]]] = []

    async def write() -> None:
        async with served(files) as client:
            await client.put("orders")
            await client.post("orders", b"x", **producer("p", 0, 0))
            await client.post("orders", b"y")
            await (await client.node.streams.open("orders")).trim(2)
            got = await client.post("orders", b"x", **producer("p", 0, 0))
            answers.append((got.status, got.headers))

    async def again() -> None:
        async with served(files) as client:
            got = await client.post("orders", b"x", **producer("p", 0, 0))
            answers.append((got.status, got.headers))
            assert (await client.head("orders")).next == "0000000000000002"

    run_virtual(write)
    run_virtual(again)
    assert answers[0] == answers[1]
    assert answers[0][0] == 204


def test_a_producer_that_closes_is_answered_as_before_when_it_asks_again_and_others_that_it_is_closed() -> None:
    files = disk_in_memory()

    async def check(client: NodeClient) -> None:
        for body in (b"last", b"something else"):
            got = await client.post("orders", body, stream_closed="true", **producer("p", 1, 0))
            assert (got.status, got.headers["stream-closed"], got.next) == (204, "true", "0000000000000002")
        for headers in (producer("p", 1, 1), producer("p", 1, 7), producer("q", 0, 0), producer("q", 0, 3)):
            refused = await client.post("orders", b"x", stream_closed="true", **headers)
            assert (refused.status, refused.headers["stream-closed"]) == (409, "true")
        assert await stored(client) == [b"first", b"last"]
        got = await client("POST", "/v1/stream/empty", b"", stream_closed="true", **producer("p", 0, 0))
        assert (got.status, got.headers["stream-closed"], got.headers["producer-seq"]) == (204, "true", "0")

    async def write() -> None:
        async with served(files) as client:
            await client.put("orders", b"first")
            await client.put("empty")
            got = await client.post("orders", b"last", stream_closed="true", **producer("p", 1, 0))
            assert (got.status, got.headers["stream-closed"], got.next) == (200, "true", "0000000000000002")
            got = await client("POST", "/v1/stream/empty", b"", stream_closed="true", **producer("p", 0, 0))
            assert (got.status, got.headers["stream-closed"]) == (204, "true")
            await check(client)

    async def again() -> None:
        async with served(files) as client:
            await check(client)

    run_virtual(write)
    run_virtual(again)


# Stream-Seq.


def test_a_stream_seq_has_to_rise_as_bytes_compare() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            await client.put("orders")
            for seq, status in (
                ("2", 204),
                ("10", 409),
                ("2", 409),
                ("a", 204),
                ("B", 409),
                ("\xe4", 204),
                ("", 400),
                ("z" * 257, 400),
            ):
                got = await client.post("orders", seq.encode("latin-1") or b"-", stream_seq=seq)
                assert (seq, got.status) == (seq, status)
                assert got.status == 204 or got.problem["code"] == "stream seq"
            assert await stored(client) == [b"2", b"a", b"\xe4"]

    run_virtual(main)


def test_a_retry_of_a_producer_is_a_duplicate_before_its_stream_seq_is_looked_at() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            await client.put("orders")
            for status in (200, 204):
                assert (await client.post("orders", b"x", stream_seq="1", **producer("p", 0, 0))).status == status
            assert (await client.post("orders", b"x", stream_seq="0", **producer("p", 0, 1))).status == 409
            assert (await client.post("orders", b"x", stream_seq="2", **producer("p", 0, 1))).status == 200

    run_virtual(main)


def test_writers_that_race_are_stored_in_the_order_of_their_stream_seq() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            await client.put("orders")
            seqs = [f"{number % 16:02}" for number in range(0, 80, 5)]
            got = await asyncio.gather(*(client.post("orders", seq.encode(), stream_seq=seq) for seq in seqs))
            taken = await stored(client)
            assert taken == sorted(set(taken))
            assert len(taken) == sum(each.status == 204 for each in got)

    run_virtual(main)


def test_the_highest_stream_seq_outlives_the_process_and_appends_without_one() -> None:
    files = disk_in_memory()

    async def write() -> None:
        async with served(files) as client:
            await client.put("orders", content_type="application/json")
            await client.post("orders", b"[1,2]", "application/json", stream_seq="5\xe4")
            await asyncio.gather(
                client.post("orders", b"[3,4]", "application/json", stream_seq="6"),
                client.post("orders", b"5", "application/json"),
            )

    async def again() -> None:
        async with served(files) as client:
            assert (await client.post("orders", b"6", "application/json", stream_seq="6")).status == 409
            assert (await client.post("orders", b"6", "application/json", stream_seq="7")).status == 204
            assert (await client.get("orders")).body == b"[1,2,3,4,5,6]"

    run_virtual(write)
    run_virtual(again)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_many_who_are_the_first_after_a_restart_look_once_for_the_highest_stream_seq(
    monkeypatch: pytest.MonkeyPatch,
    is_damaged: bool,  # noqa: FBT001 - a case
) -> None:
    files = disk_in_memory()
    looked: list[int] = []
    fetch = Served.fetch

    async def counted(self: Served, position: int, bytes_max: int, wait_s: float = 0.0) -> Chunk:
        looked.append(position)
        if is_damaged:
            raise DamagedError(self.name, "1.seg", position, "a bit has changed")
        return await fetch(self, position, bytes_max, wait_s)

    async def write() -> None:
        async with served(files) as client:
            await client.put("orders", b"0")
            await client.post("orders", b"1", stream_seq="5")

    async def again() -> None:
        async with served(files) as client:
            monkeypatch.setattr(Served, "fetch", counted)
            got = await asyncio.gather(*(client.post("orders", b"2", stream_seq=seq) for seq in ("4", "5", "6")))
            # Where the last record is damaged nobody knows what was the highest, and appends go on.
            assert [each.status for each in got] == ([204, 204, 204] if is_damaged else [409, 409, 204])
            assert looked == [1]

    run_virtual(write)
    run_virtual(again)
