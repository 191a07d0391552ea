"""The outcomes of real tables as their writers see them: limits, quotas, tables that wait for a person, many bad lines."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from metrics_door import door

from outlast.tables import TableLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from served import Answer

    from conftest import RunAsync

pytestmark = pytest.mark.expected_logs("refuses work by", "procedures are failing: PERMANENT name taken")
V1, V2, V3 = "/write?db=m", "/api/v2/write?bucket=m&org=o", "/api/v3/write_lp?db=m&precision=ns"


@asynccontextmanager
async def elsewhere(folder: Path, statement: str) -> AsyncIterator[None]:
    """Run a statement in another process, which stays in what it has begun until the block ends.

    Not in this one: a lock of SQLite is a process's, and a second library in it would see none, and take those of the first away.
    """
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute(sys.argv[2])"
    code += "; print('done', flush=True); sys.stdin.read()"
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, folder / "metrics.db", statement),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert other.stdin is not None
    assert other.stdout is not None
    assert await other.stdout.readline() == b"done\n"
    try:
        yield
    finally:
        other.stdin.close()
        assert await other.wait() == 0


def said(answer: Answer) -> str:
    """The text of an error, wherever its API has it."""
    found: dict[str, Any] = json.loads(answer.body)
    return str(found.get("message") or found["error"])


def test_new_tables_beyond_the_rate_are_429_and_known_ones_go_on(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with door(tmp_path, limits=TableLimits(tables_per_minute=3)) as at:
            for number in range(3):
                assert (await at.send(b"known%d v=1 1" % number, V1)).status == 204
            for path in (V1, V2, V3):
                answer = await at.send(b"new v=1 1", path)
                assert (answer.status, int(answer.headers["retry-after"]) >= 1) == (429, True)
                assert "table 'new' is new, and more than 3 a minute are (limit tables_per_minute)" in said(answer)
                answer = await at.send(b"known0 v=2 2\nnew v=1 1\nknown1 v=2 2", path)
                assert (answer.status, said(answer).endswith(" dropped=1")) == (429, True)
            assert await at.values("known0") == [1.0, 2.0]
            assert [record.name for record in await at.tables.tables()] == ["known0", "known1", "known2"]

    run_async(main)


def test_the_quota_of_a_token_is_429_before_anything_is_stored(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with door(tmp_path, limits=TableLimits(points_per_s=1.0)) as at:
            lines = [b"cpu v=%d %d" % (number, number) for number in range(8)]
            assert (await at.send(b"\n".join(lines), V1)).status == 204
            for path in (V1, V2, V3):
                answer = await at.send(b"\n".join(lines), path)
                assert (answer.status, int(answer.headers["retry-after"]) >= 1) == (429, True)
                assert "client 'collector' sends more than 1 points a second" in said(answer)
            # More than the quota ever lets in is 400: to come again is of no use.
            answer = await at.send(b"\n".join(lines) + b"\n" + b"\n".join(lines), V1)
            assert (answer.status, "may ever send" in said(answer)) == (400, True)

    run_async(main)


def test_a_field_beyond_the_limit_is_400_and_named(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with door(tmp_path, limits=TableLimits(fields_max=2)) as at:
            assert (await at.send(b"cpu v=1,w=1 1", V1)).status == 204
            answer = await at.send(b"cpu v=2 2\ncpu x=1 3\ncpu v=4 4", V1)
            assert answer.status == 400
            assert said(answer).startswith("partial write: line 2: ")
            assert "fields_max" in said(answer)
            assert await at.values() == [1.0, 2.0, 4.0]

    run_async(main)


def test_a_table_whose_name_a_view_has_is_503_alone_and_400_beside_others(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with door(tmp_path) as at:
            assert (await at.send(b"good v=1 1", V1)).status == 204
            async with elsewhere(tmp_path, "CREATE VIEW taken AS SELECT 1"):
                pass
            for path in (V1, V2, V3):
                answer = await at.send(b"taken v=1 1", path)
                assert (answer.status, int(answer.headers["retry-after"]) >= 1) == (503, True)
                assert "taken" in said(answer)
                answer = await at.send(b"taken v=1 1\ngood v=2 2", path)
                assert (answer.status, "retry-after" in answer.headers) == (400, False)
                assert b"taken" in answer.body
            whole = await at.send(b"taken v=1 1\ngood v=3 3", f"{V3}&accept_partial=false")
            assert whole.status == 503
            assert await at.values("good") == [1.0, 2.0]

    run_async(main)


@pytest.mark.parametrize("path", [V1, V2, V3])
def test_more_bad_lines_than_are_told_are_all_counted(run_async: RunAsync, tmp_path: Path, path: str) -> None:
    async def main() -> None:
        async with door(tmp_path) as at:
            answer = await at.send(b"cpu v=1 1\n" + b"bad\n" * 1_500, path)
            assert answer.status == 400
            found = json.loads(answer.body)
            if path is V3:
                assert len(found["data"]) == 1_000
            else:
                assert said(answer).endswith(" (and 1,495 more) dropped=1500")
            assert await at.values() == [1.0]

    run_async(main)


@pytest.mark.parametrize("path", [V1, V2, V3])
@pytest.mark.parametrize("before", [b"\n\n# a comment\n", b'\ncpu s="a\nb" 2\n'])
def test_a_conflict_of_types_is_told_with_its_line(run_async: RunAsync, tmp_path: Path, path: str, before: bytes) -> None:
    async def main() -> None:
        async with door(tmp_path) as at:
            assert (await at.send(b"cpu v=1 1", path)).status == 204
            answer = await at.send(b"cpu v=2 2" + before + b'cpu v="text" 3\n', path)
            assert answer.status == 400
            found = json.loads(answer.body)
            if path is V3:
                (line,) = found["data"]
                assert (line["line_number"], line["original_line"]) == (4, 'cpu v="text" 3')
            else:
                assert said(answer).startswith("partial write: line 4: ")
                assert said(answer).endswith(" dropped=1")
            assert await at.values() == [1.0, 2.0]

    run_async(main)


def test_a_service_that_stops_answers_503_and_what_was_204_is_there(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with door(tmp_path) as at:
            assert (await at.send(b"cpu v=1 1", V1)).status == 204
            async with await at.served.connect() as client:
                at.served.stop.fire("the test stops it")
                client.send(b"POST /write?db=m HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
                answer = await client.answer()
                assert (answer.status, answer.headers["connection"]) == (503, "close")
            assert await at.values() == [1.0]

    run_async(main)


@pytest.mark.expected_logs("metrics.db is down")
def test_a_store_that_somebody_holds_is_503_within_the_client_s_time_and_a_repeat_is_stored(
    run_async: RunAsync, tmp_path: Path
) -> None:
    async def main() -> None:
        async with door(tmp_path) as at:
            assert (await at.send(b"cpu v=1 1", V1)).status == 204
            async with elsewhere(tmp_path, "BEGIN IMMEDIATE"):
                for path in (V1, V2, V3):
                    answer = await at.send(b"cpu v=2 2", path, "X-Request-Timeout: 0.2")
                    assert (answer.status, int(answer.headers["retry-after"]) >= 1) == (503, True)
                    assert said(answer)
            async with asyncio.timeout(30):
                while (await at.send(b"cpu v=2 2", V1)).status != 204:
                    await asyncio.sleep(0.1)
            assert await at.values() == [1.0, 2.0]

    run_async(main)
