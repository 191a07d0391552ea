"""The store in etcd keeps the promises of a store of procedures, on a server."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from procedure_store_contract import ProcedureStoreContract
from procedure_store_rig import StoreRig

from outlast.etcd import Etcd
from outlast.procedures._stores.clock import StoreClock
from outlast.procedures._stores.etcd import EtcdStore
from outlast.procedures._stores.etcd import _layout as layout

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from outlast.procedures._model import Mine
    from outlast.testing import EtcdServer


class RigClock(StoreClock):
    """It stands still, but for a microsecond whenever it is read, until a test moves it."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        super().__init__()

    def since_start(self) -> float:
        self.ahead_s += 1e-6
        return self.ahead_s


class RigStore(EtcdStore):
    """Remembers its heartbeats by the rig's time: the leases are etcd's, whose time a test cannot move."""

    def __init__(self, rig: EtcdRig) -> None:
        super().__init__(Etcd(rig.url, prefix=rig.prefix), clock=rig.clock)
        self.rig = rig

    async def beat(self, runner: str, name: str, lease_s: float) -> Mapping[str, Mine]:
        mine = await super().beat(runner, name, lease_s)
        self.rig.leases[runner] = self.rig.clock.now() + lease_s
        return mine


class EtcdRig(StoreRig):
    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = f"{uuid.uuid4().hex}/"
        self.clock = RigClock()
        self.leases: dict[str, float] = {}

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(120):
                await main()

        asyncio.run(limited())

    def store(self) -> RigStore:
        return RigStore(self)

    async def advance(self, seconds: float) -> None:
        self.clock.ahead_s += seconds
        over = [runner for runner, until in self.leases.items() if until <= self.clock.now()]
        if over:
            etcd = Etcd(self.url, prefix=self.prefix)
            for runner in over:
                del self.leases[runner]
                held = await etcd.get(layout.RUNNERS + runner.encode())
                if held is not None:
                    await etcd.lease_revoke(held.lease)
            await etcd.put(layout.FENCE, b"")
            await etcd.close()


class TestTheStoreInEtcd(ProcedureStoreContract):
    walks, steps, races = 1, 50, 50
    is_whole = False

    @pytest.fixture
    def rig(self, etcd: EtcdServer) -> EtcdRig:
        return EtcdRig(etcd.url)

    @pytest.mark.long
    def test_pauses_are_listed_bounded_and_told(self, rig: StoreRig) -> None:
        """Make a thousand writes."""
        super().test_pauses_are_listed_bounded_and_told(rig)

    @pytest.mark.long
    def test_news_that_is_lost_is_said_to_be(self, rig: StoreRig) -> None:
        """Make a thousand writes."""
        super().test_news_that_is_lost_is_said_to_be(rig)


@pytest.mark.long
class TestTheStoreInEtcdAtLength(TestTheStoreInEtcd):
    walks, steps, races = 5, 400, 1_000
