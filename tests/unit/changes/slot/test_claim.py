"""When a slot is claimed again after an attempt in vain, in virtual time and without a server."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import errors

from outlast import Stop
from outlast.changes._slot.claim import BACKOFF, LOOK_S, Claim
from outlast.postgres.replication._slots import slot_of
from outlast.postgres.sessions import Session
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

SEED = 20_261_129


class Watched(Claim):
    """Asks nobody: `reader` reads the slot, and each look is counted with its time."""

    def __init__(self) -> None:
        self.db: Any = SimpleNamespace(epoch=0)
        super().__init__(self.db, "shop", "shop", options={}, rng=random.Random(SEED))
        self.reader = 7
        self.looks: list[float] = []

    async def _holder(self) -> Session | None:
        self.looks.append(asyncio.get_running_loop().time())
        return Session(self.reader) if self.reader else None

    async def slot_state(self, name: str) -> Any:
        return slot_of({"slot_name": name, "active_pid": self.reader or None})

    async def give_up(self, times: int) -> None:
        """Be cancelled so often, each time after the reader was seen."""
        session: Any = self
        for _ in range(times):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await self.until_free(session, Stop())

    async def be_refused(self, times: int) -> list[float]:
        """Claim a slot that looks free and is not; gives the waits between the claims."""
        claims: list[float] = []

        async def start(*_: Any) -> None:
            claims.append(asyncio.get_running_loop().time())
            if len(claims) <= times:
                raise errors.ObjectInUse

        async def slot_state(_: str) -> None:
            return None

        session: Any = SimpleNamespace(start=start, slot_state=slot_state)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await self.start(session, 0, Stop())
        return claims

    async def waited(self) -> float:
        """How long it takes until a new session is worthwhile."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self.until_worthwhile(Stop())
        return loop.time() - began


def virtually(main: Callable[[Watched], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        await main(Watched())

    run_virtual(run)


def test_a_slot_that_its_reader_has_left_is_claimed_at_once_however_often_it_was_given_up() -> None:
    async def main(claim: Watched) -> None:
        await claim.give_up(12)
        claim.reader = 0
        assert await claim.waited() == 0.0
        assert len(claim.looks) == 1

    virtually(main)


def test_while_its_reader_stays_it_is_looked_at_twice_a_second_however_often_the_loop_crashes() -> None:
    async def main(claim: Watched) -> None:
        await claim.give_up(3)
        for _ in range(100):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await claim.until_worthwhile(Stop())
        assert len(claim.looks) <= 10.0 / LOOK_S[1] + 1
        asyncio.get_running_loop().call_later(20.0, setattr, claim, "reader", 0)
        assert 20.0 <= await claim.waited() <= 20.0 + LOOK_S[1]

    virtually(main)


def test_sessions_that_meet_a_new_reader_each_time_come_more_and_more_rarely() -> None:
    async def main(claim: Watched) -> None:
        waits: list[float] = []
        for reader in range(7, 17):
            claim.reader = reader
            await claim.give_up(1)
            claim.reader += 1_000
            waits.append(await claim.waited())
        assert sum(waits) >= 25.0
        assert max(waits) <= BACKOFF.cap_s

    virtually(main)


@pytest.mark.parametrize("outage", [False, True])
def test_what_an_outage_of_the_server_ended_makes_no_later_wait_longer(outage: bool) -> None:  # noqa: FBT001
    """Sessions that were given up because the server went away were not in vain; those that it refused were."""

    async def main(claim: Watched) -> None:
        for _ in range(10):
            claim.reader = 0
            await claim.be_refused(1)
            claim.reader = 7
            await claim.give_up(1)
            claim.db.epoch += outage
        claim.reader = 8
        waited_s = await claim.waited()
        assert waited_s == 0.0 if outage else waited_s >= BACKOFF.cap_s / 2

    virtually(main)
