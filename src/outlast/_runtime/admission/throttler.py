"""The throttle of a caller: what a peer would refuse is refused here, where it costs the peer nothing."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from outlast._core.admission.throttle import Throttle, Throttling
from outlast._core.classify import Classifiers
from outlast._core.faults import Fault, Kind, Scope, Unavailable
from outlast._runtime.dependency.callers import Callers
from outlast._runtime.service.gate import FULL_RETRY_S

if TYPE_CHECKING:
    from types import TracebackType

THROTTLED: Final = "throttled"
"""The code of the fault of a local refusal."""
RETRY_S: Final = 1.0
"""The wait that a local refusal names, and up to as much again, so that callers spread."""
REFUSED_BY_PEER: Final = frozenset({Kind.OVERLOADED, Kind.EXHAUSTED, Kind.TRANSIENT})
"""The kinds by which a peer says, or shows, that a call was one too many for it: 429, no room, 503, no answer in time."""
NO_ANSWER: Final = frozenset({Kind.STOPPING, Kind.BUG, Kind.PERMANENT})
"""The kinds that say nothing about what the peer would have answered."""
THROTTLE: Final = Throttle()


class Throttler:
    """Refuses calls before they are sent, when a peer has refused many of late: one in trouble is not kept there by refusing.

        throttler = Throttler("payments")

        async with throttler.call():
            await client.post(...)      # raise freely: faults are classified

    A call is refused with probability max(0, (requests - k * accepts) / (requests + 1)), as `policy` has it, where the locally
    refused are among the requests. So a peer that accepts half of what it is asked, or more, meets no throttle, and one that
    refuses everything is still asked now and then.

    Use it on the event loop's thread only.
    """

    def __init__(
        self,
        name: str,
        policy: Throttle = THROTTLE,
        *,
        classifiers: Classifiers | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """`name` is the peer's, in refusals. `classifiers` say what ended a call."""
        self.name = name
        self.refused = 0
        """The number of calls that were refused here."""
        self._throttling = Throttling(policy)
        self._classifiers = classifiers or Classifiers()
        self._rng = rng or random.Random()
        self._callers = Callers()

    def call(self) -> ThrottledCall:
        """Return what to hold, with `async with`, around one call.

        Entering raises `Unavailable` if the call is refused here: kind OVERLOADED, code "throttled", which concerns this call
        alone. A task that comes back within 10 ms of its last refusal waits before the next. A block that ends with a fault of
        kind OVERLOADED, EXHAUSTED or TRANSIENT counts as refused by the peer; one that is cancelled, that was refused by
        somebody else before it was sent, or that met a bug, counts as not answered; everything else as accepted.
        """
        return ThrottledCall(self)

    def refusal(self) -> Unavailable | None:
        """Count a call that is about to be sent; return what to raise instead, or None. Then `record` the answer."""
        now = asyncio.get_running_loop().time()
        throttling = self._throttling
        if not throttling.refuses(now, self._rng):
            return None
        self.refused += 1
        reason = f"it accepted {throttling.accepts:,} of the last {throttling.requests:,} calls"
        retry_after_s = RETRY_S * (1.0 + self._rng.random())
        fault = Fault(Kind.OVERLOADED, THROTTLED, reason, self.name, Scope.CALL, retry_after_s, "send less")
        return Unavailable(self.name, fault, 0.0, retry_after_s)

    def record(self, *, accepted: bool) -> None:
        """Record what the peer answered: `accepted` is False if the call was one too many for it. No answer is not recorded."""
        self._throttling.record(asyncio.get_running_loop().time(), accepted)

    def record_fault(self, exc: BaseException) -> None:
        """Record what an exception that ended a call says of the peer's answer."""
        fault = self._classifiers.classify(exc, source=self.name)
        if isinstance(exc, Unavailable) or fault.kind in NO_ANSWER:
            # Refused before it was sent, or ended by us.
            return
        self.record(accepted=fault.kind not in REFUSED_BY_PEER)

    async def take_turn(self) -> None:
        """Wait before a refusal, if it is this caller's turn to wait."""
        await self._callers.take_turn(FULL_RETRY_S)


class ThrottledCall:
    """One call. See `Throttler.call`."""

    __slots__ = ("_throttler",)

    def __init__(self, throttler: Throttler) -> None:
        """Belong to `throttler`; nothing is counted until it is entered."""
        self._throttler = throttler

    async def __aenter__(self) -> None:
        """Go on, or raise `Unavailable`."""
        refusal = self._throttler.refusal()
        if refusal is not None:
            await self._throttler.take_turn()
            raise refusal

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Record the answer; the exception, if any, passes."""
        if exc is None:
            self._throttler.record(accepted=True)
        else:
            self._throttler.record_fault(exc)
