"""A client at another server of the protocol: `rakaia-streams`, whose offsets are its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx2
import pytest
from node_transport import NodeTransport

from outlast.streams import Client, Producer, StreamClosedError, StreamError, StreamExistsError, StreamNotFoundError
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from outlast.streams import Batch

rakaia = pytest.importorskip("rakaia")
pytestmark = pytest.mark.expected_logs


@pytest.mark.parametrize("sse", [False, True], ids=["polls", "events"])
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/octet-stream"])
def test_what_is_appended_is_read_and_followed_to_the_end(content_type: str, *, sse: bool) -> None:
    async def main() -> None:
        transport = NodeTransport(rakaia.create_app())
        library = httpx2.AsyncClient(transport=transport, trust_env=False)
        async with Client("http://elsewhere", client=library) as client:
            orders = await client.create("orders", content_type=content_type)
            got: list[Batch] = []

            async def tail() -> None:
                got.extend([batch async for batch in orders.read(follow=True, sse=sse)])

            task = asyncio.create_task(tail())
            await asyncio.sleep(1.0)
            for number in range(5):
                assert not (await orders.append(b"%d" % number)).duplicate
                await asyncio.sleep(40.0)
            last = await orders.append(b"5", close=True)
            assert last.closed
            await task
            if content_type == "application/json":
                assert [message for batch in got for message in batch.messages] == list(range(6))
            else:
                assert b"".join(batch.data for batch in got) == b"012345"
            with pytest.raises(StreamClosedError):
                await orders.append(b"6")
            await orders.close()
            await orders.delete()
            with pytest.raises(StreamNotFoundError):
                await orders.head()

    run_virtual(main)


def test_producers_and_refusals_are_understood() -> None:
    async def main() -> None:
        library = httpx2.AsyncClient(transport=NodeTransport(rakaia.create_app()), trust_env=False)
        async with Client("http://elsewhere", client=library) as client:
            orders = await client.create("orders", content_type="text/plain")
            identity = Producer("importer", 0, 0)
            assert not (await orders.append("x", producer=identity)).duplicate
            assert (await orders.append("x", producer=identity)).duplicate
            with pytest.raises(StreamExistsError):
                await client.create("orders", content_type="application/json", exist_ok=True)
            with pytest.raises(StreamError, match="refuses this read"):
                [batch async for batch in orders.read("no offset")]
            with pytest.raises(StreamError, match="no node of Outlast"):
                await orders.records()

    run_virtual(main)
