"""A server whose requests are large, for a process with little memory. Its arguments: `memory` or `none`. It prints its port."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import outlast
from outlast.admission import Memory
from outlast.http import Limits, Server

HOLD_S = 1.0

service = outlast.Service("hungry", deadline_s=5.0)
admission = None
if sys.argv[1] == "memory":
    # Nothing but the memory keeps anybody out.
    admission = outlast.Admission("hungry", concurrency=None, memory=Memory())
    admission.attach(service)


async def keep(scope: Any, receive: Any, send: Any) -> None:
    """Keep the whole body for a while, as a handler does that works on it."""
    if scope["type"] != "http":
        return
    parts: list[bytes] = []
    while (message := await receive())["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    await asyncio.sleep(HOLD_S)
    text = b"%d" % sum(map(len, parts))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


limits = Limits(connections_per_client_max=None, body_bytes_max=8 * 2**20)
server = Server(keep, "127.0.0.1:0", admission=admission, limits=limits).attach(service)


@service.task(name="port")
async def port(stop: outlast.Stop) -> None:
    os.write(1, b"%d\n" % server.port)
    await stop.wait()


sys.exit(outlast.run(service))
