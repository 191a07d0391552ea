"""The clients of InfluxDB 2 and 3, unchanged: what they were told is stored, and what is stored can be read."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
from influxdb_client import InfluxDBClient, Point, WriteOptions, WritePrecision
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException
from influxdb_client_3 import SYNCHRONOUS as SYNCHRONOUS_3
from influxdb_client_3 import InfluxDBClient3
from influxdb_client_3 import Point as Point3
from influxdb_client_3 import WriteOptions as WriteOptions3
from influxdb_client_3.exceptions import InfluxDBPartialWriteError
from influxdb_client_3.write_client.domain.write_precision import WritePrecision as WritePrecision3
from metrics_door import SECRET, Door, door, in_thread

from outlast import Fault, Kind, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunAsync

T0 = 1_700_000_000


def client_2(url: str, token: str = SECRET, **more: Any) -> InfluxDBClient:
    return InfluxDBClient(url, token=token, org="shop", **more)


def client_3(url: str, **options: Any) -> InfluxDBClient3:
    write_options = options.pop("write_options", SYNCHRONOUS_3)
    return InfluxDBClient3(url, token=SECRET, database="shop", write_client_options={"write_options": write_options}, **options)


@pytest.mark.short
@pytest.mark.parametrize("enable_gzip", [False, True])
def test_the_client_of_version_2_writes_every_type_in_every_precision(
    run_async: RunAsync, tmp_path: Path, *, enable_gzip: bool
) -> None:
    def work(url: str) -> None:
        with client_2(url, enable_gzip=enable_gzip) as client, client.write_api(write_options=SYNCHRONOUS) as api:
            assert client.ping()
            assert client.version() == "1.8.10"
            with warnings.catch_warnings(action="ignore"):
                assert client.health().status == "pass"
            for number, (precision, time) in enumerate(
                [
                    (WritePrecision.S, T0),
                    (WritePrecision.MS, T0 * 10**3 + 1),
                    (WritePrecision.US, T0 * 10**6 + 1),
                    (WritePrecision.NS, T0 * 10**9 + 1),
                ]
            ):
                point = Point("cpu load").tag("host", "a b,c=d").tag("n", str(number)).field("v", 0.1).field("i", 2**63 - 1)
                point.field("s", 'a "quoted"\nline, with = and \\').field("b", value=True)
                api.write("shop", record=point.time(time, precision), write_precision=precision)

    async def main() -> None:
        async with door(tmp_path) as at:
            await in_thread(work, at.url)
            fields = {"v": 0.1, "i": 2**63 - 1, "s": 'a "quoted"\nline, with = and \\', "b": True}
            times = [T0 * 10**9, T0 * 10**9 + 10**6, T0 * 10**9 + 10**3, T0 * 10**9 + 1]
            assert sorted(await at.read("cpu load"), key=lambda point: point[0]["n"]) == [
                ({"host": "a b,c=d", "n": str(number)}, time, fields) for number, time in enumerate(times)
            ]

    run_async(main)


def test_it_is_told_what_was_refused_and_what_was_stored_is_there(run_async: RunAsync, tmp_path: Path) -> None:
    def refused(url: str, bucket: str, lines: str, **more: Any) -> tuple[int, str]:
        with client_2(url, **more) as client, client.write_api(write_options=SYNCHRONOUS) as api:
            with pytest.raises(ApiException) as caught:
                api.write(bucket, record=lines)
            return caught.value.status, caught.value.message

    async def main() -> None:
        async with door(tmp_path, databases=["shop"]) as at:
            status, text = await in_thread(refused, at.url, "shop", "cpu v=1 1\ncpu v=\ncpu v=3 3")
            assert status == 400
            assert text.startswith("partial write: line 2")
            assert text.endswith(" dropped=1")
            assert [point[1:] for point in await at.read("cpu")] == [(1, {"v": 1.0}), (3, {"v": 3.0})]
            status, text = await in_thread(refused, at.url, "shop", 'cpu v="text" 4')
            assert (status, text.split(":")[0]) == (400, "partial write")
            assert await in_thread(refused, at.url, "other", "cpu v=1 1") == (404, 'bucket "other" not found')

            def unknown() -> tuple[int, str]:
                return refused(at.url, "shop", "cpu v=1 1", token=SECRET + "x")

            assert await in_thread(unknown) == (401, "The bearer token is not known here.")

    run_async(main)


def go_away_for(at: Door, times: int) -> None:
    """Let the store be away for so many requests."""
    left = [times]
    check = at.tables.check
    fault = Fault(Kind.TRANSIENT, "SQLITE_BUSY", "somebody else writes")

    def away(points: int = 0) -> None:
        if left[0]:
            left[0] -= 1
            raise Unavailable("metrics.db", fault, 0.5, 0.1)
        check(points)

    at.tables.check = away  # type: ignore[method-assign] # for this test


def test_batches_come_again_after_503_and_nothing_is_lost_or_there_twice(run_async: RunAsync, tmp_path: Path) -> None:
    told: list[str] = []
    failed: list[Any] = []
    retried: list[str] = []

    def work(url: str) -> None:
        options = WriteOptions(batch_size=100, flush_interval=200, retry_interval=500, max_retries=5)
        with (
            client_2(url) as client,
            client.write_api(
                write_options=options,
                success_callback=lambda _, data: told.extend(data.decode().splitlines()),
                error_callback=lambda *args: failed.append(args),
                retry_callback=lambda _, __, error: retried.append(str(error)),
            ) as api,
        ):
            for number in range(1_000):
                api.write("shop", record=Point(f"table{number % 7}").tag("host", "a").field("v", number).time(T0 + number))

    async def main() -> None:
        async with door(tmp_path) as at:
            go_away_for(at, 3)
            await in_thread(work, at.url)
            assert (len(told), failed, len(retried)) == (1_000, [], 3)
            assert "metrics.db is unavailable since 0.5 s: SQLITE_BUSY somebody else writes" in retried[0]
            assert [sent.status for sent in at.writes].count(503) == 3
            assert {sent.status for sent in at.writes} == {204, 503}
            found = [point[2]["v"] for table in range(7) for point in await at.read(f"table{table}")]
            assert sorted(found) == list(range(1_000))

    run_async(main)


@pytest.mark.parametrize("use_v2_api", [True, False])
def test_the_client_of_version_3_writes_with_all_its_options(run_async: RunAsync, tmp_path: Path, *, use_v2_api: bool) -> None:
    def work(url: str) -> None:
        options = WriteOptions3(write_type=SYNCHRONOUS_3.write_type, use_v2_api=use_v2_api, no_sync=not use_v2_api)
        with client_3(url, write_options=options, enable_gzip=True) as client:
            assert client.get_server_version() == "1.8.10"
            for number, precision in enumerate((WritePrecision3.S, WritePrecision3.MS, WritePrecision3.US, WritePrecision3.NS)):
                time = T0 * 10 ** (3 * number)
                point = Point3("cpu").tag("n", str(number)).field("v", number).time(time, precision)
                client.write(point, write_precision=precision)
            client.write([f"cpu,n=5 v={number}i {T0 + number}000000000" for number in range(100)])

    async def main() -> None:
        async with door(tmp_path) as at:
            await in_thread(work, at.url)
            paths = {"/api/v2/write" if use_v2_api else "/api/v3/write_lp"}
            assert ({sent.path for sent in at.writes}, {sent.status for sent in at.writes}) == (paths, {204})
            # Without a wait for the disk, the points are there a moment later.
            found = await at.read_at_least("cpu", 104)
            assert {(point[0]["n"], point[1], point[2]["v"]) for point in found} == {
                *((str(number), T0 * 10**9, number) for number in range(4)),
                *(("5", (T0 + number) * 10**9, number) for number in range(100)),
            }

    run_async(main)


LINES = ["cpu v=1i 1", "cpu v= 2", "cpu v=3i 3", "cpu v=tru 4"]


@pytest.mark.parametrize("accept_partial", [True, False])
def test_it_knows_each_refused_line(run_async: RunAsync, tmp_path: Path, *, accept_partial: bool) -> None:
    def work(url: str) -> InfluxDBPartialWriteError:
        options = WriteOptions3(write_type=SYNCHRONOUS_3.write_type, use_v2_api=False, accept_partial=accept_partial)
        with client_3(url, write_options=options) as client, pytest.raises(InfluxDBPartialWriteError) as caught:
            client.write(LINES)
        return caught.value

    async def main() -> None:
        async with door(tmp_path) as at:
            error = await in_thread(work, at.url)
            assert [(line.line_number, line.original_line) for line in error.line_errors] == [(2, LINES[1]), (4, LINES[3])]
            assert all(line.error_message for line in error.line_errors)
            # Times of 1 and 3 that have no unit are seconds to version 3, where the client does not say; it says nanoseconds.
            assert [point[1:] for point in await at.read("cpu")] == ([(1, {"v": 1}), (3, {"v": 3})] if accept_partial else [])

    run_async(main)


def test_batches_of_version_3_come_again_after_503(run_async: RunAsync, tmp_path: Path) -> None:
    failed: list[Any] = []

    def work(url: str) -> None:
        options = WriteOptions3(batch_size=50, flush_interval=200, retry_interval=500, max_retries=5, use_v2_api=False)
        callbacks = {"write_options": options, "error_callback": lambda *args: failed.append(args)}
        with InfluxDBClient3(url, token=SECRET, database="shop", write_client_options=callbacks) as client:
            for number in range(300):
                client.write(Point3("cpu").tag("host", "a").field("v", number).time(T0 * 10**9 + number))

    async def main() -> None:
        async with door(tmp_path) as at:
            go_away_for(at, 2)
            await in_thread(work, at.url)
            assert (failed, [sent.status for sent in at.writes].count(503)) == ([], 2)
            assert [point[2]["v"] for point in await at.read("cpu")] == list(range(300))

    run_async(main)
