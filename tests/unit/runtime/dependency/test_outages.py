"""What an outage of a dependency explains makes nobody wait longer after it; what it does not explain still does."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

import outlast
from outlast._core.own_waits import OwnWaits, refused_s
from outlast._runtime.service.link import Link, LinkState
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.expected_logs

OUTAGES = 100
LATE_S_MAX = 5.0
RESET = outlast.Fault(outlast.Kind.TRANSIENT, "ECONNRESET", "connection reset by peer", "peer")


class BusyError(Exception):
    """Somebody else holds it."""


def busy(exc: BaseException, phase: str) -> outlast.Fault | None:
    del phase
    scope = outlast.Scope.CALL
    return outlast.Fault(outlast.Kind.CONTENDED, "55006", "in use", "db", scope=scope) if isinstance(exc, BusyError) else None


class Server:
    """Goes away and comes back. For a second after its return it may hold what the last session had."""

    def __init__(self, *, holds: bool = False) -> None:
        self.gone, self.back_at, self.holds = asyncio.Event(), 0.0, holds
        self.db = outlast.Dependency("db", probe=self.ask, rng=random.Random(3), classifiers=outlast.Classifiers([busy]))

    async def ask(self) -> None:
        if self.gone.is_set():
            raise ConnectionRefusedError(111, "connection refused")

    @asynccontextmanager
    async def dial(self) -> AsyncIterator[None]:
        async with self.db.use():
            await self.ask()
        if self.holds and asyncio.get_running_loop().time() < self.back_at + 1.0:
            raise BusyError
        yield

    async def serve(self, session: None, stop: outlast.Stop) -> None:
        """Its trouble is the session's own: it is no evidence."""
        async with stop.timeout(None):
            await self.gone.wait()
        raise ConnectionResetError(104, "connection reset by peer")

    async def serve_guarded(self, session: None, stop: outlast.Stop) -> None:
        async with self.db.use():
            await self.serve(session, stop)

    async def go_and_come_back(self, seconds: float) -> None:
        self.gone.set()
        await asyncio.sleep(seconds)
        self.gone.clear()
        self.back_at = asyncio.get_running_loop().time()


def lateness(kind: str, up_s: float) -> tuple[list[float], float]:
    """Seconds from each return to the next session that serves, of a hundred outages in a row; the link's last wait."""

    async def main() -> tuple[list[float], float]:
        loop, stop, late, served = asyncio.get_running_loop(), outlast.Stop(), list[float](), asyncio.Event()
        server = Server(holds=kind == "the slot is still held")
        serve = server.serve_guarded if kind == "the guard sees it" else server.serve

        async def serving(session: None, stop: outlast.Stop) -> None:
            served.set()
            await serve(session, stop)

        needs = () if kind == "it is not among the needs" else (server.db,)
        link = Link("listener", dial=server.dial, serve=serving, needs=needs, rng=random.Random(5))
        service = outlast.Service("shop")
        link.attach(service, needs=needs)
        if kind == "another user sees it later":

            @service.loop(needs=server.db, every_s=0.7)
            async def settle(stop: outlast.Stop) -> None:
                async with server.db.use():
                    await server.ask()

        running = asyncio.create_task(service.run(stop))
        for number in range(OUTAGES):
            await asyncio.sleep(up_s)
            # Who does not name its needs cannot be told of what it does not meet.
            await server.go_and_come_back((0.2 if needs else 0.8) + number % 10 * 0.3)
            served.clear()
            if link.state is not LinkState.SERVING:
                await served.wait()
            late.append(loop.time() - server.back_at - (1.0 if server.holds else 0.0))
        stop.fire("test")
        assert await running == 0
        return late, link.wait_s

    return run_virtual(main)


KINDS = [
    "the guard sees it",
    "the session sees it first",
    "another user sees it later",
    "the slot is still held",
    "it is not among the needs",
]


@pytest.mark.parametrize("up_s", [0.3, 4.0])
@pytest.mark.parametrize("kind", KINDS)
def test_after_a_hundred_outages_in_a_row_the_session_is_up_within_five_seconds(kind: str, up_s: float) -> None:
    late, wait_s = lateness(kind, up_s)
    assert max(late) <= LATE_S_MAX
    assert wait_s <= LATE_S_MAX, "nor has any outage been held against it"


@pytest.mark.parametrize(("needed", "limit_s"), [(True, 1.0), (False, LATE_S_MAX)], ids=["needed", "not needed"])
def test_after_a_hundred_outages_in_a_row_a_loop_works_soon_after_the_prober_has_found_out(
    needed: bool,  # noqa: FBT001
    limit_s: float,
) -> None:
    """Its calls end late: some when the server is back already. One that does not name its needs waits up to 5 s."""

    async def main() -> list[float]:
        loop, stop, late, worked = asyncio.get_running_loop(), outlast.Stop(), list[float](), asyncio.Event()
        server, service, known_at = Server(), outlast.Service("shop", rng=random.Random(2)), 0.0

        def listen(state: outlast.State, first: outlast.Fault | None) -> None:
            nonlocal known_at
            known_at = loop.time()

        server.db.subscribe(listen)

        @service.loop(needs=server.db if needed else (), workers=3)
        async def settle(stop: outlast.Stop) -> None:
            async with server.db.use():
                if server.gone.is_set():
                    await stop.sleep(0.9)
                    raise ConnectionResetError(104, "connection reset by peer")
                await stop.sleep(0.1)
            worked.set()

        running = asyncio.create_task(service.run(stop))
        for _ in range(OUTAGES):
            await asyncio.sleep(2.0)
            await server.go_and_come_back(1.1)
            worked.clear()
            await worked.wait()
            late.append(loop.time() - max(known_at, server.back_at))
        stop.fire("test")
        assert await running == 0
        return late

    assert max(run_virtual(main)) <= limit_s + 0.1, "with the work, which takes a tenth of a second"


