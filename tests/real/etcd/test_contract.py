"""`Etcd` keeps the promises of an adapter: a real server behind a proxy that refuses and stands still."""

from __future__ import annotations

import asyncio
import contextlib
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from adapter_contract import AdapterContract, Failure, Rig

from outlast import Kind, Scope
from outlast.etcd import Etcd, Put, Watch
from outlast.testing import EtcdServer, FaultProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from conftest import RunAsync

SECRET = "hunter2-of-the-shop"
LOCK = "contract"


def text(data: str) -> str:
    return b64encode(data.encode()).decode()


class EtcdRig(Rig):
    secret = SECRET

    def __init__(self, server: EtcdServer, proxy: FaultProxy, run_async: RunAsync) -> None:
        self.dialled: list[float] = []
        self._server = server
        self._proxy = proxy
        self._run = run_async
        self._locked = False

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._run(main)

    def adapter(self) -> Etcd:
        adapter = Etcd(f"http://127.0.0.1:{self._proxy.port}", user="shop", password=SECRET, timeout_s=0.6, heartbeat_s=0.3)
        turn = adapter._gateway.pacer.turn

        async def noted() -> None:
            await turn()
            self.dialled.append(asyncio.get_running_loop().time())

        adapter._gateway.pacer.turn = noted  # type: ignore[method-assign]
        return adapter

    @contextlib.asynccontextmanager
    async def session(self, adapter: Etcd) -> AsyncIterator[Watch]:
        now = int(self._server.ask("kv/range", {"key": text("used")})["header"]["revision"])
        async with adapter.watch(b"used", after=now) as watch:
            yield watch

    async def use(self, session: Watch) -> None:
        self._server.ask("kv/put", {"key": text("used"), "value": ""})
        assert (await anext(session)).events

    async def call(self, adapter: Etcd) -> None:
        await adapter.get(b"key")

    async def slow(self, adapter: Etcd) -> None:
        """Wait for a lock that somebody has: etcd answers when it is free."""
        if not self._locked:
            self._locked = True
            lease = self._server.ask("lease/grant", {"TTL": "600"})["ID"]
            self._server.ask("lock/lock", {"name": text(LOCK), "lease": lease})
        lease = self._server.ask("lease/grant", {"TTL": "600"})["ID"]
        await adapter._ask("lock/lock", {"name": text(LOCK), "lease": lease}, None)

    def failures(self) -> dict[str, Failure]:
        secret = SECRET.encode()

        return {
            "a lease that is over": Failure(lambda adapter: adapter.lease_keepalive(7), Kind.REJECTED, Scope.CALL),
            "a key of such a lease": Failure(lambda adapter: adapter.put(secret, secret, lease=7), Kind.REJECTED, Scope.CALL),
            "a revision to come": Failure(lambda adapter: adapter.get(secret, revision=10**6), Kind.REJECTED, Scope.CALL),
            "a revision of before": Failure(lambda adapter: adapter.get(secret, revision=1), Kind.REJECTED, Scope.CALL),
            "a key twice": Failure(
                lambda adapter: adapter.txn([], [Put(secret, b""), Put(secret, b"")]), Kind.REJECTED, Scope.CALL
            ),
            "a large value": Failure(lambda adapter: adapter.put(b"k", secret * 10**5), Kind.REJECTED, Scope.CALL),
            "a long key": Failure(lambda adapter: adapter.get(secret * 1000), Kind.REJECTED, Scope.CALL),
            "a deadline over": Failure(lambda adapter: adapter.get(secret, deadline_s=0), Kind.TRANSIENT, Scope.CALL),
            "what etcd cannot do": Failure(lambda adapter: adapter._ask("nothing/there", {}, None), Kind.REJECTED, Scope.CALL),
        }

    def refuse(self) -> None:
        self._proxy.mode = "refuse"
        self._proxy.cut()

    def freeze(self) -> None:
        self._proxy.mode = "blackhole"

    def heal(self) -> None:
        self._proxy.mode = "pass"

    def held(self) -> int:
        return self._proxy.live

    def working(self) -> int:
        body = {"key": text(f"{LOCK}/"), "range_end": text(f"{LOCK}0"), "count_only": True}
        return int(self._server.ask("kv/range", body).get("count", 0)) - self._locked


@pytest.fixture(scope="module")
def guarded() -> Iterator[EtcdServer]:
    with EtcdServer() as server:
        found = server.ask("kv/put", {"key": text("key"), "value": ""})
        server.ask("kv/compaction", {"revision": found["header"]["revision"]})
        yield server


class TestEtcd(AdapterContract):
    @pytest.fixture
    def rig(self, guarded: EtcdServer, run_async: RunAsync) -> Iterator[EtcdRig]:
        with FaultProxy("127.0.0.1", guarded.port) as proxy:
            yield EtcdRig(guarded, proxy, run_async)
            guarded.ask("kv/deleterange", {"key": text(f"{LOCK}/"), "range_end": text(f"{LOCK}0")})
