"""One connection for many requests: the timer of an answer before ends neither a request that is under way nor one that waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from node_at_work import BYTES, STREAM, at_work
from served import get, post

from outlast.http import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunAsync

KEEP_ALIVE_S = 0.2
LIMITS = Limits(keep_alive_s=KEEP_ALIVE_S)


@pytest.mark.parametrize("times", [1, pytest.param(100, marks=pytest.mark.long)])
def test_what_takes_longer_than_the_pause_between_requests_is_answered(run_async: RunAsync, tmp_path: Path, times: int) -> None:
    async def main() -> None:
        async with at_work(tmp_path, limits=LIMITS, long_poll_s=3 * KEEP_ALIVE_S) as node, await node.served.connect() as client:
            client.send(get(f"{STREAM}a", f"Content-Type: {BYTES}", method="PUT"))
            assert (await client.answer()).status == 201
            for _ in range(times):
                # One that is answered, and one that was sent ahead of that.
                client.send(get(f"{STREAM}a", method="HEAD") + post(b"ahead", f"Content-Type: {BYTES}", path=f"{STREAM}a"))
                client.head = True
                assert (await client.answer()).status == 200
                client.head = False
                assert (await client.answer()).status == 204
                # A body that takes longer.
                whole = post(b"slow", f"Content-Type: {BYTES}", path=f"{STREAM}a")
                for part in (whole[:-2], whole[-2:-1], whole[-1:]):
                    client.send(part)
                    await asyncio.sleep(0.8 * KEEP_ALIVE_S)
                assert (await client.answer()).status == 204
                # A poll that takes longer.
                client.send(get(f"{STREAM}a?offset=now&live=long-poll"))
                assert (await client.answer()).status == 204
            assert node.served.cut == {}
            assert await client.rest() == b""
            assert node.served.cut == {"idle": 1}
            assert (await node.streams.open("a")).tail == 2 * times

    run_async(main, limit_s=170.0)
