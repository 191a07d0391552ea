"""What the node says where the store refuses: the first cause, the same each time, and nothing of it is stored."""

from __future__ import annotations

import asyncio
import errno
import json
from typing import Any

import pytest
from node_parts import SLOW, NodeClient, producer, served
from store_parts import MIB, data, disk_in_memory, entered, fill

from outlast import Fault, Kind, Scope, Stopping, Unavailable
from outlast.extend import NewerFormatError
from outlast.streams import (
    AppendTooLargeError,
    BeyondTailError,
    DamagedError,
    ExpiredError,
    FencedError,
    LimitError,
    OutcomeUnknownError,
    PositionMismatchError,
    SequenceError,
    StreamClosedError,
    StreamExistsError,
    StreamNotFoundError,
    StreamOptions,
    TrimmedError,
)
from outlast.streams._node.answers import problem_for
from outlast.testing import run_virtual

DOWN = "/disk is down: EXHAUSTED"


def refused_by(kind: Kind, code: str, scope: Scope = Scope.DEPENDENCY) -> Unavailable:
    return Unavailable("disk", Fault(kind, code, "the reason", "disk", scope), 12.0, 2.5)


@pytest.mark.parametrize(
    ("error", "status", "code", "members"),
    [
        (
            refused_by(Kind.EXHAUSTED, "ENOSPC"),
            507,
            "ENOSPC",
            {"kind": "exhausted", "since_s": 12.0, "free_bytes": 7, "retry_after_s": 2.5},
        ),
        (refused_by(Kind.TRANSIENT, "timeout"), 503, "timeout", {"kind": "transient", "since_s": 12.0}),
        (refused_by(Kind.OVERLOADED, "backlog full", Scope.CALL), 503, "backlog full", {"kind": "overloaded"}),
        (Stopping("deploy"), 503, "stopping", {"kind": "stopping"}),
        (ExpiredError("s", "late"), 503, "expired", {"retry_after_s": 1.0}),
        (OutcomeUnknownError("s", "?"), 504, "outcome unknown", {"retry_after_s": 1.0}),
        (LimitError("s", "quota"), 429, "limit", {"retry_after_s": 60.0}),
        (TrimmedError("s", 1, 5, 9), 410, "trimmed", {"oldest": "0000000000000005", "tail": "0000000000000009"}),
        (BeyondTailError("s", 10, 5, 9), 400, "beyond the tail", {"oldest": "0000000000000005", "tail": "0000000000000009"}),
        (StreamNotFoundError("s", "no"), 404, "no such stream", {}),
        (StreamClosedError("s", "no"), 409, "stream closed", {}),
        (StreamExistsError("s", "no"), 409, "stream exists", {}),
        (PositionMismatchError("s", 1, 2), 409, "position", {"tail": "0000000000000002"}),
        (FencedError("s", "p", 1, 2), 403, "fenced", {"epoch": 2}),
        (SequenceError("s", "p", 7, 3), 409, "sequence", {"expected": 3}),
        (AppendTooLargeError("s", "records", 70_000, 65_536), 413, "too large", {"limit": 65_536}),
        (DamagedError("s", "1.seg", 3, "bits", 8), 500, "damaged", {"position": "0000000000000003", "next": "0000000000000008"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_each_error_of_the_store_has_its_status_and_says_what_is_known(
    error: Exception, status: int, code: str, members: dict[str, object]
) -> None:
    problem = problem_for(error, lambda name: 7 if name == "disk" else None)
    assert problem is not None
    assert (problem.status, problem.code) == (status, code)
    body = problem.body()
    said = {"status": status, "code": code, **members}
    assert {name: value for name, value in json.loads(body).items() if name in said} == said
    names = [name for name, _ in problem.all_headers(len(body))]
    assert (b"retry-after" in names) == ("retry_after_s" in json.loads(body))
    assert b"x-content-type-options" in names


@pytest.mark.parametrize("error", [ZeroDivisionError(), NewerFormatError("format 9")])
def test_what_a_person_has_to_see_is_left_to_who_logs_it(error: Exception) -> None:
    assert problem_for(error) is None


# The disk.


@pytest.mark.expected_logs(DOWN)
def test_a_full_disk_is_said_with_its_first_cause_the_first_time_and_the_last_and_no_body_is_read() -> None:
    files = disk_in_memory(capacity_bytes=8 * MIB)

    async def main() -> None:
        async with served(files) as client:
            await client.put("orders", stream_closed="")
            await client.put("closed", stream_closed="true")
            assert (await client.post("orders", b"first", **producer("stored", 0, 0))).status == 200
            stream = await client.node.streams.open("orders")
            await fill(stream)
            tail = stream.tail
            problems: list[dict[str, Any]] = []
            for _ in range(20):
                refused = await client.post("orders", b"x" * 1000, raw=[(b"expect", b"100-continue")])
                assert (refused.status, refused.reads) == (507, 0)
                assert int(refused.headers["retry-after"]) >= 1
                problems.append(refused.problem)
                await asyncio.sleep(1.0)
            # An append by a producer, one in chunks, one that is encoded, a new stream: the same.
            others = [
                await client.post("orders", b"x", **producer("p", 0, 0)),
                await client.post("orders", [b"x", b"y"]),
                await client.put("new", b"x" * 10),
                await client.put("empty"),
            ]
            assert [(each.status, each.reads) for each in others[:3]] == [(507, 0)] * 3
            assert others[3].status == 507
            problems += [each.problem for each in others]
            for problem in problems:
                assert (problem["code"], problem["kind"], problem["detail"]) == (
                    problems[0]["code"],
                    "exhausted",
                    problem["detail"],
                )
                assert "/disk" in problem["detail"]
                assert problem["since_s"] >= 0.0
                assert 0 <= problem["free_bytes"] < 8 * MIB
            assert len({problem["code"] for problem in problems}) == 1
            # A retry of what is stored, the caller's own mistakes, and what needs no room, are as ever.
            assert (await client.post("orders", b"first", **producer("stored", 0, 0))).status == 204
            assert (await client.post("orders", b"x", content_encoding="gzip")).status in {415, 507}
            assert (await client.post("orders", b"x", "application/json")).status == 409
            assert (await client.post("closed", b"x")).status == 409
            assert (await client.post("nothing", b"x")).status == 404
            assert (await client.get("orders", f"?offset={tail:016d}")).status == 200
            assert (await client.put("orders")).status == 200
            assert stream.tail == tail
            assert (await client("DELETE", "/v1/stream/orders")).status == 204
            await asyncio.sleep(30.0)
            assert (await client.put("orders", b"x")).status == 201

    run_virtual(main)


@pytest.mark.expected_logs
@pytest.mark.parametrize("cut", [True, False])
def test_an_append_whose_sync_failed_is_never_refused_and_there_later(cut: bool) -> None:  # noqa: FBT001
    files = disk_in_memory()
    status = 0

    async def write() -> None:
        nonlocal status
        async with served(files) as client:
            await client.put("orders", b"0")
            files.fail("sync_data", errno.EIO)
            if not cut:
                files.fail("truncate", errno.EIO)
            status = (await client.post("orders", b"X")).status

    async def read() -> None:
        async with served(files) as client:
            got = await data(await client.node.streams.open("orders"))
            assert got == [b"0"] or (status == 504 and got == [b"0", b"X"])

    run_virtual(write)
    assert status in {503, 504}
    files.heal()
    files.power_cut()
    run_virtual(read)


def test_a_deadline_counts_from_the_headers_on_and_one_that_cannot_be_read_is_none() -> None:
    async def main() -> None:
        async with served(disk_in_memory()) as client:
            await client.put("orders")
            for text in ("0", "0.0"):
                refused = await client.post("orders", b"x", x_request_timeout=text)
                assert (refused.status, refused.problem["code"]) == (503, "expired")
            for text, status in (("0.9", 503), ("3", 204)):
                assert (await client.post("orders", [b"x", SLOW, b"y"], x_request_timeout=text)).status == status
            for text in ("", "-1", "1e3", "soon", "9" * 30, "\xb2"):
                assert (await client.post("orders", b"x", x_request_timeout=text)).status == 204

    run_virtual(main)


def test_an_append_that_is_cancelled_while_it_is_written_is_told_that_nobody_knows() -> None:
    files = disk_in_memory()

    async def main() -> None:
        async with served(files) as client:
            await client.put("orders")
            sent: list[Any] = []

            async def call() -> None:
                got = await client.post("orders", b"A", **producer("p", 0, 0))
                sent.append(got)

            with files.hang("sync_data") as hang:
                task = asyncio.create_task(call())
                await entered(hang)
                task.cancel()
                await asyncio.wait({task})
                assert task.cancelled()
                got = client.last
                assert got is not None
                assert (got.status, got.problem["code"], got.headers["connection"]) == (504, "outcome unknown", "close")
            again = await client.post("orders", b"A", **producer("p", 0, 0))
            assert (again.status, again.next) == (204, "0000000000000001")

    run_virtual(main)


# Limits of one stream, and of the store.


def test_a_quota_and_too_many_streams_are_429_and_trip_nothing() -> None:
    async def main() -> None:
        options = StreamOptions(quota_bytes=20_000, producers_max=1)
        async with served(disk_in_memory(), streams={"streams_max": 2}, options=options) as client:
            await client.put("a")
            await client.put("b")
            refused = await client.put("c", b"x")
            assert (refused.status, refused.headers["retry-after"]) == (429, "60")
            assert (await client.post("a", b"x", **producer("p", 0, 0))).status == 200
            refused = await client.post("a", b"x", **producer("q", 0, 0))
            assert (refused.status, refused.problem["code"], refused.problem["kind"]) == (429, "limit", "exhausted")
            refused = await client.post("a", b"x" * 20_000)
            assert (refused.status, refused.problem["code"], refused.headers["retry-after"]) == (429, "limit", "60")
            assert refused.reads == 0
            assert (await client.post("b", b"x")).status == 204

    run_virtual(main)


def test_refusals_of_the_callers_own_making_change_nothing_however_many_come() -> None:
    async def main(client: NodeClient) -> None:
        await client.put("orders", content_type="application/json")
        for _ in range(50):
            assert (await client.post("orders", b"{", "application/json")).status == 400
            assert (await client.post("orders", b"1", "text/plain")).status == 409
            assert (await client.post("nothing", b"1", "text/plain")).status == 404
        assert (await client.post("orders", b"1", "application/json")).next == "0000000000000001"

    async def whole() -> None:
        async with served(disk_in_memory()) as client:
            await main(client)

    run_virtual(whole)


@pytest.mark.parametrize(
    "options",
    [
        {"long_poll_s": -1.0},
        {"sse_s": float("nan")},
        {"sse_s": 1e9},
        {"chunk_bytes": 0},
        {"chunk_bytes": 1 << 40},
        {"body_bytes_max": 0},
        {"body_bytes_max": 1 << 40},
    ],
)
def test_a_node_that_cannot_work_is_not_made(options: dict[str, Any]) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match=next(iter(options))):
            async with served(disk_in_memory(), **options):
                pass

    run_virtual(main)
