"""The pool of a `Postgres` without a server: whose turn it is, what is a place, and that none is ever lost."""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING, Any

import pytest

from outlast import Kind, Scope
from outlast._core.faults import attached
from outlast._runtime.adapter.pacer import SPACING_S, Pacer
from outlast.postgres._pool.places import GRACE_S, IDLE_S_MAX, Places
from outlast.postgres._pool.pool import Connector, NoConnectionError, Pool
from outlast.postgres._pool.side import PLACES, Side
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

ROUNDS = 10_000


class DownError(Exception):
    pass


class Session:
    """A connection, and its session on the server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.open = True
        server.sessions.add(self)
        assert len(server.sessions) <= server.limit, "the server holds more of ours than it may"

    def end(self) -> None:
        self.open = False
        self.server.sessions.discard(self)


class Server:
    """What a pool dials: it holds sessions, and fails as told."""

    def __init__(self, limit: int = 2) -> None:
        self.limit = limit
        self.sessions: set[Session] = set()
        self.dials = 0
        self.dial: Callable[[], Coroutine[Any, Any, None]] = self.at_once
        self.refusal: Callable[[], Exception] | None = None
        self.failures: list[BaseException] = []
        self.pool: Pool[Session] = Pool(
            Connector(
                name="db",
                waiters_max=100,
                limit=lambda: self.limit,
                dial=self._dial,
                dial_refusal=lambda: self.refusal,
                dial_failed=self._failed,
                fits=lambda session: session.open,
                let_go=Session.end,
            )
        )

    async def at_once(self) -> None:
        await asyncio.sleep(0)

    async def _dial(self, pool: Pool[Session]) -> Session | None:
        await asyncio.sleep(0)
        if not pool.is_wanted():
            return None
        self.dials += 1
        await self.dial()
        session = Session(self)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            session.end()
            raise
        return session

    def _failed(self, exc: BaseException) -> bool:
        self.failures.append(exc)
        return True


def code(error: BaseException) -> str:
    fault = attached(error)
    assert fault is not None
    assert (fault.kind, fault.scope, fault.source) == (Kind.OVERLOADED, Scope.CALL, "db")
    return fault.code


def test_a_connection_is_lent_again_the_newest_first() -> None:
    async def main() -> None:
        server = Server()
        first, second = await server.pool.take(1), await server.pool.take(1)
        server.pool.give_back(first)
        server.pool.give_back(second)
        assert await server.pool.take(1) is second
        assert server.dials == 2

    run_virtual(main())


def test_those_who_wait_are_served_in_their_order_and_each_for_a_bounded_time() -> None:
    async def main() -> None:
        server, order = Server(limit=1), list[int]()
        first = await server.pool.take(1)

        async def wait(number: int) -> None:
            session = await server.pool.take(10)
            order.append(number)
            server.pool.give_back(session)

        tasks = [asyncio.create_task(wait(number)) for number in range(5)]
        await asyncio.sleep(1)
        with pytest.raises(NoConnectionError, match=r"no connection became free within 3 s: 1 of 1 are in use") as caught:
            await server.pool.take(3)
        assert code(caught.value) == "pool timeout"
        server.pool.give_back(first)
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2, 3, 4]

    run_virtual(main())


def test_no_more_wait_than_may() -> None:
    async def main() -> None:
        server = Server(limit=1)
        await server.pool.take(1)
        tasks = [asyncio.create_task(server.pool.take(5)) for _ in range(100)]
        await asyncio.sleep(0.1)
        with pytest.raises(NoConnectionError, match="100 wait for a connection already") as caught:
            await server.pool.take(5)
        assert code(caught.value) == "pool full"
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, NoConnectionError) for result in results)

    run_virtual(main())


def test_waiters_are_refused_at_once_though_a_dial_takes_no_notice_of_its_cancellation() -> None:
    async def main() -> None:
        server, loop = Server(), asyncio.get_running_loop()

        async def deaf() -> None:
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(30)
            await asyncio.sleep(30)

        server.dial = deaf
        tasks = [asyncio.create_task(server.pool.take(30)) for _ in range(20)]
        await asyncio.sleep(1)
        server.pool.clear(DownError)
        refused_at = loop.time()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert loop.time() == refused_at
        assert {type(result) for result in results} == {DownError}
        assert len(set(map(id, results))) == 20, "an error of one's own: tracebacks are not shared"
        assert len(server.pool.places.dialling) == 2, "their places are theirs until they have ended"
        server.dial = server.at_once
        session = asyncio.create_task(server.pool.take(60))
        await asyncio.sleep(31)
        assert (await session).open
        assert server.pool.places.taken <= server.limit

    run_virtual(main())


def test_a_dial_that_fails_is_told_to_one_waiter_and_the_next_is_dialled_for() -> None:
    async def main() -> None:
        server = Server(limit=1)

        async def fail() -> None:
            server.dial = server.at_once
            raise DownError

        server.dial = fail
        results = await asyncio.gather(server.pool.take(5), server.pool.take(0.5), return_exceptions=True)
        assert isinstance(results[0], DownError)
        assert isinstance(results[1], Session)
        assert len(server.failures) == 1

    run_virtual(main())


def test_while_nothing_may_be_dialled_those_wait_who_have_somebody_to_wait_for() -> None:
    async def main() -> None:
        server = Server(limit=2)
        first = await server.pool.take(1)
        server.refusal = DownError
        second = asyncio.create_task(server.pool.take(30))
        await asyncio.sleep(1)
        assert not second.done()
        server.pool.give_back(first)
        assert await second is first
        third = asyncio.create_task(server.pool.take(30))
        await asyncio.sleep(1)
        first.end()
        server.pool.give_back(first)
        with pytest.raises(DownError):
            await third
        with pytest.raises(DownError):
            await server.pool.take(30)

    run_virtual(main())


def test_a_place_that_was_given_up_is_taken_until_its_session_has_ended() -> None:
    async def main() -> None:
        server, loop = Server(limit=2), asyncio.get_running_loop()
        first, second = await server.pool.take(1), await server.pool.take(1)
        server.pool.give_up(first, "one")
        server.pool.give_back(first)
        waiting = asyncio.create_task(server.pool.take(30))
        await asyncio.sleep(GRACE_S + 1)
        assert not waiting.done(), "the other connection may come back"
        server.pool.give_up(second, "two")
        second_at = loop.time()
        with pytest.raises(
            NoConnectionError, match=r"^2 statements of ours have not ended on the server, the oldest since 5\.0 s"
        ):
            await waiting
        assert loop.time() == second_at + GRACE_S
        with pytest.raises(NoConnectionError) as caught:
            await server.pool.take(30)
        assert (code(caught.value), loop.time()) == ("not ended", second_at + GRACE_S)
        first.end()
        server.pool.ended("one")
        assert (await server.pool.take(1)).open
        with pytest.raises(NoConnectionError, match=r"1 of 2 are in use; 1 statement of ours has not ended"):
            await server.pool.take(1)

    run_virtual(main())


def test_what_lies_idle_for_long_is_closed_and_what_broke_is_not_lent() -> None:
    async def main() -> None:
        server = Server(limit=3)
        sessions = [await server.pool.take(1) for _ in range(3)]
        for session in sessions:
            server.pool.give_back(session)
            await asyncio.sleep(10)
        sessions[2].end()
        assert await server.pool.take(1) is sessions[1]
        server.pool.give_back(sessions[1])
        await asyncio.sleep(IDLE_S_MAX - 15)
        assert [session.open for session in sessions] == [False, True, False]
        await asyncio.sleep(16)
        assert not server.sessions

    run_virtual(main())


def test_after_the_limit_has_shrunk_connections_that_come_back_are_closed() -> None:
    async def main() -> None:
        server = Server(limit=4)
        sessions = [await server.pool.take(1) for _ in range(4)]
        server.limit = 2
        for session in sessions:
            server.pool.give_back(session)
        assert len(server.sessions) == 2

    run_virtual(main())


def test_a_pool_that_is_closed_keeps_nothing() -> None:
    async def main() -> None:
        server = Server()
        lent, idle = await server.pool.take(1), await server.pool.take(1)
        server.pool.give_back(idle)
        server.pool.close(DownError)
        server.pool.give_back(lent)
        assert not server.sessions

    run_virtual(main())


class Storm:
    """Callers that come and are each cancelled, given up, or go their way, at any step of the event loop."""

    def __init__(self, server: Server, rng: random.Random) -> None:
        self.rng = rng
        self.pool = server.pool
        server.dial = self.dial

    async def steps(self) -> None:
        for _ in range(self.rng.randrange(3)):
            await asyncio.sleep(0)

    async def dial(self) -> None:
        await self.steps()
        if self.rng.random() < 0.1:
            raise DownError

    async def call(self) -> None:
        session = await self.pool.take(self.rng.choice((0.0, 1.0, 1.0)))
        try:
            await self.steps()
            if self.rng.random() < 0.2:
                session.open = False
                self.pool.give_up(session, session)
                asyncio.get_running_loop().call_soon(self.end, session)
        finally:
            self.pool.give_back(session)

    def end(self, session: Session) -> None:
        session.end()
        self.pool.ended(session)

    async def round(self) -> None:
        tasks = [asyncio.create_task(self.call()) for _ in range(3)]
        await self.steps()
        for task in self.rng.sample(tasks, self.rng.randrange(3)):
            task.cancel()
        if self.rng.random() < 0.05:
            self.pool.clear(DownError)
        await asyncio.gather(*tasks, return_exceptions=True)


def test_no_place_is_lost_by_cancellation_time_out_failure_or_giving_up() -> None:
    async def main() -> None:
        server = Server(limit=2)
        pool, storm = server.pool, Storm(server, random.Random(7))
        for round_number in range(ROUNDS):
            await storm.round()
            assert not pool.waiting
            assert not pool.places.borrowed, round_number
        # What was dialled for somebody who had left meanwhile.
        await asyncio.sleep(1)
        assert (len(pool.places.dialling), len(pool.places.given_up)) == (0, 0)
        assert len(server.sessions) == len(pool.places.idle)
        server.dial = server.at_once
        assert len({await pool.take(1) for _ in range(server.limit)}) == server.limit

    run_virtual(main())


def test_beside_the_pool_two_are_dialled_at_a_time_and_what_was_given_up_counts() -> None:
    async def main() -> None:
        side, loop = Side("db"), asyncio.get_running_loop()
        places = [await side.enter(1) for _ in range(PLACES)]
        waiting = [asyncio.create_task(side.enter(30)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        side.leave(places[0])
        assert await waiting[1] is not None
        side.give_up("token")
        side.leave(places[1])
        await asyncio.sleep(1)
        assert not waiting[2].done()
        side.ended("token")
        side.leave(await waiting[2])
        side.leave(waiting[1].result())
        side.give_up("one")
        side.give_up("two")
        waiting[0] = asyncio.create_task(side.enter(30))
        await asyncio.sleep(GRACE_S + 0.1)
        assert isinstance(waiting[0].exception(), NoConnectionError)
        began_at = loop.time()
        with pytest.raises(NoConnectionError, match="2 statements of ours have not ended") as caught:
            await side.enter(30)
        assert (code(caught.value), loop.time()) == ("not ended", began_at)

    run_virtual(main())


def test_turns_lie_apart_on_a_machine_that_stutters_too(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = asyncio.sleep

    async def wake_late(seconds: float) -> None:
        """Wake at the next full tenth of a second, with all others."""
        now = asyncio.get_running_loop().time()
        await sleep(math.ceil((now + seconds) * 10 + 0.01) / 10 - now)

    async def main() -> list[float]:
        pacer, times = Pacer(), list[float]()

        async def ask() -> None:
            await pacer.turn()
            times.append(asyncio.get_running_loop().time())

        monkeypatch.setattr("outlast._runtime.adapter.pacer.asyncio.sleep", wake_late)
        await asyncio.gather(*(ask() for _ in range(30)))
        return times

    times = run_virtual(main())
    assert len(times) == 30
    assert all(later - earlier >= SPACING_S - 1e-9 for earlier, later in zip(times, times[1:], strict=False))


def test_dials_are_wanted_for_those_who_wait_and_for_whom_there_is_room() -> None:
    places: Places[str] = Places(borrowed={"a"}, dialling={1})
    assert [places.dials_wanted(waiting, 4) for waiting in (0, 1, 2, 3, 9)] == [0, 0, 1, 2, 2]
    assert places.dials_wanted(9, 1) == 0
