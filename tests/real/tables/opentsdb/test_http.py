"""The doors of OpenTSDB over HTTP, on a SQLite file: points in, and the same points out."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import TYPE_CHECKING, Any, cast

import pytest
from metrics_service import Metrics, metrics
from served import LIMIT_S, Client

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunAsync
    from outlast.sqlite import Sqlite

START = 1_700_000_040
"""A whole minute."""


def point(at: int, value: object = 1, host: str = "a", metric: str = "cpu") -> dict[str, Any]:
    return {"metric": metric, "timestamp": at, "value": value, "tags": {"host": host}}


@pytest.mark.short
def test_what_was_put_can_be_read_in_every_way(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with metrics(tmp_path) as at:
            body = [point(START + 10 * step, step, host) for step in range(12) for host in ("a", "b")]
            assert (await at.ask("POST", "/api/put", body))[:2] == (204, b"")
            status, found, _ = await at.ask("GET", f"/api/query?start={START}&end={START + 110}&m=sum:1m-avg:cpu")
            assert (status, found) == (
                200,
                [{"metric": "cpu", "tags": {}, "aggregateTags": ["host"], "dps": {str(START): 5.0, str(START + 60): 17.0}}],
            )
            _, found, _ = await at.ask("GET", f"/api/query?start={START}&m=sum:rate:cpu%7Bhost=b%7D")
            assert set(found[0]["dps"].values()) == {0.1}
            _, found, _ = await at.ask("GET", "/api/range?table=cpu&tag.host=a")
            assert [(each["time_ns"], each["fields"]["value"]) for each in found] == [
                ((START + 10 * step) * 10**9, step) for step in range(12)
            ]
            _, found, _ = await at.ask("GET", "/api/suggest?type=tagv&q=")
            assert found == ["a", "b"]
            _, found, _ = await at.ask("GET", "/api/search/lookup?m=cpu%7Bhost=*%7D")
            assert [each["tags"] for each in found["results"]] == [{"host": "a"}, {"host": "b"}]

    run_async(main)


def test_the_same_point_twice_is_one_and_the_later_wins(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with metrics(tmp_path) as at:
            for value in (1, 2, 2.5):
                assert (await at.ask("POST", "/api/put?details", point(START, value)))[0] == 200
            # Also within one body.
            assert (await at.ask("POST", "/api/put", [point(START + 1, 7), point(START + 1, 8.5)]))[0] == 204
            assert await at.read("cpu") == [({"host": "a"}, START, 2.5), ({"host": "a"}, START + 1, 8.5)]

    run_async(main)


def test_a_bad_point_among_good_ones(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with metrics(tmp_path) as at:
            body = [point(START + step) for step in range(100)]
            body[50]["value"] = "text"
            raw = gzip.compress(json.dumps(body).encode())
            status, found, _ = await at.ask("POST", "/api/put?details", raw, Content_Encoding="gzip")
            assert (status, found["success"], found["failed"]) == (400, 99, 1)
            (error,) = found["errors"]
            assert error["datapoint"]["timestamp"] == START + 50
            assert len(await at.read("cpu")) == 99

    run_async(main)


@pytest.mark.expected_logs("procedures are failing: PERMANENT name taken cpu")
def test_a_metric_whose_table_belongs_to_somebody_else(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with metrics(tmp_path) as at:
            assert (await at.ask("POST", "/api/put", point(START, metric="other")))[0] == 204
            await _by_hand(at, "CREATE VIEW cpu AS SELECT 1 AS one")
            # Alone it may be sent again, for somebody may drop the view; beside others it does not hold them up.
            status, found, headers = await at.ask("POST", "/api/put", point(START))
            assert (status, found["error"]["code"], found["success"]) == (503, 503, 0)
            assert int(headers["retry-after"]) >= 1
            status, found, _ = await at.ask("POST", "/api/put", [point(START), point(START + 1, metric="other")])
            assert (status, found["success"], found["failed"]) == (400, 1, 1)
            assert "cpu" in found["errors"][0]["error"]
            said = await at.say(b"put cpu 1 1 host=a\nput other 1 1 host=a\n")
            assert said.startswith(b"put: storage error: ")
            assert said.count(b"\n") == 1

    run_async(main)


async def _by_hand(at: Metrics, statement: str) -> None:
    await cast("Sqlite", at.tables.dependency).write(lambda connection: connection.execute(statement).fetchall())


@pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
def test_a_long_range_is_sent_in_chunks(run_async: RunAsync, tmp_path: Path, form: str) -> None:
    async def main() -> None:
        async with metrics(tmp_path) as at:
            for begin in range(0, 12_000, 4_000):
                body = [point(START + step, step) for step in range(begin, begin + 4_000)]
                assert (await at.ask("POST", "/api/put", body))[0] == 204
            status, found, headers = await at.ask("GET", f"/api/range?table=cpu&format={form}")
            assert (status, headers["transfer-encoding"]) == (200, "chunked")
            # More than one page of the store, and none twice.
            count = len(found) if form == "json" else found.count(b"\n") - (form == "csv")
            assert count == 12_000

    run_async(main)


def test_a_reader_that_leaves_ends_the_range(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with metrics(tmp_path) as at:
            body = [point(START + step, step) for step in range(20_000)]
            assert (await at.ask("POST", "/api/put", body))[0] == 204
            async with Client(*await asyncio.open_connection("127.0.0.1", at.server.port)) as client:
                client.send(b"GET /api/range?table=cpu HTTP/1.1\r\nHost: x\r\n\r\n")
                async with asyncio.timeout(LIMIT_S):
                    await client.reader.read(10_000)
            await at.until(lambda: len(at.service.gate) == 0)

    run_async(main)
