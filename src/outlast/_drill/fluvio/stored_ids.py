"""The records of an arm that has a store, read back by a store that opens its folder afresh."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from outlast._drill.fluvio.arms.outlast_streams import NAME
from outlast._drill.fluvio.http_wire import PATH
from outlast._drill.fluvio.wire import id_of
from outlast.disk import Disk
from outlast.streams import Streams

if TYPE_CHECKING:
    from pathlib import Path


def ids_of_stream(folder: Path) -> list[int]:
    """Return the ids of the records in the stream of that folder. Raises what the store raises."""
    return asyncio.run(_ids(folder))


async def _ids(folder: Path) -> list[int]:
    # Nothing is kept free on a folder that is only read: no thread of the guard touches it when it is to be removed.
    async with Streams(Disk(folder, reserve_bytes=None)) as streams:
        stream = await streams.open(NAME)
        return [number async for record in stream.read() if (number := id_of(record.data)) is not None]


def ids_of_rakaia(folder: Path) -> list[int]:
    """Return the ids of the records in the stream of that folder. Raises what the store raises."""
    from rakaia import JsonlStreamStore

    messages, _ = JsonlStreamStore(folder).read(PATH)
    return [number for message in messages if (number := id_of(message.data)) is not None]
