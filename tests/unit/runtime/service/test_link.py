"""A session that is kept up: a pre-check that passes resets nothing."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

import outlast
from outlast._runtime.service.link import Link, LinkState
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.expected_logs


class Peer:
    """A peer whose dial and check always work; what its sessions do is up to the test."""

    def __init__(self, lives_s: float, until: float = float("inf")) -> None:
        self.lives_s, self.until = lives_s, until
        self.dialled: list[float] = []
        self.checked = self.closed = 0

    @asynccontextmanager
    async def dial(self) -> AsyncIterator[str]:
        self.dialled.append(asyncio.get_running_loop().time())
        try:
            yield "session"
        finally:
            self.closed += 1

    async def check(self, session: str) -> None:
        self.checked += 1

    async def serve(self, session: str, stop: outlast.Stop) -> None:
        if asyncio.get_running_loop().time() >= self.until:
            await stop.sleep(1e6)
        await asyncio.sleep(self.lives_s)
        raise ConnectionResetError(104, "connection reset by peer")


def keep_up(peer: Peer, seconds: float, seed: int = 1) -> Link[str]:
    link = Link("tailnet", dial=peer.dial, check=peer.check, serve=peer.serve, rng=random.Random(seed))
    service = outlast.Service("controller")
    link.attach(service)

    async def main() -> None:
        stop = outlast.Stop()
        asyncio.get_running_loop().call_later(seconds, stop.fire, "test")
        assert await service.run(stop) == 0

    run_virtual(main)
    return link


def test_sessions_that_die_at_once_are_few_and_one_incident() -> None:
    for seed in range(50):
        peer = Peer(lives_s=0.05)
        link = keep_up(peer, 10.0, seed)
        assert len(peer.dialled) <= 12
        assert peer.checked == peer.closed == len(peer.dialled)
        assert link.incident.book.incidents == 1


def test_a_pre_check_that_passes_resets_nothing() -> None:
    """Dial and check succeed for ten minutes, the work never does: the wait stays at its cap."""
    peer = Peer(lives_s=0.5)
    keep_up(peer, 600.0)
    gaps = [later - earlier for earlier, later in zip(peer.dialled, peer.dialled[1:], strict=False)]
    assert all(7.5 <= gap <= 15.6 for gap in gaps[6:])


def test_work_that_lasts_resolves_the_incident_and_forgets_the_waits(caplog: pytest.LogCaptureFixture) -> None:
    peer = Peer(lives_s=0.05, until=20.0)
    with caplog.at_level("INFO"):
        link = keep_up(peer, 100.0)
    assert not link.incident.is_open
    assert link.wait_s == 0.0
    assert "link tailnet resolved" in caplog.text


def test_its_state_can_be_seen() -> None:
    async def main() -> None:
        peer, stop = Peer(lives_s=1e6, until=0.0), outlast.Stop()
        link = Link("tailnet", dial=peer.dial, serve=peer.serve)
        task = asyncio.create_task(link.run(stop))
        assert link.state is LinkState.WAITING
        await asyncio.sleep(1)
        assert link.state is LinkState.SERVING
        stop.fire("test")
        with pytest.raises(outlast.Stopping):
            await task
        assert peer.closed == 1

    run_virtual(main)


def test_a_stop_of_somebody_else_is_shown_and_the_session_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    class Leaving(Peer):
        async def serve(self, session: str, stop: outlast.Stop) -> None:
            raise outlast.OutlastError("bye", outlast.Fault(outlast.Kind.STOPPING, "stop", "the peer stops"))

    link = keep_up(Leaving(0.0), 10.0)
    assert link.sessions > 1
    assert [record.levelname for record in caplog.records if "TRANSIENT the peer stops" in record.message] == ["WARNING"]


def test_a_dial_that_hangs_is_a_fault() -> None:
    dials = 0

    @asynccontextmanager
    async def dial() -> AsyncIterator[None]:
        nonlocal dials
        dials += 1
        await asyncio.sleep(1e6)
        yield

    async def serve(session: None, stop: outlast.Stop) -> None:
        pytest.fail("never gets so far")

    link = Link("tailnet", dial=dial, serve=serve, dial_timeout_s=5.0)
    service = outlast.Service("controller")
    link.attach(service)

    async def main() -> None:
        stop = outlast.Stop()
        asyncio.get_running_loop().call_later(60, stop.fire, "test")
        assert await service.run(stop) == 0

    run_virtual(main)
    assert 4 <= dials <= 12
    assert link.incident.book.first is not None
    assert link.incident.book.first.code == "timeout"


def test_a_fault_of_a_dependency_is_that_dependencys_affair(caplog: pytest.LogCaptureFixture) -> None:
    """The link listens on the database: when that goes away it waits there, and writes no line of its own."""
    up, dialled = True, 0

    async def ask() -> None:
        if not up:
            raise ConnectionRefusedError

    db = outlast.Dependency("db", probe=ask)

    @asynccontextmanager
    async def dial() -> AsyncIterator[None]:
        nonlocal dialled
        async with db.use():
            dialled += 1
            yield

    async def serve(session: None, stop: outlast.Stop) -> None:
        while True:
            await asyncio.sleep(1)
            if not up:
                raise ConnectionResetError(104, "connection reset by peer")

    link = Link("listener", dial=dial, serve=serve)
    service = outlast.Service("jobs")
    link.attach(service, needs=db)

    async def main() -> None:
        nonlocal up
        stop = outlast.Stop()
        running = asyncio.create_task(service.run(stop))
        await asyncio.sleep(5)
        up = False
        await asyncio.sleep(60)
        up = True
        await asyncio.sleep(2)
        assert link.state is LinkState.SERVING
        stop.fire("test")
        assert await running == 0

    run_virtual(main)
    assert dialled == 2
    assert "link listener is failing" not in caplog.text


def test_what_a_person_must_put_right_is_tried_rarely_and_the_waits_outlive_a_restart() -> None:
    peer = Peer(lives_s=0.0)

    async def refused(session: str, stop: outlast.Stop) -> None:
        raise PermissionError(13, "permission denied")

    async def main() -> None:
        link = Link(
            "tailnet", dial=peer.dial, serve=refused, backoff=outlast.Backoff(base_s=0.5, cap_s=30.0), rng=random.Random(1)
        )
        for _ in range(3):
            # Run anew by whoever supervises it: it goes on with the waits it had come to.
            stop = outlast.Stop()
            asyncio.get_running_loop().call_later(30.0, stop.fire, "restarted")
            with pytest.raises(outlast.Stopping):
                await link.run(stop)

    run_virtual(main)
    assert len(peer.dialled) <= 15
    assert all(later - earlier >= 5.0 for earlier, later in zip(peer.dialled, peer.dialled[1:], strict=False) if later % 30.0)
