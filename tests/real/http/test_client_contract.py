"""`HttpPeer` keeps the promises of an adapter: a real server behind a proxy that refuses and stands still."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from adapter_contract import AdapterContract, Failure, Rig
from scripted_server import ScriptedServer

from outlast import Kind, Scope
from outlast.http import AnswerStream, HttpPeer
from outlast.testing import FaultProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from conftest import RunAsync

SECRET = "hunter2-of-the-shop"


def answering(path: str, kind: Kind) -> Failure:
    async def call(peer: HttpPeer) -> None:
        await peer.get(f"{path}?token={SECRET}", headers={"x-api-key": SECRET})

    return Failure(call, kind, Scope.CALL)


class HttpRig(Rig):
    secret = SECRET

    def __init__(self, server: ScriptedServer, proxy: FaultProxy, run_async: RunAsync, library: str) -> None:
        self.dialled: list[float] = []
        self._server = server
        self._proxy = proxy
        self._run = run_async
        self._library = library
        self._given: list[httpx.AsyncClient] = []

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def served() -> None:
            async with self._server:
                await main()
                for client in self._given:
                    await client.aclose()

        self._run(served)

    def adapter(self) -> HttpPeer:
        url = f"http://shop:{SECRET}@127.0.0.1:{self._proxy.port}/"
        client = None
        if self._library == "httpx":
            client = httpx.AsyncClient(trust_env=False)
            self._given.append(client)
        peer = HttpPeer(url, client=client, deadline_s=0.6, connect_timeout_s=2.0)
        turn = peer._pacer.turn

        async def noted() -> None:
            await turn()
            self.dialled.append(asyncio.get_running_loop().time())

        peer._pacer.turn = noted  # type: ignore[method-assign]
        return peer

    @contextlib.asynccontextmanager
    async def session(self, adapter: HttpPeer) -> AsyncIterator[AnswerStream]:
        async with adapter.stream("GET", "/drip") as answer:
            yield answer

    async def use(self, session: AnswerStream) -> None:
        assert await session.read()

    async def call(self, adapter: HttpPeer) -> None:
        await adapter.get("/ok")

    async def slow(self, adapter: HttpPeer) -> None:
        await adapter.get("/slow")

    def failures(self) -> dict[str, Failure]:
        return {
            "a wrong request": answering("/status/400", Kind.REJECTED),
            "nothing there": answering("/status/404", Kind.REJECTED),
            "a conflict": answering("/status/409", Kind.REJECTED),
            "no right": answering("/status/403", Kind.PERMANENT),
            "a lock": answering("/status/423", Kind.CONTENDED),
            "too many requests": answering("/status/429", Kind.OVERLOADED),
            "a bug of the peer's": answering("/status/500", Kind.TRANSIENT),
            "a gateway": answering("/status/502", Kind.TRANSIENT),
            "no room": answering("/status/507", Kind.EXHAUSTED),
            "a reset": answering("/reset", Kind.TRANSIENT),
            "half a body": answering("/half", Kind.TRANSIENT),
            "no HTTP": answering("/garbage", Kind.TRANSIENT),
            "a bad header": Failure(lambda peer: peer.get(headers={"x-key": f"{SECRET}\n"}), Kind.REJECTED, Scope.CALL),
        }

    def refuse(self) -> None:
        self._proxy.mode = "refuse"
        self._proxy.cut()

    def freeze(self) -> None:
        self._proxy.mode = "blackhole"

    def heal(self) -> None:
        self._proxy.mode = "pass"

    def held(self) -> int:
        return len(self._server.connections)

    def working(self) -> int:
        return self._server.working


@pytest.mark.parametrize("library", ["httpx2", "httpx"])
class TestHttpPeer(AdapterContract):
    @pytest.fixture
    def rig(self, run_async: RunAsync, library: str) -> Iterator[HttpRig]:
        server = ScriptedServer()
        with FaultProxy("127.0.0.1", server.port) as proxy:
            yield HttpRig(server, proxy, run_async, library)
