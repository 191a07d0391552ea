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

    def __init__(self) -> None:
        self.sent: list[int] = []

    async def txn(self, compare: Sequence[Compare], then: Sequence[Any], otherwise: Sequence[Get] = ()) -> TxnResult:
        self.sent.append(len(then))
        await asyncio.sleep(0)
        if any(each.key == b"forbidden" for each in compare):
            return TxnResult(succeeded=False, revision=0, responses=[0] * len(otherwise))
        return TxnResult(succeeded=True, revision=len(self.sent), responses=[0] * len(then))


def call(key: bytes, compare: bytes = b"free") -> Call:
    return Call([Compare.absent(compare)], [Put(key, b"1")], b"", "", None)


def test_nobody_is_left_waiting_whenever_a_flight_ends() -> None:
    async def main() -> None:
        etcd = FakeEtcd()
        flights = Flights(cast("Etcd", etcd))
        rng = random.Random(7)

        async def sender(number: int) -> None:
            for turn in range(50):
                assert await flights.send(call(b"%d" % number)) is not None
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)
                del turn

        async with asyncio.timeout(60):
            await asyncio.gather(*map(sender, range(5)))
        assert max(etcd.sent) > 2, "some went together"
        await flights.close()

    run_virtual(main)


def test_one_that_is_refused_stops_none_of_those_it_went_with() -> None:
    async def main() -> None:
        flights = Flights(cast("Etcd", FakeEtcd()))
        calls = [call(b"%d" % number, b"forbidden" if number == 3 else b"free") for number in range(8)]
        answers = await asyncio.gather(*map(flights.send, calls))
        assert [answer is None for answer in answers] == [number == 3 for number in range(8)]

    run_virtual(main)
