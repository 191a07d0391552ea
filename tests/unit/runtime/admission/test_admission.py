"""The shell of admission, in virtual time: who comes in, who waits, who is refused, and that nothing is ever lost."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, TypeVar

import pytest

import outlast
from outlast.admission import Concurrency, Criticality, Queue, Rate, Reason, Refusal, Refused, Ticket, TooLargeError, Waiting
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.expected_logs("admission orders refuses work")

T = TypeVar("T")
TWO = Concurrency(limit_min=2, limit_start=2, limit_max=2)


def admission(**options: object) -> outlast.Admission:
    settings = {"concurrency": TWO, "memory": None, "rng": random.Random(7), **options}
    return outlast.Admission("orders", **settings)  # type: ignore[arg-type]


def enter_now(of: outlast.Admission, **asked: object) -> Ticket:
    got = of.try_enter(**asked)  # type: ignore[arg-type]
    assert isinstance(got, Ticket), got
    return got


def test_what_is_free_is_taken_and_what_is_full_is_refused_at_once() -> None:
    async def main() -> None:
        orders = admission()
        first, second = enter_now(orders), enter_now(orders)
        refusal = orders.try_enter()
        assert isinstance(refusal, Refusal)
        assert (refusal.reason, refusal.limit) == (Reason.CONCURRENCY, 2)
        first.release()
        enter_now(orders).release()
        second.release()
        assert repr(orders) == "<Admission orders, 0 under way, 0 waiting, 0 parked>"

    run_virtual(main())


def test_who_enters_waits_for_a_slot_within_the_bound_of_the_queue() -> None:
    async def main() -> list[str]:
        orders, loop, said = admission(), asyncio.get_running_loop(), list[str]()
        held = [enter_now(orders), enter_now(orders)]

        async def work() -> None:
            async with orders.enter() as ticket:
                said.append(f"in at {loop.time() - began_at:.2f}: {ticket!r}")

        began_at = loop.time()
        waiter = asyncio.create_task(work())
        await asyncio.sleep(0.05)
        said.append(repr(orders))
        held.pop().release()
        await waiter
        # Nobody goes out in time.
        held.append(enter_now(orders))
        began_at = loop.time()
        with pytest.raises(Refused) as refused:
            await work()
        said.append(f"refused by {refused.value.reason.value} at {loop.time() - began_at:.2f}")
        return said

    assert run_virtual(main()) == [
        "<Admission orders, 2 under way, 1 waiting, 0 parked>",
        "in at 0.05: <Ticket of orders, held>",
        "refused by concurrency at 0.10",
    ]


def ends(how: str) -> Callable[[], None]:
    def end() -> None:
        match how:
            case "well":
                return
            case "failed":
                raise LookupError
            case "cancelled":
                raise asyncio.CancelledError
            case _:
                raise KeyboardInterrupt

    return end


@pytest.mark.parametrize("how", ["well", "failed", "cancelled", "interrupted"])
def test_a_ticket_is_given_back_once_however_the_block_ends(how: str) -> None:
    async def main() -> None:
        orders = admission()
        for _ in range(5):
            try:
                async with orders.enter() as ticket:
                    ends(how)()
            except BaseException:  # noqa: BLE001, S110 - it is what ends the block
                pass
            ticket.release()
            with enter_now(orders) as other:
                other.release(ok=False)
            assert repr(ticket) == "<Ticket of orders, gone>"
        assert repr(orders) == "<Admission orders, 0 under way, 0 waiting, 0 parked>"

    run_virtual(main())


def test_a_waiter_that_is_cancelled_in_the_step_in_which_it_is_let_in_loses_no_slot() -> None:
    """Ten thousand rounds, in both orders: release and cancel, cancel and release."""

    async def main() -> None:
        orders = admission(rate=Rate(1e6))
        ran = 0

        async def work() -> None:
            nonlocal ran
            async with orders.enter():
                ran += 1

        keeper = enter_now(orders)
        for number in range(10_000):
            held = enter_now(orders)
            woken = asyncio.create_task(work())
            await asyncio.sleep(0)
            if number % 2:
                held.release()
                woken.cancel()
            else:
                woken.cancel()
                held.release()
            await asyncio.wait([woken])
            assert woken.cancelled()
        assert ran == 0
        assert repr(orders) == "<Admission orders, 1 under way, 0 waiting, 0 parked>"
        # The whole capacity is there, and the next waiter runs at once.
        held = enter_now(orders)
        waiter = asyncio.create_task(work())
        await asyncio.sleep(0)
        held.release()
        await asyncio.sleep(0)
        assert waiter.done()
        assert ran == 1
        keeper.release()

    run_virtual(main())


def test_the_slot_of_a_cancelled_waiter_goes_to_the_next() -> None:
    async def main() -> list[int]:
        orders, came = admission(), list[int]()
        held = [enter_now(orders), enter_now(orders)]

        async def work(number: int) -> None:
            async with orders.enter():
                came.append(number)

        waiters = [asyncio.create_task(work(number)) for number in range(3)]
        await asyncio.sleep(0)
        waiters[0].cancel()
        held.pop().release()
        waiters[1].cancel()
        await asyncio.wait(waiters)
        held.pop().release()
        assert repr(orders) == "<Admission orders, 0 under way, 0 waiting, 0 parked>"
        return came

    assert run_virtual(main()) == [2]


def test_waiters_that_are_dead_cost_no_token_and_no_place() -> None:
    """A thousand whose deadline has passed or who left, with one token: the live one comes in at once."""

    async def main() -> None:
        orders = admission(rate=Rate(0.001, burst=3), queue=Queue(interval_s=100.0))
        held = [enter_now(orders), enter_now(orders)]

        async def work(deadline_s: float | None = None) -> None:
            async with orders.enter(deadline_s=deadline_s):
                pass

        left = [asyncio.create_task(work()) for _ in range(500)]
        await asyncio.sleep(0)
        for task in left:
            task.cancel()
        # The last one waits, with the third token, until its time is over.
        dead = await asyncio.gather(*(work(seconds) for seconds in [-1.0, 0.0] * 250 + [0.05]), return_exceptions=True)
        assert len(dead) == 501
        assert {error.reason for error in dead if isinstance(error, Refused)} == {Reason.DEADLINE}
        assert repr(orders) == "<Admission orders, 2 under way, 0 waiting, 0 parked>"
        # Of three tokens two are used.
        live = asyncio.create_task(work())
        await asyncio.sleep(0)
        held.pop().release()
        await asyncio.sleep(0)
        assert live.done()
        await live
        refusal = orders.try_enter()
        assert isinstance(refusal, Refusal)
        assert refusal.reason is Reason.RATE
        held.pop().release()

    run_virtual(main())


def test_work_that_can_never_come_in_is_told_so_and_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        orders = admission(rate=Rate(10))
        refusal = orders.try_enter(cost=11)
        assert isinstance(refusal, Refusal)
        assert refusal.retry_after_s is None
        assert isinstance(orders.error(refusal), TooLargeError)
        with pytest.raises(TooLargeError, match="orders can never let this work in: rate"):
            async with orders.enter(cost=11):
                pass

    run_virtual(main())
    assert caplog.records == []


def test_a_refusal_says_since_when_it_goes_on() -> None:
    async def main() -> None:
        orders = admission(rate=Rate(0.5))
        enter_now(orders).release()
        assert isinstance(orders.try_enter(), Refusal)
        await asyncio.sleep(1.0)
        with pytest.raises(Refused) as refused:
            async with orders.enter():
                pass
        assert (refused.value.reason, refused.value.since_s) == (Reason.RATE, 1.0)
        # After the wait that it names it is let in at the first try.
        await asyncio.sleep(refused.value.retry_after_s)
        enter_now(orders).release()

    run_virtual(main())


def test_critical_work_comes_in_when_nothing_else_does() -> None:
    async def main() -> None:
        orders = admission(rate=Rate(2))
        held = [enter_now(orders), enter_now(orders)]
        assert isinstance(orders.try_enter(), Refusal)
        held.append(enter_now(orders, criticality=Criticality.CRITICAL))
        for ticket in held:
            ticket.release()

    run_virtual(main())


def test_parked_work_leaves_its_slot_to_others_and_is_counted_apart() -> None:
    async def main() -> None:
        orders = admission(parked_max=1)
        first, second = enter_now(orders), enter_now(orders)
        waiter = asyncio.create_task(hold(orders))
        await asyncio.sleep(0)
        first.park()
        first.park()
        assert repr(first) == "<Ticket of orders, parked>"
        await asyncio.sleep(0)
        assert repr(orders) == "<Admission orders, 2 under way, 0 waiting, 1 parked>"
        with pytest.raises(Refused, match="limit 1 "):
            second.park()
        first.unpark()
        first.unpark()
        assert repr(orders) == "<Admission orders, 3 under way, 0 waiting, 0 parked>"
        second.park()
        for ticket in (first, second):
            ticket.release()
            ticket.park()
            ticket.unpark()
        waiter.cancel()
        await asyncio.wait([waiter])
        assert repr(orders) == "<Admission orders, 0 under way, 0 waiting, 0 parked>"

    run_virtual(main())


async def hold(orders: outlast.Admission) -> None:
    async with orders.enter():
        await asyncio.get_running_loop().create_future()


def test_a_task_that_comes_back_at_once_waits_before_the_next_refusal() -> None:
    async def main() -> None:
        orders, loop = admission(rate=Rate(0.001)), asyncio.get_running_loop()
        enter_now(orders).release()
        began_at = loop.time()
        for _ in range(20):
            with pytest.raises(Refused):
                async with orders.enter():
                    pass
        # At once, after 1, 2, 4 ... 512 ms, and then after a second each.
        assert loop.time() - began_at == pytest.approx(1.023 + 9)

    run_virtual(main())


def test_a_server_asks_first_and_waits_later() -> None:
    async def main() -> None:
        orders = admission(queue=Queue(interval_s=0.1))
        held = [arrived(orders, Ticket), arrived(orders, Ticket)]
        first, second, third = (arrived(orders, Waiting) for _ in range(3))
        # What came before anybody waited for it is there, a ticket as well as a refusal.
        held.pop().release()
        ticket = await first.ticket()
        assert ticket is await first.ticket()
        assert repr(orders) == "<Admission orders, 2 under way, 2 waiting, 0 parked>"
        second.release()
        second.release()
        assert repr(orders) == "<Admission orders, 2 under way, 1 waiting, 0 parked>"
        await asyncio.sleep(0.2)
        with pytest.raises(Refused):
            await third.ticket()
        for gone in (second, third):
            gone.release()
            with pytest.raises(RuntimeError, match="ask the admission again"):
                await gone.ticket()
        assert repr(orders) == "<Admission orders, 2 under way, 0 waiting, 0 parked>"
        first.release()
        ticket.release()
        assert repr(orders) == "<Admission orders, 1 under way, 0 waiting, 0 parked>"

    run_virtual(main())


def test_a_server_is_told_what_has_come_of_what_waits_and_needs_no_task_for_it() -> None:
    async def main() -> None:
        orders, said = admission(queue=Queue(interval_s=0.1)), list[str]()
        held = [arrived(orders, Ticket), arrived(orders, Ticket)]
        waiting = [arrived(orders, Waiting) for _ in range(4)]
        for number, each in enumerate(waiting):
            each.on_outcome(lambda number=number: said.append(f"{number} is told"))
            assert each.outcome() is None
        waiting[1].release()
        held.pop().release()
        # Handed over in the same step, told soon after it.
        assert said == []
        await asyncio.sleep(0)
        assert said == ["0 is told"]
        ticket = waiting[0].outcome()
        assert isinstance(ticket, Ticket)
        assert waiting[0].outcome() is ticket
        assert await waiting[0].ticket() is ticket
        # A ticket that came to a client which had left by the time that it was told.
        held.pop().release()
        waiting[2].release()
        await asyncio.sleep(0)
        assert waiting[2].outcome() is None
        assert isinstance(waiting[3].outcome(), Ticket)
        late = arrived(orders, Waiting)
        late.on_outcome(lambda: said.append("late is told"))
        await asyncio.sleep(0.2)
        assert isinstance(late.outcome(), Refusal)
        late.on_outcome(lambda: said.append("again"))
        late.release()
        waiting[0].release()
        waiting[3].release()
        await asyncio.sleep(0)
        assert said == ["0 is told", "2 is told", "3 is told", "late is told", "again"]
        assert repr(orders) == "<Admission orders, 0 under way, 0 waiting, 0 parked>"

    run_virtual(main())


def arrived(orders: outlast.Admission, kind: type[T]) -> T:
    got = orders.arrive()
    assert isinstance(got, kind), got
    return got


def test_a_ticket_that_came_to_somebody_who_left_goes_to_the_next() -> None:
    async def main() -> None:
        orders = admission()
        held = [arrived(orders, Ticket), arrived(orders, Ticket)]
        first, second = arrived(orders, Waiting), arrived(orders, Waiting)
        held.pop().release()
        first.release()
        (await second.ticket()).release()
        held.pop().release()
        assert repr(orders) == "<Admission orders, 0 under way, 0 waiting, 0 parked>"

    run_virtual(main())


def fault(kind: outlast.Kind) -> BaseException:
    return outlast.OutlastError(kind.value, outlast.Fault(kind, kind.value, ""))


LATE = [outlast.Kind.TRANSIENT, outlast.Kind.CONTENDED, outlast.Kind.EXHAUSTED, outlast.Kind.OVERLOADED]
ENDS = [
    *((fault(kind), False if kind in LATE else None) for kind in outlast.Kind),
    (TimeoutError(), False),
    (asyncio.CancelledError(), False),
    (LookupError(), None),
    (SystemExit(), None),
]


@pytest.mark.parametrize(("exc", "ok"), ENDS, ids=[repr(exc) for exc, _ in ENDS])
def test_the_end_of_the_work_says_whether_its_time_counts(exc: BaseException, ok: object) -> None:
    samples: list[bool] = []

    async def main() -> None:
        orders = admission()
        limit = orders._desk.admitter._limit
        monkey = pytest.MonkeyPatch()
        monkey.setattr(type(limit), "sample", lambda limit, now, began_at, in_flight, ok: samples.append(ok))
        with monkey.context(), pytest.raises(type(exc)):
            async with orders.enter():
                raise exc
        monkey.undo()

    run_virtual(main())
    assert samples == ([] if ok is None else [ok])


def test_work_whose_coroutine_is_closed_leaves_nothing_behind() -> None:
    async def main() -> None:
        orders = admission()
        # Outside of a task: whoever drives a coroutine by hand may drop it at any point.
        under_way = [hold(orders), hold(orders), hold(orders)]
        for work in under_way:
            work.send(None)
        assert repr(orders) == "<Admission orders, 2 under way, 1 waiting, 0 parked>"
        under_way[2].close()
        assert repr(orders) == "<Admission orders, 2 under way, 0 waiting, 0 parked>"
        under_way[0].close()
        under_way[1].close()
        assert repr(orders) == "<Admission orders, 0 under way, 0 waiting, 0 parked>"

    run_virtual(main())


def test_it_may_be_used_on_one_event_loop_after_the_other() -> None:
    orders = admission()

    async def main() -> float:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        held = [enter_now(orders), enter_now(orders)]
        with pytest.raises(Refused):
            await hold(orders)
        took_s = loop.time() - began_at
        # The loop ends before this one's wait does.
        task = asyncio.create_task(hold(orders))
        await asyncio.sleep(0)
        assert repr(orders) == "<Admission orders, 2 under way, 1 waiting, 0 parked>"
        held.pop().release()
        held.pop().release()
        assert not task.done()
        return took_s

    for _ in range(3):
        # Its clock begins at 0 again.
        assert run_virtual(main()) == pytest.approx(0.1)
        assert repr(orders) == "<Admission orders, 0 under way, 0 waiting, 0 parked>"
