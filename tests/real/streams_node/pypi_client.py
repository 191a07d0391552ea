"""The client of the protocol on PyPI, as its users call it: prints what it saw as one line of JSON.

python pypi_client.py URL
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

import httpx
from durable_streams import DurableStream, DurableStreamError, stream

LIMIT_S = 60.0


class Tail(threading.Thread):
    """Follows a stream from an offset until it has had so many items."""

    def __init__(self, url: str, offset: str, live: Any, count: int) -> None:
        super().__init__(daemon=True)
        self.items: list[Any] = []
        self.failed: BaseException | None = None
        self._follow = (url, offset, live, count)

    def run(self) -> None:
        url, offset, live, count = self._follow
        try:
            with stream(url, offset=offset, live=live) as response:
                for item in response.iter_json():
                    self.items.append(item)
                    if len(self.items) == count:
                        return
        except Exception as exc:  # noqa: BLE001 - it is printed
            self.failed = exc


def main(base: str) -> dict[str, Any]:
    """Create, append, read, follow in both live modes, close, delete."""
    seen: dict[str, Any] = {}
    url = f"{base}/v1/stream/pypi/orders"
    with DurableStream.create(url, content_type="application/json") as orders:
        orders.append({"id": 1})
        orders.append({"id": 2})
        with stream(url, live=False) as response:
            seen["read"] = response.read_json()
        head = orders.head()
        tails = {live: Tail(url, str(head.offset), live, 3) for live in ("long-poll", "sse")}
        for tail in tails.values():
            tail.start()
        for number in (3, 4, 5):
            orders.append({"id": number})
        for live, tail in tails.items():
            tail.join(LIMIT_S)
            seen[live] = repr(tail.failed) if tail.failed else tail.items
        # This client cannot close a stream: somebody else does.
        httpx.post(url, headers={"stream-closed": "true"}).raise_for_status()
        with stream(url, live=False) as response:
            seen["closed"] = response.read_json()
        try:
            orders.append({"id": 6})
            seen["refused"] = "stored"
        except DurableStreamError as exc:
            seen["refused"] = exc.status
    with DurableStream.create(f"{base}/v1/stream/pypi/bytes", content_type="application/octet-stream") as raw:
        raw.append(b"\x00\xff\n\r")
        raw.append(b"\x01")
        with raw.stream(live=False) as response:
            seen["bytes"] = list(response.read_bytes())
        raw.delete()
        try:
            raw.head()
            seen["deleted"] = "there"
        except DurableStreamError as exc:
            seen["deleted"] = type(exc).__name__
    return seen


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))  # noqa: T201 - its output is what the test reads
