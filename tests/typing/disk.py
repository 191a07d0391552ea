"""The guard of a disk, as a service that stores files uses it."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import outlast
from outlast.disk import Disk, DiskRoom, SpaceLowError, Thresholds, disk_rule
from outlast.extend import LOCAL_FILES, Levels, attached

disk = Disk("/var/lib/shop")
fixed = Disk(Path("/var/lib/shop"), name="uploads", low=Levels(1 << 30, 2 << 30), reserve_bytes=None, files=LOCAL_FILES)
by_size = Disk("/var/lib/shop", low=Thresholds(share=0.1), inodes_low=Thresholds(least=100, most=1000, band=100))
classifiers = outlast.Classifiers([disk_rule])
disk.attach(outlast.Service("shop"))

assert_type(disk.path, Path)
assert_type(disk.room, DiskRoom)
assert_type(disk.room.available_bytes, int | None)
assert_type(disk.room.full_in_s, float | None)
assert_type(disk.is_lost, bool)
assert_type(disk.probes, int)
assert_type(disk.cleaning(len, "what frees room"), int)


def store(data: bytes) -> None:
    try:
        disk.admit(len(data))
    except SpaceLowError as error:
        assert_type(attached(error), outlast.Fault | None)


async def script() -> None:
    async with disk as opened:
        assert_type(opened, Disk)
        async with disk.use("upload"):
            disk.stuck("a write has not returned for 2 s")
        disk.try_again()
        await disk.ready(timeout_s=5.0)
