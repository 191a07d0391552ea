"""Calls that are refused before they are sent, since the peer refused many."""

from __future__ import annotations

import asyncio
import random

import pytest

import outlast
from outlast.admission import Throttle, Throttler
from outlast.testing import run_virtual


class Peer:
    """Accepts calls unless it has a fault, and counts them."""

    def __init__(self) -> None:
        self.exc: BaseException | None = None
        self.seen = 0

    async def ask(self) -> None:
        self.seen += 1
        if self.exc is not None:
            raise self.exc


def busy() -> outlast.OutlastError:
    return outlast.OutlastError("busy", outlast.Fault(outlast.Kind.OVERLOADED, "HTTP 429", "busy", "peer"))


async def calls(throttler: Throttler, peer: Peer, count: int) -> int:
    """Call so often, once each hundredth of a second; return how many were refused here."""
    refused = 0
    for _ in range(count):
        try:
            async with throttler.call():
                await peer.ask()
        except outlast.Unavailable as refusal:
            refused += is_local(refusal)
        except (outlast.OutlastError, LookupError, asyncio.CancelledError):
            pass
        await asyncio.sleep(0.02)
    return refused


def is_local(refusal: outlast.Unavailable) -> bool:
    fault = refusal.fault
    assert (fault.kind, fault.code, fault.scope) == (outlast.Kind.OVERLOADED, "throttled", outlast.Scope.CALL)
    assert 1.0 <= refusal.retry_after_s <= 2.0
    return True


def throttler() -> Throttler:
    return Throttler("peer", Throttle(), rng=random.Random(5))


def test_a_peer_that_accepts_everything_meets_no_throttle() -> None:
    async def main() -> None:
        peer = Peer()
        assert await calls(throttler(), peer, 200) == 0
        assert peer.seen == 200

    run_virtual(main())


def test_a_peer_that_refuses_everything_is_asked_now_and_then_and_its_recovery_is_noticed() -> None:
    async def main() -> None:
        peer, of = Peer(), throttler()
        peer.exc = busy()
        refused = await calls(of, peer, 1000)
        assert peer.seen + refused == 1000
        assert refused == of.refused
        assert 50 <= peer.seen <= 200
        peer.exc = None
        await calls(of, peer, 1000)
        assert await calls(of, peer, 200) == 0

    run_virtual(main())


@pytest.mark.parametrize(
    "exc",
    [
        outlast.OutlastError("bad", outlast.Fault(outlast.Kind.REJECTED, "HTTP 400", "bad", "peer")),
        LookupError(),
        asyncio.CancelledError(),
        outlast.Unavailable("other", outlast.Fault(outlast.Kind.TRANSIENT, "refused", ""), 0.0, 1.0),
    ],
    ids=["a wrong request", "a bug", "a cancellation", "refused before it was sent"],
)
def test_what_says_nothing_about_the_load_of_the_peer_throttles_nothing_that_was_accepted(exc: BaseException) -> None:
    async def main() -> None:
        peer, of = Peer(), throttler()
        await calls(of, peer, 100)
        peer.exc = exc
        for _ in range(50):
            with pytest.raises(type(exc)):
                async with of.call():
                    await peer.ask()
        assert of.refused == 0

    run_virtual(main())
