"""A service whose disk hangs forever in the sync of an append, and which is told to stop: run by `test_stuck_at_the_end`."""

from __future__ import annotations

import asyncio
import sys

from store_parts import disk_in_memory, entered

import outlast
from outlast.disk import Disk
from outlast.streams import Appended, Streams


def tell(task: asyncio.Task[Appended]) -> None:
    print(type(task.exception()).__name__, task.exception(), flush=True)  # noqa: T201 - its output is what the test reads


async def main() -> int:
    files = disk_in_memory()
    streams = Streams(Disk("/disk", name="disk", files=files))
    service = outlast.Service("shop", deadline_s=5.0)
    streams.attach(service)
    stop = outlast.Stop()

    @service.task()
    async def write(stop: outlast.Stop) -> None:
        orders = await streams.create("orders")
        hang = files.hang("sync_data")
        stuck = asyncio.create_task(orders.append(b"stuck"))
        stuck.add_done_callback(tell)
        await entered(hang)
        queued = asyncio.create_task(orders.append(b"queued"))
        queued.add_done_callback(tell)
        await stop.wait()

    asyncio.get_running_loop().call_later(0.5, stop.fire, "told to")
    return await service.run(stop)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
