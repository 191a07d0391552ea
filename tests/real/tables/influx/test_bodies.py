"""Bodies as they come over a wire, and one bad point of each sort among a hundred good ones."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest
from metrics_door import SECRET, door
from served import get

from outlast.http import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from served import Answer

    from conftest import RunAsync

AUTH = f"Authorization: Token {SECRET}"
V1, V2, V3 = "/write?db=m", "/api/v2/write?bucket=m&org=o", "/api/v3/write_lp?db=m&precision=ns"


BAD = {
    "no field": b"cpu,host=a 51",
    "no value": b"cpu,host=a v= 51",
    "another type": b'cpu,host=a v="text" 51',
    "a time that is out of range": b"cpu,host=a v=51 9223372036854775807",
    "a time that is none": b"cpu,host=a v=51 now",
    "an integer too large": b"cpu,host=a v=9223372036854775808i 51",
    "a float too large": b"cpu,host=a v=1e400 51",
    "no number": b"cpu,host=a v=nan 51",
    "NUL in a tag": b"cpu,host=a\x00b v=51 51",
    "no UTF-8": b"cpu,host=\xff v=51 51",
    "a tag that is too long": b"cpu,host=" + b"x" * 3_000 + b" v=51 51",
    "a tag twice": b"cpu,host=a,host=b v=51 51",
    "a name that is too long": b"x" * 300 + b" v=51 51",
}


@pytest.mark.parametrize("sort", list(BAD))
def test_one_bad_point_is_400_once_and_the_good_ones_are_stored(run_async: RunAsync, tmp_path: Path, sort: str) -> None:
    lines = [b"cpu,host=a v=%d %d" % (number, number) for number in range(1, 102)]
    lines[50] = BAD[sort]

    async def main() -> None:
        async with door(tmp_path) as at:
            await at.send(b"cpu,host=a v=0 0", V1)
            for path, texts in ((V1, ["error"]), (V2, ["code", "message"]), (V3, ["error", "data"])):
                answer = await at.send(b"\n".join(lines), path)
                found = json.loads(answer.body)
                assert (answer.status, list(found)) == (400, texts)
                assert "retry-after" not in answer.headers
                if path is V3:
                    assert [line["line_number"] for line in found["data"]] == [51]
                else:
                    text = found[texts[-1]]
                    assert text.startswith("partial write: line 51"), text
                    assert text.endswith(" dropped=1")
            # Three times the same: an upsert.
            assert await at.values() == [float(number) for number in range(102) if number != 51]

    run_async(main)


def test_an_unknown_database_is_404_and_nothing_is_stored(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with door(tmp_path, databases=["known"]) as at:
            for path in (V1, V2, V3):
                assert (await at.send(b"cpu v=1 1", path)).status == 404
            assert await at.tables.tables() == []

    run_async(main)


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (b'cpu m="a\nb",v=1 1\ncpu v=2 2', 204, [1.0, 2.0]),
        (b"\xef\xbb\xbfcpu v=1i 1\r\n", 204, [1]),
        (b"cpu v=1 1\r\ncpu v=2 2\r\n", 204, [1.0, 2.0]),
        (b"\n\n# nothing\ncpu v=1 1", 204, [1.0]),
        (b'cpu v=1 1\ncpu v=2 2\ncpu m="open 3\ncpu v=4 4\ncpu v=5 5', 400, [1.0, 2.0]),
    ],
)
def test_borders_of_lines(run_async: RunAsync, tmp_path: Path, body: bytes, status: int, expected: list[Any]) -> None:
    async def main() -> None:
        async with door(tmp_path) as at:
            answer = await at.send(body, V1)
            assert (answer.status, await at.values()) == (status, expected)
            assert status == 204 or "line 3" in json.loads(answer.body)["error"]

    run_async(main)


PRECISIONS = [
    ("/write?db=m&precision=h", 472_222, 472_222 * 3_600 * 10**9),
    ("/write?db=m&precision=u", 1_700_000_000_000_001, 1_700_000_000_000_001_000),
    ("/api/v2/write?bucket=m&precision=us", 1_700_000_000_000_001, 1_700_000_000_000_001_000),
    ("/api/v2/write?bucket=m", 1_700_000_000, 1_700_000_000),
    ("/api/v3/write_lp?db=m", 1_700_000_000, 1_700_000_000 * 10**9),
    ("/api/v3/write_lp?db=m&precision=auto", 1_700_000_000_001, 1_700_000_000_001 * 10**6),
    ("/api/v3/write_lp?db=m&precision=nanosecond", 1_700_000_000, 1_700_000_000),
]


@pytest.mark.parametrize(("path", "time", "time_ns"), PRECISIONS)
def test_a_time_is_in_the_unit_of_its_api(run_async: RunAsync, tmp_path: Path, path: str, time: int, time_ns: int) -> None:
    async def main() -> None:
        async with door(tmp_path) as at:
            assert (await at.send(b"cpu v=1 %d" % time, path)).status == 204
            assert [point[1] for point in await at.read("cpu")] == [time_ns]

    run_async(main)


@pytest.mark.parametrize(
    "path", ["/write?db=m&precision=s", "/api/v2/write?bucket=m&precision=s", "/api/v3/write_lp?db=m&precision=s"]
)
def test_milliseconds_that_are_said_to_be_seconds_are_refused_alone(run_async: RunAsync, tmp_path: Path, path: str) -> None:
    async def main() -> None:
        async with door(tmp_path) as at:
            answer = await at.send(b"cpu v=1 1700000000\ncpu v=2 1700000001000\ncpu v=3 1700000002", path)
            assert (answer.status, b"line 2" in answer.body) == (400, True)
            assert await at.values() == [1.0, 3.0]

    run_async(main)


def test_lines_without_a_time_have_one_of_the_server_and_the_last_wins(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with door(tmp_path) as at:
            assert (await at.send(b"cpu v=1\ncpu v=2\ncpu v=3", V1)).status == 204
            assert await at.values() == [3.0]

    run_async(main)


def test_a_body_comes_packed_or_in_chunks_or_over_a_version_of_http_that_has_none(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with door(tmp_path) as at:
            packed = gzip.compress(b"cpu v=1 1\n")
            assert (await at.send(packed, V1, "Content-Encoding: gzip")).status == 204
            async with await at.served.connect() as client:
                head = get(V1, AUTH, "Transfer-Encoding: chunked", "Content-Encoding: gzip", method="POST")
                packed = gzip.compress(b"cpu v=2 2\n")
                chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in packed)
                client.send(head + chunks + b"0\r\n\r\n")
                assert (await client.answer()).status == 204
            # Icinga 2 speaks HTTP/1.0, names no type, and waits for the end of the connection.
            async with await at.served.connect() as client:
                lines = b"cpu,hostname=shop1,metric=load v=3,min=0 3"
                head = f"POST {V1}&precision=s HTTP/1.0\r\n{AUTH}\r\nContent-Length: {len(lines)}\r\n\r\n"
                client.send(head.encode() + lines)
                answer = await client.answer()
                assert (answer.status, answer.body, await client.rest()) == (204, b"", b"")
            assert await at.values() == [1.0, 2.0, 3.0]

    run_async(main)


def test_a_bomb_and_a_line_of_ten_megabytes_are_refused_and_the_server_goes_on(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with door(tmp_path) as at:
            bomb = gzip.compress(b"\0" * (64 << 20), compresslevel=1)
            assert (await at.send(bomb, V1, "Content-Encoding: gzip")).status == 413
            assert (await at.send(gzip.compress(bomb), V1, "Content-Encoding: gzip, gzip")).status == 415
            text = b"x" * (10 << 20)
            answer = await at.send(b'cpu v=1 1\ncpu s="%s" 2\ncpu v=3 3' % text, V1)
            assert answer.status == 400
            assert json.loads(answer.body)["error"].startswith("partial write: line 2")
            assert len(answer.body) < 1_000
            answer = await at.send(b"%s v=1 1" % text, V1)
            assert (answer.status, len(answer.body) < 1_000) == (400, True)
            assert await at.values() == [1.0, 3.0]

    run_async(main)


@pytest.mark.parametrize("path", [f"{V1}&db=m", f"{V2}&bucket=n", f"{V3}&precision=s", f"{V1}&u=a&p=x&p=y"])
def test_a_parameter_that_comes_twice_is_refused(run_async: RunAsync, tmp_path: Path, path: str) -> None:
    async def main() -> None:
        async with door(tmp_path) as at:
            assert (await at.send(b"cpu v=1 1", path)).status == 400

    run_async(main)


PLACES = [
    (f"Authorization: Token {SECRET}", ""),
    (f"Authorization: Token anybody:{SECRET}", ""),
    (f"Authorization: Bearer {SECRET}", ""),
    ("Authorization: Basic Y29sbGVjdG9yOmNvbGxlY3Rvci1zZWNyZXQtMDEyMzQ1Njc4OQ==", ""),
    ("X-Nothing: at all", f"u=collector&p={SECRET}"),
]


@pytest.mark.parametrize(("header", "query"), PLACES)
def test_handshakes_and_a_write_with_a_secret_in_each_place(run_async: RunAsync, tmp_path: Path, header: str, query: str) -> None:
    async def main() -> None:
        async with door(tmp_path) as at, await at.served.connect() as client:

            async def ask(path: str, method: str = "GET", body: bytes = b"") -> Answer:
                target = path + ("&" if "?" in path else "?") * bool(query) + query
                client.send(get(target, header, f"Content-Length: {len(body)}", method=method) + body)
                return await client.answer()

            for method in ("GET", "POST"):
                created = await ask("/query?q=CREATE%20DATABASE%20%22m%22", method)
                assert (created.status, json.loads(created.body)) == (200, {"results": [{"statement_id": 0}]})
            shown = json.loads((await ask("/query?q=SHOW+DATABASES")).body)
            assert shown["results"][0]["series"][0]["values"] == [["m"]]
            assert (await ask("/write?db=m", "POST", b"cpu v=1 1")).status == 204
            assert await at.values() == [1.0]

    run_async(main)


def test_without_a_token_only_handshakes_are_answered(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with door(tmp_path) as at, await at.served.connect() as client:
            statuses = {"/ping": 204, "/health": 200, "/ready": 200, "/query?q=SHOW+DATABASES": 401, V1: 401}
            for path, status in statuses.items():
                client.send(get(path))
                answer = await client.answer()
                assert answer.status == status
                assert status == 401 or answer.headers["x-influxdb-version"] == "1.8.10"
            async with await at.served.connect() as other:
                other.head = True
                other.send(get("/ping", method="HEAD"))
                assert (await other.answer()).headers["x-influxdb-version"] == "1.8.10"

    run_async(main)


def test_a_body_beyond_the_limit_of_the_application_is_413_in_the_words_of_its_api(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with door(tmp_path, body_bytes_max=1_000) as at:
            for path, text in ((V1, "error"), (V2, "message"), (V3, "error")):
                answer = await at.send(b"cpu v=1 1\n" * 101, path)
                assert answer.status == 413
                assert json.loads(answer.body)[text].startswith("the body is larger than the 1000 bytes")
            assert Limits().body_bytes_max == 16 << 20
            assert await at.tables.tables() == []

    run_async(main)
