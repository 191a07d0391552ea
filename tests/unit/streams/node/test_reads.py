"""GET without waiting: what an answer has, and what it says about the end."""

from __future__ import annotations

import asyncio

import pytest
from node_rig import JSON, TEXT, offset, serving

from outlast.testing import run_virtual


def test_an_answer_has_all_there_is_and_says_so() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", TEXT, b"one")
            await rig.post("a", b" two")
            whole = await rig.get("a")
            assert (whole.status, whole.body) == (200, b"one two")
            assert whole.headers["stream-next-offset"] == offset(2)
            assert whole.headers["stream-up-to-date"] == "true"
            assert whole.headers["cache-control"] == "no-store"
            assert whole.headers["content-type"] == "text/plain"
            assert (await rig.get("a?offset=-1")).body == b"one two"
            assert (await rig.get(f"a?offset={offset(1)}")).body == b" two"
            end = await rig.get(f"a?offset={offset(2)}")
            assert (end.status, end.body, end.headers["stream-up-to-date"]) == (200, b"", "true")

    run_virtual(main)


def test_a_part_is_not_up_to_date_and_may_be_cached() -> None:
    async def main() -> None:
        async with serving(chunk_bytes=10) as rig:
            await rig.put("a", TEXT, b"0123456789")
            await rig.post("a", b"x")
            part = await rig.get("a")
            assert (part.body, part.headers["stream-next-offset"]) == (b"0123456789", offset(1))
            assert "stream-up-to-date" not in part.headers
            assert part.headers["cache-control"] == "private, max-age=60"

    run_virtual(main)


def test_the_end_of_a_closed_stream_is_told_with_the_last_records_only() -> None:
    async def main() -> None:
        async with serving(chunk_bytes=4) as rig:
            await rig.put("a", TEXT, b"0123")
            await rig.post("a", b"4567")
            await rig.post("a", b"", {"stream-closed": "true"})
            first, last = await rig.get("a"), await rig.get(f"a?offset={offset(1)}")
            assert "stream-closed" not in first.headers
            assert (last.body, last.headers["stream-closed"]) == (b"4567", "true")
            end = await rig.get(f"a?offset={offset(2)}")
            assert (end.status, end.body, end.headers["stream-closed"]) == (200, b"", "true")

    run_virtual(main)


@pytest.mark.parametrize(("headers", "empty"), [(TEXT, b""), (JSON, b"[]")])
def test_now_is_the_tail_and_never_cached(headers: dict[str, str], empty: bytes) -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", headers, b"[1]")
            now = await rig.get("a?offset=now")
            assert (now.status, now.body, now.headers["stream-next-offset"]) == (200, empty, offset(1))
            assert now.headers["cache-control"] == "no-store"
            assert "etag" not in now.headers

    run_virtual(main)


@pytest.mark.parametrize("live", ["", "&live=long-poll", "&live=sse"])
def test_a_position_beyond_the_tail_is_refused_with_oldest_and_tail(live: str) -> None:
    async def main() -> float:
        async with serving() as rig:
            await rig.put("a", TEXT, b"0")
            for _ in range(100):
                await rig.post("a", b"x")
            await rig.ask("DELETE", "a")
            await rig.put("a", TEXT, b"0")
            stream = await rig.streams.open("a")
            await stream.append([b"1"] * 9)
            await stream.trim(3)
            refused = await rig.get(f"a?offset={offset(100)}{live}")
            assert (refused.status, refused.json["code"]) == (400, "beyond the tail")
            assert (refused.json["oldest"], refused.json["tail"]) == (offset(3), offset(10))
            gone = await rig.get(f"a?offset={offset(2)}{live}")
            assert (gone.status, gone.json["code"]) == (410, "trimmed")
            assert (gone.headers["stream-oldest-offset"], gone.headers["stream-next-offset"]) == (offset(3), offset(10))
            return asyncio.get_running_loop().time()

    assert run_virtual(main) == 0, "nobody waited"


@pytest.mark.parametrize(
    "query",
    [
        "offset=",
        "offset=0",
        "offset=%EF%BC%91%EF%BC%92",
        "offset=+000000000000001",
        "offset=-2",
        "offset=0000000000000001,2",
        "offset=00000000000000001",
        f"offset={'9' * 5000}",
        "offset=9999999999999999",
        "offset=-1&offset=-1",
        "offset=NOW",
        "live=sse",
        "live=long-poll",
        "offset=-1&live=",
        "offset=-1&live=SSE",
        "offset=-1&live=poll",
        "offset=%FF",
    ],
)
def test_what_is_no_offset_and_no_mode_is_refused(query: str) -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", TEXT, b"0")
            refused = await rig.get(f"a?{query}")
            assert (refused.status, refused.json["kind"]) == (400, "rejected")

    run_virtual(main)


