"""What readers see around a crash: nothing that is not on the disk, and all that was acknowledged."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import sse_reader
from node_rig import TEXT, offset, serving
from store_parts import disk_in_memory, entered

from outlast.testing import run_virtual

if TYPE_CHECKING:
    from fake_files import FakeFiles


def killed(files: FakeFiles) -> FakeFiles:
    """Return the disk as the next process finds it, if this one is killed now."""
    copy = disk_in_memory()
    for path, content in sorted(files.tree().items()):
        if content is None:
            copy.make_folder(path)
        else:
            copy.put(path, content)
    return copy


def test_what_is_not_on_the_disk_yet_is_read_by_nobody() -> None:
    async def main() -> None:
        files = disk_in_memory()
        async with serving(files) as rig:
            await rig.put("a", TEXT, b"before")
            poll = rig.begin("GET", "a?offset=now&live=long-poll")
            events = rig.begin("GET", "a?offset=-1&live=sse")
            await asyncio.sleep(0.1)
            with files.hang("sync_data") as hang:
                append = rig.begin("POST", "a", TEXT, b"in flight")
                await entered(hang)
                found = killed(files)
                assert any(b"in flight" in (content or b"") for content in found.tree().values()), "it was written"
                assert (await rig.get("a")).body == b"before"
                assert (await rig.ask("HEAD", "a")).headers["stream-next-offset"] == offset(1)
                assert (await rig.get(f"a?offset={offset(1)}")).body == b""
                assert not poll.exchange.sent
                assert sse_reader.of(events.exchange.body, "data") == [b"before"]
            assert (await append.task).status in {200, 204}
            assert (await poll.task).body == b"in flight"
            await events.leave()
        async with serving(found) as rig:
            await rig.post("a", b"after")
            whole = await rig.get("a")
            assert whole.body in {b"beforeafter", b"beforein flightafter"}, "nobody was told, and no position has two contents"

    run_virtual(main)


@pytest.mark.parametrize("live", ["", "&live=long-poll", "&live=sse"])
def test_what_was_acknowledged_is_there_at_once_after_a_crash(live: str) -> None:
    async def main() -> float:
        files = disk_in_memory()
        async with serving(files) as rig:
            await rig.put("a", TEXT, b"one")
            await rig.post("a", b"two")
            found = killed(files)
        async with serving(found) as rig:
            began = asyncio.get_running_loop().time()
            reading = rig.begin("GET", f"a?offset={offset(1)}{live}")
            while b"two" not in reading.exchange.body:
                await asyncio.sleep(0.001)
            waited = asyncio.get_running_loop().time() - began
            await reading.leave()
            return waited

    assert run_virtual(main) < 1, "nobody waits for the next append, or for the end of a poll"
