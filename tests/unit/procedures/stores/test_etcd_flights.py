"""Transactions to etcd that are sent together: nobody is left waiting, and one that holds up the others goes by itself."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, cast

from outlast.etcd import Compare, Get, Put, TxnResult
from outlast.procedures._stores.etcd._flights import Call, Flights
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.etcd import Etcd


class FakeEtcd:
    """Does a transaction unless it compares a key that is forbidden."""

    timeout_s = 5.0

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    async def txn(self, compare: Sequence[Compare], then: Sequence[Any], otherwise: Sequence[Get] = ()) -> TxnResult:
        for _ in range(self.rng.randrange(4)):
            await asyncio.sleep(0)
        if any(each.key == b"forbidden" for each in compare):
            return TxnResult(succeeded=False, revision=0, responses=[0] * len(otherwise))
        return TxnResult(succeeded=True, revision=1, responses=[0] * len(then))


def call(key: bytes, compare: bytes = b"free") -> Call:
    return Call([Compare.absent(compare)], [Put(key, b"1")], b"", "", None)


def test_nobody_is_left_waiting_whenever_a_flight_ends() -> None:
    async def whole(rng: random.Random) -> None:
        flights = Flights(cast("Etcd", FakeEtcd(rng)))

        async def sender(number: int) -> None:
            for _ in range(rng.randint(1, 4)):
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)
                assert await flights.send(call(b"%d" % number)) is not None

        async with asyncio.timeout(60):
            await asyncio.gather(*map(sender, range(3)))
        await flights.close()

    async def main() -> None:
        for seed in range(500):
            await whole(random.Random(seed))

    run_virtual(main)


def test_one_that_is_refused_stops_none_of_those_it_went_with() -> None:
    async def main() -> None:
        flights = Flights(cast("Etcd", FakeEtcd(random.Random(7))))
        calls = [call(b"%d" % number, b"forbidden" if number == 3 else b"free") for number in range(8)]
        answers = await asyncio.gather(*map(flights.send, calls))
        assert [answer is None for answer in answers] == [number == 3 for number in range(8)]

    run_virtual(main)
