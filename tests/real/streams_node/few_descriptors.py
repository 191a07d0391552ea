"""A node in a process that may have 64 descriptors. Its argument: a folder. It prints its port."""

from __future__ import annotations

import os
import resource
import sys

import outlast
from outlast.http import Limits, Server
from outlast.streams import Node, StreamOptions, Streams

DESCRIPTORS = 64

resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
service = outlast.Service("few", deadline_s=5.0)
streams = Streams(sys.argv[1])
streams.attach(service)
# A few appends fill a segment, so that files have to be made all the time.
node = Node(streams, options=StreamOptions(segment_bytes=1 << 20)).attach(service)
server = Server(node, "127.0.0.1:0", limits=Limits(connections_max=None, connections_per_client_max=None)).attach(service)


@service.task(name="port")
async def port(stop: outlast.Stop) -> None:
    os.write(1, b"%d\n" % server.port)
    await stop.wait()


sys.exit(outlast.run(service))
