"""A shop that puts an order into its outbox every tenth of a second: `outlast up demo:service`. See README.md."""

from __future__ import annotations

import itertools
import os

from outbox import Outbox

import outlast
from outlast.http import HttpPeer

peer = HttpPeer(os.environ.get("PEER", "http://127.0.0.1:8099"), name="peer", deadline_s=5.0)
box = Outbox(peer, os.environ.get("OUTBOX", "outbox.journal"))
service = outlast.Service("shop")
box.attach(service)
numbers = itertools.count()


@service.loop(every_s=0.1)
async def sell(_stop: outlast.Stop) -> None:
    """Sell something. While the outbox refuses, the loop waits as its refusal says."""
    key = await box.put(b"order %d" % next(numbers))
    if path := os.environ.get("ACCEPTED"):
        with open(path, "a", encoding="ascii") as file:  # noqa: ASYNC230, PTH123 - a line for a test to compare
            file.write(f"{key}\n")
