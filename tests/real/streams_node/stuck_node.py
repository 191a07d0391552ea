"""A node whose disk hangs forever in the sync of an append, run as a process by `test_stuck_node`.

It prints its port, and a line when the disk hangs.
"""

from __future__ import annotations

import sys

from store_parts import disk_in_memory, entered

import outlast
from outlast.disk import Disk
from outlast.http import Server
from outlast.streams import Node, Streams

DEADLINE_S = 5.0


def build() -> outlast.Service:
    """Return the service; its disk hangs once the stream `orders` has been made."""
    files = disk_in_memory()
    streams = Streams(Disk("/disk", name="disk", files=files))
    service = outlast.Service("node", deadline_s=DEADLINE_S)
    streams.attach(service)
    server = Server(Node(streams).attach(service), "127.0.0.1:0").attach(service)

    @service.task()
    async def hang(stop: outlast.Stop) -> None:
        await streams.create("orders")
        call = files.hang("sync_data")
        print(server.port, flush=True)  # noqa: T201 - its output is what the test reads
        await entered(call)
        print("hangs", flush=True)  # noqa: T201
        await stop.wait()

    return service


if __name__ == "__main__":
    sys.exit(outlast.run(build()))
