"""Requests put together at random: each is answered in the words of its API, none with 500, and what is 204 is there."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from metrics_door import door

from asgi_exchange import Exchange

if TYPE_CHECKING:
    from pathlib import Path

    from metrics_door import Door

    from conftest import RunAsync

STATUSES = frozenset({200, 204, 400, 404, 405, 413, 415, 429, 503})
PATHS = ("/write", "/api/v2/write", "/api/v3/write_lp", "/query", "/ping", "/health", "/ready", "/nothing")
WORDS = (
    *(b"cpu", b"m\\ em", b"time", b"v", b"w", b"sqlite_x", b"outlast_tables", b"host=a", b"x" * 300, "é".encode()),
    *(b'"', b"'", b";", b"\\", b"\x00", b"\xff", b"\xed\xa0\x80", b"=", b",", b" ", b"\n", b"\r\n", b"#", b"\xef\xbb\xbf", b""),
    *(b"1", b"1i", b"-1.5e3", b"1e400", b"9223372036854775807", b"18446744073709551615u", b"1700000000", b"nan"),
    *(b"t", b"TRUE", b'"text"', b'"a\nb"'),
)


class Random:
    """Requests of one seed."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def line(self) -> bytes:
        """A line that is right half of the time."""
        rng = self._rng
        if rng.random() < 0.5:
            field = rng.choice((b"v=1", b"v=1i", b"w=t", b's="x y"', b"v=2.5,w=f"))
            return b"cpu%d,host=%d %s %d" % (rng.randrange(5), rng.randrange(3), field, rng.randrange(10**9))
        return b"".join(rng.choices(WORDS, k=rng.randrange(12)))

    def body(self) -> tuple[bytes, dict[str, str]]:
        """A body, and the headers that go with it."""
        rng = self._rng
        body = b"\n".join(self.line() for _ in range(rng.randrange(6)))
        match rng.randrange(8):
            case 0:
                return gzip.compress(body), {"content-encoding": "gzip"}
            case 1:
                return gzip.compress(body)[: rng.randrange(30)], {"content-encoding": "gzip"}
            case 2:
                return zlib.compress(body), {"content-encoding": "deflate"}
            case 3:
                return body, {"content-encoding": rng.choice(("br", "gzip", "deflate", "\xff"))}
            case _:
                return body, {}

    def query(self) -> bytes:
        """Parameters, most of which an API knows."""
        rng = self._rng
        values = (
            "m",
            "s",
            "ms",
            "n",
            "auto",
            "true",
            "false",
            "",
            "%ff",
            "%00",
            "SHOW+DATABASES",
            "CREATE DATABASE a",
            "xx",
            "é",
        )
        names = ("db", "bucket", "precision", "org", "no_sync", "accept_partial", "q", "p", "rp", "x")
        chosen = [f"{rng.choice(names)}={rng.choice(values)}" for _ in range(rng.randrange(4))]
        if rng.random() < 0.7:
            chosen += ["db=m", "bucket=m"]
        return "&".join(chosen).encode()

    def exchange(self) -> Exchange:
        """One request."""
        rng = self._rng
        body, headers = self.body()
        if rng.random() < 0.2:
            headers["content-type"] = "application/x-www-form-urlencoded"
        if rng.random() < 0.2:
            headers["x-request-timeout"] = rng.choice(("5", "-1", "x", "1e9"))
        headers["content-length"] = str(len(body))
        path = rng.choice((*PATHS[:3], *PATHS[:3], *PATHS))
        fits = "POST" if "write" in path else "GET"
        method = fits if rng.random() < 0.9 else rng.choice(("POST", "GET", "HEAD", "PUT", "OPTIONS"))
        exchange = Exchange(method, path, headers={}, body=body)
        exchange.scope["headers"] = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        exchange.scope["query_string"] = self.query()
        return exchange


async def check(at: Door, seed: int, requests: int) -> Counter[int]:
    """Send requests, and look at each answer."""
    source = Random(seed)
    counts: Counter[int] = Counter()
    for number in range(requests):
        exchange = await source.exchange().run(at.recorder)
        sent = f"seed {seed}, request {number}: {exchange.scope}"
        counts[exchange.status] += 1
        assert exchange.status in STATUSES, sent
        if exchange.status == 204 or exchange.scope["method"] == "HEAD":
            assert exchange.body == b"", sent
        else:
            found: dict[str, Any] = exchange.json
            assert exchange.status == 200 or found.get("error") or found.get("message"), sent
        assert all(value.isascii() and value.isprintable() for value in exchange.headers.values()), sent
        assert ("retry-after" in exchange.headers) == (exchange.status in {429, 503}), sent
    return counts


async def still_takes(at: Door) -> None:
    """Write and read a point of its own."""
    exchange = Exchange("POST", "/write", {"content-length": "19"}, body=b"after,host=a v=1i 1")
    exchange.scope["query_string"] = b"db=m"
    assert (await exchange.run(at.recorder)).status == 204
    assert await at.read("after") == [({"host": "a"}, 1, {"v": 1})]


def test_every_request_has_an_answer_of_its_api_and_none_is_500(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with door(tmp_path) as at:
            counts = await check(at, 1, 2_000)
            # They are no test if they do not meet all of this.
            assert min(counts[status] for status in (200, 204, 400, 404, 405, 415)) >= 5, json.dumps(counts)
            await still_takes(at)

    run_async(main)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 12))
def test_nor_of_many(run_async: RunAsync, tmp_path: Path, seed: int) -> None:
    async def main() -> None:
        async with door(tmp_path) as at:
            await check(at, seed, 5_000)
            await still_takes(at)

    run_async(main, limit_s=170.0)