@pytest.mark.parametrize("flaps", [False, True], ids=["steady", "flapping"])
def test_a_peer_that_lets_in_and_throws_out_sees_few_sessions_whatever_the_dependency_does(flaps: bool) -> None:  # noqa: FBT001
    """The probe passes, each session is thrown out at once: by the session's own rhythm, or by that of the dependency."""

    async def main(seed: int) -> list[float]:
        loop, stop, sessions = asyncio.get_running_loop(), outlast.Stop(), list[float]()

        async def ask() -> None:
            return

        db = outlast.Dependency("db", probe=ask, rng=random.Random(seed))

        @asynccontextmanager
        async def dial() -> AsyncIterator[None]:
            sessions.append(loop.time())
            yield

        async def serve(session: None, stop: outlast.Stop) -> None:
            await asyncio.sleep(0.01)
            raise ConnectionResetError(104, "connection reset by peer")

        link = Link("listener", dial=dial, serve=serve, needs=(db,), rng=random.Random(seed))
        running = asyncio.create_task(link.run(stop))
        while flaps and loop.time() < 10:
            await asyncio.sleep(0.5)
            db.report(ConnectionRefusedError(111, "connection refused"))
        await asyncio.sleep(10 - loop.time())
        stop.fire("test")
        with pytest.raises(outlast.Stopping):
            await running
        await db.close()
        return sessions

    for seed in range(20):
        assert len(run_virtual(lambda seed=seed: main(seed))) <= 12  # type: ignore[misc]


def test_sessions_that_are_evidence_and_die_at_once_are_few() -> None:
    async def main(seed: int) -> int:
        server, stop, sessions = Server(), outlast.Stop(), 0

        async def serve(session: None, stop: outlast.Stop) -> None:
            nonlocal sessions
            sessions += 1
            async with server.db.use():
                raise ConnectionResetError(104, "connection reset by peer")

        link = Link("listener", dial=server.dial, serve=serve, needs=(server.db,), rng=random.Random(seed))
        asyncio.get_running_loop().call_later(10, stop.fire, "test")
        with pytest.raises(outlast.Stopping):
            await link.run(stop)
        await server.db.close()
        return sessions

    for seed in range(20):
        assert run_virtual(lambda seed=seed: main(seed)) <= 12  # type: ignore[misc]


def test_what_somebody_else_holds_while_all_is_well_is_no_trace_of_an_outage() -> None:
    async def main() -> float:
        server, stop = Server(holds=True), outlast.Stop()
        server.back_at = 1e9
        link = Link("listener", dial=server.dial, serve=server.serve, needs=(server.db,), rng=random.Random(1))
        asyncio.get_running_loop().call_later(100, stop.fire, "test")
        with pytest.raises(outlast.Stopping):
            await link.run(stop)
        return link.wait_s

    assert run_virtual(main) > LATE_S_MAX


@pytest.mark.parametrize("error", [ValueError("a bug"), PermissionError(13, "permission denied")], ids=["bug", "permanent"])
def test_what_no_outage_explains_is_held_against_the_session(error: Exception) -> None:
    """It meets a bug, or what a person must put right, while the dependency comes and goes."""

    async def main() -> Link[None]:
        server, stop = Server(), outlast.Stop()

        async def serve(session: None, stop: outlast.Stop) -> None:
            raise error

        link = Link("listener", dial=server.dial, serve=serve, needs=(server.db,), rng=random.Random(1))
        running = asyncio.create_task(link.run(stop))
        for _ in range(20):
            await asyncio.sleep(4.0)
            await server.go_and_come_back(2.0)
        stop.fire("test")
        with pytest.raises(outlast.Stopping):
            await running
        await server.db.close()
        return link

    link = run_virtual(main)
    assert link.wait_s > LATE_S_MAX
    assert link.incident.is_open


def test_the_newest_failures_are_taken_back_and_none_before_work_began() -> None:
    rng, waits = random.Random(1), OwnWaits(outlast.Backoff(0.5, 15.0))
    for _ in range(3):
        waits.failed(RESET, 0.0, rng)
    waits.worked()
    third = waits.state
    for _ in range(2):
        waits.failed(RESET, 0.0, rng)
    waits.take_back()
    assert waits.state is third, "both"
    waits.take_back()
    assert waits.state is third
    for _ in range(5):
        waits.failed(RESET, 0.0, rng)
    waits.take_back()
    assert waits.state.attempt == 5, "three of five"
    waits.forget()
    assert (waits.state.attempt, waits.reset_after_s()) == (0, 30.0)


def test_who_was_refused_comes_back_when_the_prober_has_asked_spread_and_soon() -> None:
    for retry_after_s in (0.1, 1.5, 60.0):
        drawn = [refused_s(retry_after_s, random.Random(seed)) for seed in range(500)]
        assert min(drawn) >= min(retry_after_s, LATE_S_MAX - 1.0)
        assert max(drawn) <= LATE_S_MAX
        assert max(drawn) - min(drawn) > 0.2 * min(drawn)
