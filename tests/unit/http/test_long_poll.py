"""Long polls: until there is a value, the time is over, the service stops or the client leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asgi_exchange import Exchange
from outlast import Stop
from outlast.http import Polled, PollEnd, long_poll
from outlast.testing import run_virtual
from tickets import Ticket


class Poll:
    """A poll under way, as a handler makes it."""

    def __init__(self, *, wait_s: float = 25.0, stop: Stop | None = None) -> None:
        self.ticket = Ticket()
        self.exchange = Exchange(extensions={"outlast.ticket": self.ticket, "outlast.stop": stop or Stop()})
        self.value: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.cleaned_up = False
        self.task = asyncio.create_task(long_poll(self.exchange.scope, self.exchange.receive, self.waits(), wait_s=wait_s))

    async def waits(self) -> str:
        try:
            return await self.value
        finally:
            self.cleaned_up = True


def test_a_value_ends_it_and_takes_the_slot_again() -> None:
    async def main() -> None:
        poll = Poll()
        await asyncio.sleep(5)
        assert poll.ticket.state == "parked"
        poll.value.set_result("order 7")
        assert await poll.task == Polled("order 7")
        assert poll.ticket.state == "under way"

    run_virtual(main)


def test_the_time_ends_it() -> None:
    async def main() -> float:
        poll = Poll(wait_s=25)
        assert await poll.task == Polled(ended=PollEnd.TIME)
        assert (poll.ticket.state, poll.cleaned_up) == ("parked", True)
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 25


def test_the_stop_ends_it_at_once() -> None:
    async def main() -> float:
        stop = Stop()
        poll = Poll(stop=stop)
        await asyncio.sleep(3)
        stop.fire("SIGTERM")
        assert await poll.task == Polled(ended=PollEnd.STOP)
        assert poll.cleaned_up
        late = Poll(stop=stop)
        assert await late.task == Polled(ended=PollEnd.STOP)
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 3


@pytest.mark.parametrize("turns", range(6))
def test_the_client_s_leaving_ends_it_at_once(turns: int) -> None:
    async def main() -> float:
        poll = Poll()
        for _ in range(turns):
            await asyncio.sleep(0)
        poll.exchange.leave()
        assert await poll.task == Polled(ended=PollEnd.CLIENT)
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 0


@pytest.mark.parametrize("cancels", [1, 2])
def test_a_cancellation_ends_what_is_waited_for_first(cancels: int) -> None:
    async def main() -> None:
        poll = Poll()
        await asyncio.sleep(1)
        for _ in range(cancels):
            poll.task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait({poll.task})
        assert poll.task.cancelled()
        assert poll.cleaned_up

    run_virtual(main)


def test_what_is_waited_for_may_fail() -> None:
    async def main() -> None:
        poll = Poll()
        poll.value.set_exception(LookupError("no such order"))
        with pytest.raises(LookupError):
            await poll.task
        assert poll.ticket.state == "under way"

    run_virtual(main)


def test_where_as_many_are_parked_as_may_be_it_is_refused_and_nothing_is_left() -> None:
    async def main() -> None:
        poll = Poll()
        poll.ticket.refuses = True
        with pytest.raises(RuntimeError, match="parked"):
            await poll.task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(main)


def test_it_works_on_any_server() -> None:
    async def main() -> None:
        exchange = Exchange()
        value: Any = asyncio.sleep(2, "done")
        assert await long_poll(exchange.scope, exchange.receive, value) == Polled("done")

    run_virtual(main)
