"""A start with no byte and no inode to spare, and a disk that has room but no inodes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from small_disks import MIB, NOTHING_WRONG, SMALL, all_go_on, compared, running, small_disk, until
from streams_ledger import Client, Ledger

from outlast import Kind, Unavailable
from outlast.streams import Streams

if TYPE_CHECKING:
    from pathlib import Path

    from outlast.testing import DiskKind

pytestmark = pytest.mark.expected_logs(r"disk .* (is down|unavailable)")


def take_all_inodes(folder: Path) -> int:
    """Make empty files until there is no inode; return how many."""
    for number in range(10_000):
        try:
            (folder / f"inode {number}").touch()
        except OSError:
            return number
    return 10_000


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_start_without_a_byte_or_an_inode_reads_trims_and_deletes_and_says_why_it_appends_nothing(kind: DiskKind) -> None:
    async def main() -> None:
        ledger = Ledger()
        async with Streams(disk.path) as streams:
            client = Client("p", await streams.create("s", SMALL), ledger, size=16_384)
            await (await streams.create("other", SMALL)).append(b"x")
            async with running([client]):
                await until(lambda: client.sequence * client.size > 3 * MIB)
        disk.fill(leave_bytes=0)
        assert take_all_inodes(disk.path.parent) > 0
        assert await compared_but("other", disk.path, ledger) == NOTHING_WRONG
        async with Streams(disk.path) as streams:
            stream = await streams.open("s")
            with pytest.raises(Unavailable) as refusal:
                await stream.append(b"refused")
            assert refusal.value.fault.kind is Kind.EXHAUSTED
            with pytest.raises(Unavailable):
                await streams.create("another")
            size_bytes = stream.size_bytes
            await stream.trim(stream.tail - 10)
            assert stream.size_bytes < size_bytes - MIB
            assert [record.position async for record in stream.read(stream.oldest)] == list(range(stream.tail - 10, stream.tail))
            await streams.delete("other")
            disk.free()
            for path in disk.path.parent.glob("inode *"):
                path.unlink()
            client = Client("q", stream, ledger)
            async with running([client]):
                await all_go_on([client])

    with small_disk(32 * MIB, kind, inodes=300) as disk:
        asyncio.run(main())


async def compared_but(name: str, path: Path, ledger: Ledger) -> dict[str, list]:  # type: ignore[type-arg]
    """Compare all streams but one."""
    async with Streams(path) as streams:
        names = [each for each in streams.names() if each != name]
        return ledger.compare([record for each in names async for record in (await streams.open(each)).read()])


async def create_many(streams: Streams) -> None:
    for number in range(100):
        await streams.create(f"another {number}")


def test_without_inodes_new_streams_are_refused_and_what_is_stored_is_whole() -> None:
    async def main() -> None:
        ledger = Ledger()
        async with Streams(disk.path) as streams:
            client = Client("p", await streams.create("s", SMALL), ledger)
            async with running([client]):
                await all_go_on([client])
                with pytest.raises(Unavailable) as refusal:
                    await create_many(streams)
                # Which it is depends on whether the disk was looked at before the last one was taken.
                assert refusal.value.fault.kind is Kind.EXHAUSTED
                assert refusal.value.fault.code in {"low inodes", "ENOSPC"}
                for name in streams.names():
                    if name != "s":
                        await streams.delete(name)
                await all_go_on([client])
            assert set(ledger.errors) <= {"Unavailable low inodes", "Unavailable ENOSPC"}
            assert disk.available_bytes > 16 * MIB
        assert await compared(disk.path, ledger) == NOTHING_WRONG

    with small_disk(32 * MIB, "tmpfs", inodes=100) as disk:
        asyncio.run(main())
