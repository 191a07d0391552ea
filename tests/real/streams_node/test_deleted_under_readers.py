"""A stream that is deleted while others read it: nobody takes that for its end."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from node_at_work import STREAM, at_work
from served import get
from waiting_readers import Readers, gather

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunAsync

EACH = 10
LARGE = 16 << 20
"""More than the kernel takes of an answer that nobody reads."""


def test_all_who_read_a_stream_are_told_that_it_was_deleted(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with at_work(tmp_path) as node:
            await node.create("a", "text/plain")
            await (await node.streams.open("a")).append(b"one")
            port = node.served.server.port
            readers = Readers(port, "a")
            async with asyncio.TaskGroup() as group:
                polls = [group.create_task(node.ask("GET", "a?offset=now&live=long-poll")) for _ in range(EACH)]
                await gather(group, readers, 0, EACH)
                await node.served.until(lambda: node.held["readers"] == 2 * EACH)
                async with await node.served.connect() as client:
                    client.send(get(f"{STREAM}a", method="DELETE"))
                    assert (await client.answer()).status == 204
            assert [poll.result().status for poll in polls] == [404] * EACH
            assert readers.events == ["cut"] * EACH
            for text in readers.text:
                control, error = text.partition("event: error\ndata:")[::2]
                assert json.loads(error)["code"] == "no such stream"
                assert "streamClosed" not in text
                assert control.count("upToDate") == 1, "when it came, and never since"
            await node.served.until(lambda: node.held["readers"] == 0)

    run_async(main)


@pytest.mark.parametrize("again", [False, True])
def test_a_body_that_is_under_way_breaks_off(*, run_async: RunAsync, tmp_path: Path, again: bool) -> None:
    async def main() -> None:
        async with at_work(tmp_path, chunk_bytes=LARGE) as node:
            await node.create("large")
            await (await node.streams.open("large")).append([bytes(LARGE // 16)] * 16)
            async with await node.served.connect() as client:
                client.send(get(f"{STREAM}large"))
                head = await client.reader.readuntil(b"\r\n\r\n")
                assert b"content-length: %d\r\n" % LARGE in head
                await node.streams.delete("large")
                if again:
                    await node.create("large")
                assert len(await client.rest()) < LARGE

    run_async(main)
