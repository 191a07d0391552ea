"""Functions whose calls come in by an admission."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass
from typing import Any

import pytest

import outlast
from outlast.admission import Criticality, Rate, Reason, Refused
from outlast.testing import run_virtual

pytestmark = pytest.mark.expected_logs("admission orders refuses work")


@dataclass(frozen=True)
class Order:
    customer: str
    lines: int = 1


def orders() -> outlast.Admission:
    return outlast.Admission("orders", key_rate=Rate(1), memory=None)


def test_each_call_comes_in_by_what_its_arguments_say() -> None:
    async def main() -> None:
        admission = orders()

        @admission.admitted(
            key=lambda order: order.customer,
            cost=lambda order: order.lines,
            criticality=lambda order: Criticality.CRITICAL if order.customer == "ops" else Criticality.NORMAL,
        )
        async def settle(order: Order) -> str:
            """Settle it."""
            return f"{order.customer}: {admission!r}"

        assert await settle(Order("a")) == "a: <Admission orders, 1 under way, 0 waiting, 0 parked>"
        assert await settle(Order("b")) == "b: <Admission orders, 1 under way, 0 waiting, 0 parked>"
        with pytest.raises(Refused) as refused:
            await settle(Order("a"))
        assert refused.value.reason is Reason.RATE
        with pytest.raises(outlast.OutlastError, match="can never let this work in"):
            await settle(Order("c", lines=2))
        for _ in range(3):
            await settle(Order("ops"))
        assert (settle.__name__, settle.__doc__) == ("settle", "Settle it.")
        assert repr(admission) == "<Admission orders, 0 under way, 0 waiting, 0 parked>"

    run_virtual(main())


def test_values_may_be_given_as_they_are() -> None:
    async def main() -> None:
        admission = orders()

        @admission.admitted(key="settle", tenant="shop", deadline_s=1.0, size_bytes=10)
        async def settle(number: int, *, name: str = "") -> str:
            return name * number

        assert await settle(2, name="a") == "aa"
        with pytest.raises(Refused):
            await settle(1)

    run_virtual(main())


def plain() -> None: ...


async def stream() -> Any:
    yield 1


class Settles:
    async def __call__(self) -> int:
        return 1


@pytest.mark.parametrize(
    "function", [plain, stream, print, functools.partial(plain)], ids=["plain", "stream", "builtin", "partial"]
)
def test_what_is_no_async_function_is_refused_at_once_with_what_to_do(function: Any) -> None:
    with pytest.raises(outlast.ConfigurationError, match=r"admitted\(\) takes async functions, and .* try_enter\(\)"):
        orders().admitted()(function)


@pytest.mark.parametrize("function", [Settles(), functools.partial(Settles().__call__)], ids=["object", "partial"])
def test_whatever_is_awaited_may_be_decorated(function: Any) -> None:
    async def main() -> int:
        return await orders().admitted()(function)()

    assert run_virtual(main()) == 1


def test_a_cancelled_call_leaves_nothing_behind() -> None:
    async def main() -> None:
        admission = orders()

        @admission.admitted()
        async def settle() -> None:
            await asyncio.get_running_loop().create_future()

        call = asyncio.create_task(settle())
        await asyncio.sleep(0)
        assert repr(admission) == "<Admission orders, 1 under way, 0 waiting, 0 parked>"
        call.cancel()
        await asyncio.wait([call])
        assert repr(admission) == "<Admission orders, 0 under way, 0 waiting, 0 parked>"

    run_virtual(main())
