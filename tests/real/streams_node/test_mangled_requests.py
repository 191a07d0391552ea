"""Requests whose bytes were mangled, over sockets: each is answered or cut, none is a bug, and the node goes on."""

from __future__ import annotations

import asyncio
import json
from random import Random
from typing import TYPE_CHECKING

import pytest
from node_at_work import STREAM, at_work
from served import get, post

from outlast.http import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunAsync

JSON = "Content-Type: application/json"
PRODUCER = ("Producer-Id: p", "Producer-Epoch: 0", "Producer-Seq: 0")
SEEDS = [
    get(f"{STREAM}b", JSON, "Stream-TTL: 60", method="PUT"),
    post(b"[1, 2]", JSON, *PRODUCER, "Stream-Seq: a", path=f"{STREAM}a"),
    post(b"", "Stream-Closed: true", path=f"{STREAM}b"),
    get(f"{STREAM}a?offset=0000000000000001", 'If-None-Match: "a"'),
    get(f"{STREAM}a?offset=-1&live=sse&cursor=12"),
    get(f"{STREAM}a?offset=now&live=long-poll", "X-Request-Timeout: 0.1"),
    get(f"{STREAM}a", method="HEAD"),
    get(f"{STREAM}b", method="DELETE"),
    get("/v1/streams?prefix=a&limit=2"),
    get("/v1/streams/a/records?from=0&limit=1&wait_s=0.1"),
    post(b'{"before": 1}', JSON, path="/v1/streams/a/trim"),
    post(b'{"records_max": 1, "wait_s": 0.1}', JSON, path="/v1/streams/a/consumers/c/fetch"),
    get(f"{STREAM}a", "Transfer-Encoding: chunked", JSON, method="POST") + b"3\r\n[1]\r\n0\r\n\r\n",
]
ODD = [b" ", *b"\0 \r\n \n \x80 \xff % %2f %00 0 99999999999999999999 - : \t ? & = \x85 ,".split(b" ")]


def mangled(rng: Random) -> bytes:
    """Return a request that was right, with a few bytes or lines of it changed."""
    request = bytearray(rng.choice(SEEDS))
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        at = rng.randrange(len(request))
        match rng.randrange(5):
            case 0:
                request[at : at + rng.randrange(4)] = rng.choice(ODD)
            case 1:
                request[at:at] = rng.choice(ODD)
            case 2:
                request[at] ^= 1 << rng.randrange(8)
            case 3:
                lines = bytes(request).split(b"\r\n")
                lines.insert(1 + rng.randrange(len(lines)), rng.choice(bytes(rng.choice(SEEDS)).split(b"\r\n")))
                request = bytearray(b"\r\n".join(lines))
            case _:
                del request[at:]
                request += bytes(rng.choice(SEEDS))[at:]
    return bytes(request)


@pytest.mark.parametrize("times", [400, pytest.param(4_000, marks=pytest.mark.long)])
@pytest.mark.timeout(1_200)
def test_mangled_requests_are_answered_or_cut(run_async: RunAsync, tmp_path: Path, times: int) -> None:
    rng = Random(times)
    quick = Limits(headers_s=0.5, body_s=0.5, drain_s=0.5, connections_per_client_max=None)

    async def main() -> None:
        async with at_work(tmp_path, limits=quick, long_poll_s=0.1, sse_s=0.1) as node:
            await node.ask("PUT", "a", JSON)

            async def send(request: bytes) -> bytes:
                async with await node.served.connect() as client:
                    client.send(request)
                    client.half_close()
                    try:
                        return await client.rest()
                    except ConnectionError:
                        return b""

            answered = 0
            for _ in range(times // 20):
                requests = [mangled(rng) for _ in range(20)]
                for request, answer in zip(requests, await asyncio.gather(*map(send, requests)), strict=True):
                    if not answer:
                        continue
                    answered += 1
                    head, _, body = answer.partition(b"\r\n\r\n")
                    status = int(head.split()[1])
                    assert status < 500 or status in {501, 503}, (request, answer)
                    if status >= 400 and b"application/problem+json" in head and not request.startswith(b"HEAD"):
                        assert json.JSONDecoder().raw_decode(body.decode())[0]["code"], (request, answer)
                    else:
                        assert status < 400 or not body or request.startswith(b"HEAD"), (request, answer)
            assert answered > times // 2
            assert (await node.ask("PUT", "c", JSON)).status == 201
            await node.served.until(lambda: not node.served.open)
            assert node.readers == 0

    run_async(main, limit_s=1_000.0)
