"""A client that leaves while its append is on the disk: the append is stored, and the next one comes behind it."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

import pytest
from node_at_work import BYTES, STREAM, at_work, reset
from served import post

from fake_files import FakeFiles
from outlast.disk import Disk
from outlast.streams import Streams
from outlast.streams._commit import committer

if TYPE_CHECKING:
    from conftest import RunAsync


def by(sequence: int, *more: str) -> tuple[str, ...]:
    """The headers of an append of one producer."""
    return (f"Content-Type: {BYTES}", "Producer-Id: p", "Producer-Epoch: 0", f"Producer-Seq: {sequence}", *more)


@pytest.mark.parametrize("more", [(), ("Stream-Seq: {}",)], ids=["", "Stream-Seq"])
@pytest.mark.parametrize("leave", ["close", "reset"])
def test_an_append_whose_client_left_is_stored_once_and_blocks_nobody(
    run_async: RunAsync, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], leave: str
) -> None:
    # The disk does not count as one that hangs, however slow this machine is.
    monkeypatch.setattr(committer, "HANG_S", 60.0)

    async def main() -> None:
        files = FakeFiles(Random(1), capacity_bytes=64 << 20)
        files.make_folder("/disk")
        streams = Streams([Disk("/disk", name="/disk", files=files, rng=Random(1))], files=files)
        async with at_work(streams) as node:
            await node.create("a")
            with files.hang("write") as hang:
                first = node.begin(post(b"A", *by(0), *(each.format(0) for each in more), path=f"{STREAM}a"))
                assert await asyncio.to_thread(hang.entered.wait, 30)
                reset(first) if leave == "reset" else first.close()
                await node.served.until(lambda: all(connection._half_closed for connection in node.connections))
                second = asyncio.create_task(node.ask("POST", "a", *by(1), *(each.format(1) for each in more), body=b"B"))
                await node.served.until(lambda: node.requests == 3)
            assert (await second).status == 200
            stream = await node.streams.open("a")
            assert [record.data async for record in stream.read()] == [b"A", b"B"]
            again = await node.ask("POST", "a", *by(0), body=b"A")
            assert (again.status, stream.tail) == (204, 2)

    run_async(main)