def test_an_unknown_parameter_is_passed_over() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", TEXT, b"0")
            assert (await rig.get("a?offset=-1&wherefore=7&cursor=nonsense")).body == b"0"

    run_virtual(main)


def test_a_stream_that_is_not_there_is_404_in_every_mode() -> None:
    async def main() -> None:
        async with serving() as rig:
            for live in ("", "&live=long-poll", "&live=sse"):
                missing = await rig.get(f"a?offset=now{live}")
                assert (missing.status, missing.json["code"]) == (404, "no such stream")

    run_virtual(main)


def test_the_tag_answers_304_until_anything_is_new() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", TEXT, b"one")
            first = await rig.get("a")
            again = await rig.get("a", {"if-none-match": first.headers["etag"]})
            assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
            assert again.headers["stream-next-offset"] == offset(1)
            await rig.post("a", b"two")
            newer = await rig.get("a", {"if-none-match": first.headers["etag"]})
            assert (newer.status, newer.body) == (200, b"onetwo")
            await rig.post("a", b"", {"stream-closed": "true"})
            closed = await rig.get("a", {"if-none-match": newer.headers["etag"]})
            assert (closed.status, closed.headers["stream-closed"]) == (200, "true")
            end = f"a?offset={offset(2)}"
            assert (await rig.get(end, {"if-none-match": (await rig.get(end)).headers["etag"]})).status == 304
            await (await rig.streams.open("a")).trim(1)
            trimmed = await rig.get("a", {"if-none-match": closed.headers["etag"]})
            assert (trimmed.status, trimmed.body) == (200, b"two")
            assert (await rig.get(f"a?offset={offset(0)}", {"if-none-match": closed.headers["etag"]})).status == 410

    run_virtual(main)


def test_the_tag_of_a_deleted_stream_is_none_of_the_next() -> None:
    async def main() -> None:
        async with serving() as rig:
            tags = set[str]()
            for _ in range(3):
                await rig.put("a", TEXT, b"same")
                tags.add((await rig.get("a")).headers["etag"])
                await rig.ask("DELETE", "a")
            assert len(tags) == 3

    run_virtual(main)


def test_an_answer_from_before_a_delete_is_told_apart_from_those_after_it() -> None:
    async def main() -> None:
        async with serving(chunk_bytes=4) as rig:
            answers = []
            for _ in range(2):
                await rig.put("a", TEXT, b"same")
                await rig.post("a", b"more")
                answers.append((await rig.get("a"), await rig.get(f"a?offset={offset(1)}")))
                await rig.ask("DELETE", "a")
            (below, at_end), (below_again, at_end_again) = answers
            assert below.body == below_again.body
            assert below.headers["etag"] != below_again.headers["etag"], "what may be kept names its incarnation"
            assert {at_end.headers["cache-control"], at_end_again.headers["cache-control"]} == {"no-store"}
            await rig.put("a", TEXT, b"same")
            await rig.post("a", b"more")
            assert (await rig.get("a", {"if-none-match": below.headers["etag"]})).status == 200
            old = await rig.get(f"a?offset={offset(3)}", {"cache-control": "no-cache"})
            assert (old.status, old.json["tail"]) == (400, offset(2)), "an offset from a longer past is refused with the tail"

    run_virtual(main)


def test_a_head_never_has_a_body_and_its_headers_are_those_of_a_get() -> None:
    async def main() -> None:
        async with serving() as rig:
            missing, of_get = await rig.ask("HEAD", "a"), await rig.get("a")
            assert (missing.status, missing.body) == (404, b"")
            assert missing.headers["content-type"] == of_get.headers["content-type"]
            await rig.put("a", TEXT, b"one")
            await rig.post("a", b"", {"stream-closed": "true"})
            head, whole = await rig.ask("HEAD", "a"), await rig.get("a")
            assert (head.status, head.body) == (200, b"")
            for name in ("content-type", "stream-next-offset", "stream-closed"):
                assert head.headers[name] == whole.headers[name]

    run_virtual(main)


def test_a_long_body_breaks_off_when_its_stream_is_deleted() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", {}, bytes(1_000_000))
            reading = rig.begin("GET", "a")
            reading.exchange.before_send = lambda: len(reading.exchange.sent) == 2 and reading.exchange.stop_reading()
            while len(reading.exchange.sent) < 2:
                await asyncio.sleep(0.01)
            await rig.ask("DELETE", "a")
            reading.exchange.read_on()
            await reading.task
            assert reading.cut
            assert not reading.exchange.ended
            assert 0 < len(reading.exchange.body) < 1_000_000

    run_virtual(main)


def test_a_stream_of_the_process_s_own_is_served_whatever_its_labels_mean_there() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.streams.create("a", labels={"ttl": "soon", "expires-at": "tomorrow", "owner": "billing"}, records=[b"\x00"])
            got = await rig.get("a")
            assert (got.status, got.body, got.headers["content-type"]) == (200, b"\x00", "application/octet-stream")

    run_virtual(main)
