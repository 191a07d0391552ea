"""Admission, as a service uses it. Nothing here is run: mypy and basedpyright read it."""

from __future__ import annotations

from typing import assert_never, assert_type

import outlast
from outlast.admission import (
    Concurrency,
    Criticality,
    Memory,
    Queue,
    Rate,
    Reason,
    Refusal,
    Refused,
    Throttle,
    Throttler,
    Ticket,
    TooLargeError,
    Waiting,
)
from outlast.jobs import Jobs
from outlast.postgres import Postgres

service = outlast.Service("shop")
admission = outlast.Admission(
    "orders",
    rate=Rate(1000),
    key_rate=Rate(50, burst=100),
    concurrency=Concurrency(limit_min=4, limit_max=100),
    memory=Memory(bytes_max=256 * 2**20),
    queue=Queue(target_s=0.005, interval_s=0.1),
    keys_max=1000,
)
bare = outlast.Admission("bare", concurrency=None, memory=None, queue=None)
admission.attach(service)
assert_type(admission.closed, bool)


# A decorated function keeps its arguments and its result.


def key_of(customer: str, number: int = 1) -> str:
    return f"{customer}/{number}"


@admission.admitted(key=key_of, tenant="shop", deadline_s=1.0)
async def settle(customer: str, number: int = 1) -> bytes:
    return customer.encode() * number


async def handler() -> tuple[int, float]:
    assert_type(await settle("a", number=2), bytes)
    try:
        async with admission.enter(key="a", tenant="b", size_bytes=10, criticality=Criticality.SHEDDABLE) as ticket:
            assert_type(ticket, Ticket)
            ticket.park()
            ticket.unpark()
            return 200, 0.0
    except Refused as refused:
        a_refusal_is_unavailable: outlast.Unavailable = refused
        assert_type(refused.reason, Reason)
        assert_type(refused.refusal, Refusal)
        assert_type(refused.retry_after_s, float)
        return 503, a_refusal_is_unavailable.since_s
    except TooLargeError as error:
        assert_type(error.fault, outlast.Fault)
        return 413, 0.0


def at_once() -> bool:
    got = admission.try_enter(cost=2.0, deadline_s=1.0)
    assert_type(got, Ticket | Refusal)
    if isinstance(got, Refusal):
        assert_type(got.retry_after_s, float | None)
        assert_type(admission.error(got), Refused | TooLargeError)
        return False
    with got:
        pass
    got.release(ok=None)
    return True


async def in_two_steps() -> Ticket | Refusal:
    got = admission.arrive(key="a")
    assert_type(got, Ticket | Waiting | Refusal)
    if isinstance(got, Waiting):
        assert_type(got.outcome(), Ticket | Refusal | None)
        got.on_outcome(lambda: None)
        got.release(ok=False)
        return await got.ticket()
    return got


def status(reason: Reason) -> int:
    match reason:
        case Reason.RATE | Reason.SHARE:
            return 429
        case Reason.DEADLINE | Reason.CONCURRENCY | Reason.MEMORY:
            return 503
        case _:
            assert_never(reason)


throttler = Throttler("payments", Throttle(k=2.0))


async def caller() -> None:
    async with throttler.call():
        pass
    assert_type(throttler.refusal(), outlast.Unavailable | None)
    throttler.record(accepted=True)
    throttler.record_fault(OSError())
    assert_type(throttler.refused, int)


jobs = Jobs(Postgres("postgresql://localhost/shop"), admission=admission)
