"""Forks: what they show, what they keep, and how their sources go."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import pytest
from node_rig import JSON, TEXT, Rig, offset, serving
from store_parts import disk_in_memory

from outlast import Stop
from outlast.streams._node import forks
from outlast.testing import run_virtual

ZERO = "0000000000000000_0000000000000000"


def of(source: str, at: str | int | None = None, sub: int | str | None = None, **more: str) -> dict[str, str]:
    """The headers of a PUT that makes a fork."""
    headers = {"stream-forked-from": f"/v1/stream/{source}", **more}
    if at is not None:
        headers["stream-fork-offset"] = offset(at) if isinstance(at, int) else at
    if sub is not None:
        headers["stream-fork-sub-offset"] = str(sub)
    return headers


async def text(rig: Rig, target: str) -> bytes:
    got = await rig.get(target)
    assert got.status == 200, got.body
    return got.body


async def statuses(rig: Rig, *targets: str) -> list[int]:
    return [(await rig.ask("HEAD", target)).status for target in targets]


async def chain(rig: Rig) -> None:
    """`a`, its fork `b`, and its fork `c`, with one record each."""
    await rig.put("a", body=b"A")
    await rig.put("b", of("a"))
    await rig.post("b", b"B")
    await rig.put("c", of("b"))
    await rig.post("c", b"C")


def test_a_fork_shows_its_source_up_to_its_offset_and_its_own_behind_it() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", body=b"one,")
            await rig.post("a", b"two,")
            made = await rig.put("f", of("a", 1))
            assert (made.headers["content-type"], made.headers["stream-next-offset"]) == ("text/plain", offset(1))
            await rig.post("a", b"three,")
            await rig.post("f", b"other,")
            assert await text(rig, "f?offset=-1") == b"one,other,"
            assert await text(rig, f"f?offset={offset(1)}") == b"other,"
            assert await text(rig, "a?offset=-1") == b"one,two,three,"
            await rig.ask("POST", "f", {"stream-closed": "true"})
            assert (await rig.get("f?offset=-1")).headers["stream-closed"] == "true"
            assert "stream-closed" not in (await rig.get("a?offset=-1")).headers

    run_virtual(main())


def test_an_answer_goes_over_the_border_and_small_ones_meet_it() -> None:
    async def main() -> None:
        for chunk_bytes in (1, 5, 8, 1 << 20):
            async with serving(chunk_bytes=chunk_bytes) as rig:
                await rig.put("a", JSON, body=b"[1,22,333]")
                await rig.put("b", of("a", 2))
                await rig.post("b", b"[4,5]", JSON)
                await rig.put("c", of("b", 1, 2))
                await rig.post("c", b"[6]", JSON)
                got, at = list[bytes](), "-1"
                while True:
                    answer = await rig.get(f"c?offset={at}")
                    if (part := answer.body[1:-1]) != b"":
                        got += part.split(b",")
                    at = answer.headers["stream-next-offset"]
                    if answer.headers.get("stream-up-to-date") == "true":
                        break
                assert got == [b"1", b"22", b"4", b"6"]
                assert at == offset(4)

    run_virtual(main())


@pytest.mark.parametrize(
    ("at", "sub", "shows"),
    [(0, None, b""), (ZERO, 3, b"hel"), ("-1", 5, b"hello"), (1, 2, b"hellowo"), (1, 0, b"hello"), (2, 0, b"helloworld")],
)
def test_a_sub_offset_cuts_a_record(at: str | int, sub: int | None, shows: bytes) -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", body=b"hello")
            if at in {1, 2}:
                await rig.post("a", b"world")
            await rig.ask("POST", "a", {"stream-closed": "true"})
            made = await rig.put("f", of("a", at, sub), b"!")
            assert await text(rig, "f?offset=-1") == shows + b"!"
            assert await text(rig, f"f?offset={made.headers['stream-next-offset']}") == b""
            again = await rig.ask("PUT", "f", of("a", at, sub))
            assert again.status == 200

    run_virtual(main())


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        (of("none"), 404, "no such stream"),
        (of("a", 5), 400, "beyond the tail"),
        (of("a", "9999999999999999_9999999999999999"), 400, "fork"),
        (of("a", "x"), 400, "fork"),
        (of("a", ZERO, 6), 400, "fork"),
        (of("a", None, 1), 400, "fork"),
        *((of("a", ZERO, wrong), 400, "fork") for wrong in ("-1", "05", "+1", "1.5", "", "9" * 17)),
        (of("a", **JSON), 409, "content type"),
        ({"stream-fork-offset": ZERO}, 400, "fork"),
        ({"stream-fork-sub-offset": "0"}, 400, "fork"),
        ({"stream-forked-from": "a"}, 400, "fork"),
        ({"stream-forked-from": "/v1/stream/"}, 400, "name"),
        ({"stream-forked-from": "/v1/stream/../a"}, 400, "name"),
        (of("trimmed", ZERO), 410, "trimmed"),
        (of("f"), 404, "no such stream"),
    ],
)
def test_a_fork_that_cannot_be_made_leaves_nothing(headers: dict[str, str], status: int, code: str) -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", body=b"hello")
            await rig.put("trimmed", body=b"hello")
            await (await rig.streams.open("trimmed")).trim(1)
            for _ in range(2):
                got = await rig.ask("PUT", "f", headers)
                assert (got.status, got.json["code"]) == (status, code), got.body
            assert rig.streams.names() == ["a", "trimmed"]
            assert (await rig.ask("DELETE", "a")).status == 204
            assert await statuses(rig, "a") == [404]

    run_virtual(main())


def test_who_asks_for_a_fork_again_gets_it_and_who_asks_for_another_a_refusal() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", {**TEXT, "stream-ttl": "600"}, b"hello")
            await rig.put("b", {**TEXT, "stream-ttl": "600"}, b"hello")
            await rig.put("f", of("a", 0, 2))
            await rig.put("g", of("a"))
            await rig.post("a", b"more")

            async def again(target: str, headers: dict[str, str]) -> int:
                return (await rig.ask("PUT", target, headers)).status

            assert await again("f", of("a", ZERO, 2, **TEXT)) == 200
            assert await again("g", of("a")) == 200, "at the tail as it was then"
            assert await again("g", of("a", None, 0)) == 200
            wrong = [of("a", 0, 3), of("a", 0), of("a", 1, 2), of("b", 0, 2), TEXT, of("a", 0, 2, **{"stream-ttl": "5"})]
            assert [await again("f", each) for each in wrong] == [409] * len(wrong)
            await rig.ask("DELETE", "a")
            assert await again("f", of("a", 0, 2)) == 200, "it is there, whatever became of its source"
            assert await again("h", of("a", 0, 2)) == 409

    run_virtual(main())


def test_a_fork_knows_no_producer_and_no_sequence_of_its_source() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a")
            by = {**TEXT, "producer-id": "p", "producer-epoch": "0", "producer-seq": "0"}
            await rig.post("a", b"hello", by)
            await rig.post("a", b"x", {**TEXT, "stream-seq": "9"})
            await rig.put("f", of("a", 0, 3))
            assert (await rig.ask("POST", "f", by, b"LO")).status == 200
            assert (await rig.ask("POST", "f", by, b"LO")).status == 204
            assert (await rig.ask("POST", "f", {**TEXT, "stream-seq": "1"}, b"!")).status == 204
            assert await text(rig, "f?offset=-1") == b"helLO!"

    run_virtual(main())


def test_a_source_is_hidden_while_it_has_forks_and_goes_with_the_last() -> None:
    async def main() -> None:
        async with serving() as rig:
            await chain(rig)
            for target in ("a", "b"):
                assert (await rig.ask("DELETE", target)).status == 204
            for method, body in (("GET", b""), ("HEAD", b""), ("POST", b"x"), ("DELETE", b"")):
                assert (await rig.ask(method, "a", TEXT, body)).status == 410
            assert (await rig.ask("PUT", "a", TEXT)).status == 409
            assert (await rig.ask("PUT", "d", of("a"))).status == 409
            assert await text(rig, "c?offset=-1") == b"ABC"
            assert (await rig.ask("DELETE", "c")).status == 204
            assert await statuses(rig, "a", "b", "c") == [404, 404, 404]
            assert rig.streams.names() == []
            await rig.put("a", body=b"new")

    run_virtual(main())


def test_all_of_it_is_the_same_after_a_power_cut() -> None:
    async def main() -> None:
        files = disk_in_memory()
        async with serving(files) as rig:
            await chain(rig)
            await rig.ask("DELETE", "a")
            await rig.ask("DELETE", "b")
        files.power_cut()
        async with serving(files) as rig:
            assert await text(rig, "c?offset=-1") == b"ABC"
            assert await statuses(rig, "a", "b", "c") == [410, 410, 200]
            assert (await rig.ask("PUT", "c", of("b"))).status == 200
        files.power_cut()
        async with serving(files) as rig:
            await rig.ask("DELETE", "c")
            assert rig.streams.names() == []

    run_virtual(main())


def test_what_a_start_finds_hidden_without_a_fork_is_removed() -> None:
    """The process ended between the deletion of the last fork and that of its source."""

    async def main() -> None:
        files = disk_in_memory()
        async with serving(files) as rig:
            await chain(rig)
            await rig.ask("DELETE", "a")
            await rig.ask("DELETE", "b")
            await rig.streams.delete("c")
        async with serving(files) as rig:
            await rig.node.expiry.turn(Stop())
            assert rig.streams.names() == []

    run_virtual(main())


@pytest.mark.expected_logs
def test_a_source_that_the_disk_does_not_let_go_of_goes_later() -> None:
    async def main() -> None:
        files = disk_in_memory()
        async with serving(files) as rig:
            await rig.put("a", body=b"A")
            await rig.put("f", of("a"))
            await rig.ask("DELETE", "a")
            folder = (await rig.streams.open("a")).id
            files.fail("rename", errno.EACCES, path=f"*{folder}*")
            assert (await rig.ask("DELETE", "f")).status == 204, "that one is deleted"
            assert rig.streams.names() == ["a"]
            disk = rig.streams.disks[0]
            while not disk.passable:
                await asyncio.sleep(0.1)
            await rig.node.expiry.turn(Stop())
            assert rig.streams.names() == []
            assert await statuses(rig, "a", "f") == [404, 404]

    run_virtual(main())


@pytest.mark.expected_logs
def test_a_deletion_that_the_disk_refuses_hides_nothing() -> None:
    async def main() -> None:
        files = disk_in_memory()
        async with serving(files) as rig:
            await rig.put("a", body=b"A")
            await rig.put("f", of("a"))
            files.fail("write_at", errno.EACCES, path="*meta")
            assert (await rig.ask("DELETE", "a")).status == 503
            assert await text(rig, "a?offset=-1") == b"A"
        files.power_cut()
        async with serving(files) as rig:
            assert await text(rig, "a?offset=-1") == b"A"
            assert (await rig.ask("DELETE", "a")).status == 204
            assert await statuses(rig, "a", "f") == [410, 200]

    run_virtual(main())


def test_a_fork_that_was_not_made_holds_no_source() -> None:
    """Its name was taken meanwhile; and another fork of that name is made of another source."""

    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", body=b"A")
            await rig.put("b", body=b"B")
            first, second = await asyncio.gather(rig.ask("PUT", "f", of("a")), rig.ask("PUT", "f", of("b")))
            assert sorted([first.status, second.status]) == [201, 409]
            without = "b" if first.status == 201 else "a"
            await rig.ask("DELETE", without)
            assert await statuses(rig, without) == [404]

    run_virtual(main())


def test_a_fork_that_is_being_made_holds_its_source() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", body=b"A")
            made, deleted = await asyncio.gather(rig.ask("PUT", "f", of("a")), rig.ask("DELETE", "a"))
            assert deleted.status == 204
            if made.status == 201:
                assert await text(rig, "f?offset=-1") == b"A"
            else:
                assert made.status in {404, 409}
                assert rig.streams.names() == []

    run_virtual(main())


def test_a_reader_that_waits_at_a_source_is_told_when_it_is_hidden() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", body=b"A")
            await rig.put("f", of("a"))
            waiting = rig.begin("GET", f"a?offset={offset(1)}&live=long-poll")
            at_the_fork = rig.begin("GET", f"f?offset={offset(1)}&live=long-poll")
            await asyncio.sleep(1)
            await rig.ask("DELETE", "a")
            assert (await waiting.task).status == 410
            assert not at_the_fork.task.done()
            await rig.post("f", b"B")
            assert (await at_the_fork.task).body == b"B"

    run_virtual(main())


@pytest.mark.parametrize(
    ("source", "asked", "gets"),
    [
        ({}, {}, (None, None)),
        ({}, {"stream-ttl": "5"}, ("5", None)),
        ({"stream-ttl": "7"}, {}, ("7", None)),
        ({"stream-ttl": "7"}, {"stream-ttl": "5"}, ("5", None)),
        ({"stream-ttl": "7"}, {"stream-expires-at": "2100-01-01T00:00:00Z"}, (None, "2100-01-01T00:00:00Z")),
        ({"stream-expires-at": "2100-01-01T00:00:00Z"}, {}, (None, "2100-01-01T00:00:00Z")),
        ({"stream-expires-at": "2100-01-01T00:00:00Z"}, {"stream-ttl": "5"}, ("5", None)),
    ],
)
def test_a_fork_has_the_expiry_that_it_asks_for_or_that_of_its_source(
    source: dict[str, str], asked: dict[str, str], gets: tuple[str | None, str | None]
) -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", {**TEXT, **source}, b"A")
            await rig.put("f", of("a", **asked))
            head = await rig.ask("HEAD", "f")
            assert (head.headers.get("stream-ttl"), head.headers.get("stream-expires-at")) == gets

    run_virtual(main())


def test_a_source_that_expires_is_hidden_and_one_that_has_expired_has_no_fork_made() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", {**TEXT, "stream-ttl": "5"}, b"A")
            await rig.put("b", {**TEXT, "stream-ttl": "5"}, b"B")
            await rig.put("f", of("a", **{"stream-ttl": "600"}))
            await asyncio.sleep(6)
            assert (await rig.ask("PUT", "g", of("b"))).status == 404
            for _ in range(3):
                assert await statuses(rig, "a", "b") == [410, 404]
                await rig.node.expiry.turn(Stop())
            assert await text(rig, "f?offset=-1") == b"A"
            await asyncio.sleep(601)
            await rig.node.expiry.turn(Stop())
            assert await statuses(rig, "a", "f") == [404, 404]

    run_virtual(main())


def test_what_is_trimmed_of_a_source_is_gone_from_its_forks() -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.put("a", JSON, b"[1,2,3]")
            await rig.put("f", of("a", 2))
            await rig.post("f", b"[4]", JSON)
            source = await rig.streams.open("a")
            await source.trim(1)
            assert await text(rig, "f?offset=-1") == b"[2,4]"
            assert (await rig.get(f"f?offset={offset(0)}")).status == 410
            await source.trim(3)
            assert await text(rig, "f?offset=-1") == b"[4]"
            await (await rig.streams.open("f")).trim(3)
            assert await text(rig, "f?offset=-1") == b"[]"

    run_virtual(main())


def test_a_source_that_was_deleted_beside_the_node_is_as_trimmed() -> None:
    async def main() -> None:
        files = disk_in_memory()
        async with serving(files) as rig:
            await chain(rig)
            await rig.streams.delete("b")
            await rig.put("b", body=b"another")
            assert await text(rig, "c?offset=-1") == b"C"
        async with serving(files) as rig:
            assert await text(rig, "c?offset=-1") == b"C"
            assert (await rig.get(f"c?offset={offset(0)}")).status == 410
            await rig.ask("DELETE", "b")
            assert await statuses(rig, "b", "c") == [404, 200]

    run_virtual(main())


def test_forks_of_forks_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "DEPTH_MAX", 3)

    async def main() -> None:
        async with serving() as rig:
            await rig.put("0", body=b"x")
            for number in range(3):
                await rig.put(str(number + 1), of(str(number)))
            got = await rig.ask("PUT", "4", of("3"))
            assert (got.status, got.json["code"]) == (429, "limit")
            assert await text(rig, "3?offset=-1") == b"x"

    run_virtual(main())


@pytest.mark.parametrize(
    "labels",
    [
        {"forked-from": "x"},
        {"forked-from": "0" * 16, "fork-offset": "y"},
        {"ttl": "z", "expires-at": "never", "content-type": "no type"},
        {"deleted": "true"},
        {"more": "x" * 1000},
    ],
)
def test_labels_that_somebody_else_has_given_are_no_trouble(labels: dict[str, Any]) -> None:
    async def main() -> None:
        async with serving() as rig:
            await rig.streams.create("a", labels=labels, records=[b"A"])
            is_hidden = "deleted" in labels
            assert (await rig.get("a?offset=-1")).status == (404 if is_hidden else 200)
            if not is_hidden:
                await rig.put("f", of("a"))
                assert await text(rig, "f?offset=-1") == b"A"
                assert (await rig.ask("DELETE", "a")).status == 204
                assert await statuses(rig, "a", "f") == [410, 200]

    run_virtual(main())
