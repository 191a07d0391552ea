"""The desk of one admission: asks the machine that decides, and carries its answers to those who wait, on the event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, NoReturn, overload

from outlast._core.admission.admitter import Admitter
from outlast._core.admission.queue import Place
from outlast._core.admission.values import Refusal
from outlast._core.classify import Classifiers
from outlast._runtime.admission.lines import Lines
from outlast._runtime.admission.refused import Refused, TooLargeError
from outlast._runtime.admission.ticket import Ticket
from outlast._runtime.dependency.callers import Callers
from outlast._runtime.dependency.incident import clock
from outlast._runtime.service.gate import FULL_RETRY_S, Gate
from outlast._runtime.service.stop import Stopping, finish

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from outlast._core.admission.admitter import Settled
    from outlast._core.admission.policy import AdmissionPolicy
    from outlast._core.admission.values import Criticality
    from outlast._runtime.service.stop import Stop


class Desk:
    """Holds those who wait, in futures, and the one timer that ends their waits.

    Everything happens in steps of the event loop: between two awaits nobody sees a ticket that is nobody's. One that was
    handed to a waiter which was cancelled in the same step comes back, as if the waiter had left before.
    """

    def __init__(self, name: str, policy: AdmissionPolicy, rng: random.Random) -> None:
        self.name = name
        self.admitter = Admitter(policy, rng, Ticket, self)
        self.gate = Gate(name)
        """The gate whose closing means that the service stops: one that is never closed, until the admission is attached."""
        self.classifiers = Classifiers()
        self.lines = Lines(f"admission {name}")
        self._callers = Callers()
        self._waiting: dict[Place, None] = {}
        """The places of which nothing has come yet. The future of who waits for it, if anybody does by now, is its `holder`."""
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop of the timer."""
        self.emptied: asyncio.Future[None] | None = None
        """The drain of the service, while it waits for the last one that goes out."""

    # Coming in.

    @overload
    def admit(
        self,
        key: str,
        tenant: str,
        cost: float,
        size_bytes: int,
        deadline_s: float | None,
        criticality: Criticality,
        may_wait: Literal[False],
    ) -> Ticket | Refusal: ...

    @overload
    def admit(
        self,
        key: str,
        tenant: str,
        cost: float,
        size_bytes: int,
        deadline_s: float | None,
        criticality: Criticality,
        may_wait: Literal[True],
    ) -> Ticket | Place | Refusal: ...

    def admit(
        self,
        key: str,
        tenant: str,
        cost: float,
        size_bytes: int,
        deadline_s: float | None,
        criticality: Criticality,
        may_wait: bool,  # noqa: FBT001 - positional in the hot path
    ) -> Ticket | Place | Refusal:
        """Ask the machine. Whoever gets a place must `wait` for what comes of it, or `leave` it."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        admitter = self.admitter
        deadline_at = None if deadline_s is None else now + deadline_s
        got = admitter.admit(now, key, tenant, cost, size_bytes, deadline_at, criticality, may_wait)
        if admitter.settled:
            self._settle(admitter.drain(), loop)
        if type(got) is Ticket:
            return got
        if type(got) is Refusal:
            self._note(got, now)
        elif type(got) is Place:
            self._waiting[got] = None
            self._arm(loop)
        return got

    async def wait(self, place: Place) -> Ticket:
        """Return the ticket that this place comes to. Raises what the waiter is refused with, or `Stopping`.

        However it ends without one, also by a cancellation, nothing of the place is left.
        """
        loop = asyncio.get_running_loop()
        try:
            if place in self._waiting:
                place.holder = loop.create_future()
                await place.holder
        except BaseException:
            self.leave(place, loop)
            raise
        if isinstance(place.outcome, Refusal):
            return await self.refuse(place.outcome)
        if not isinstance(place.outcome, Ticket):
            self.stopping()
        return place.outcome

    def watch(self, place: Place, callback: Callable[[], None]) -> None:
        """Call `callback` soon after something has come of this place, instead of a wait for it."""
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(lambda _: callback())
        if place in self._waiting:
            place.holder = outcome
        else:
            outcome.set_result(None)

    def leave(self, place: Place, loop: asyncio.AbstractEventLoop) -> None:
        """Let nobody wait there any more, whatever has come of it: a ticket that it was handed goes on to the next."""
        self._waiting.pop(place, None)
        self._settle(self.admitter.leave(place, loop.time()), loop)
        self._went_out()

    async def refuse(self, refusal: Refusal) -> NoReturn:
        """Raise the refusal. A task that comes back within 10 ms of its last one waits first, so that others get their turn."""
        await self._callers.take_turn(FULL_RETRY_S)
        raise self.error(refusal)

    async def refuse_stopping(self) -> NoReturn:
        """Raise `Stopping`, in its turn, as the gate does."""
        await self._callers.take_turn(FULL_RETRY_S)
        self.stopping()

    def stopping(self) -> NoReturn:
        """Raise `Stopping`, which the report of the stop counts."""
        with self.gate.enter(f"admission {self.name}"):
            pass
        raise Stopping(self.gate.closed or "")

    def error(self, refusal: Refusal) -> Refused | TooLargeError:
        """Return the error that a refusal is raised as."""
        if refusal.retry_after_s is None:
            return TooLargeError(self.name, refusal)
        since = self.lines.book.since(refusal.reason)
        return Refused(self.name, refusal, 0.0 if since is None else clock() - since)

    # Going out.

    def went_out(self, settled: Sequence[Settled], loop: asyncio.AbstractEventLoop) -> None:
        """Let those whom it concerns go on after a ticket was released: who is next, and the drain of the service."""
        if settled:
            self._settle(settled, loop)
        self._went_out()

    def park(self, ticket: Ticket) -> Refusal | None:
        """Let others in while this work only waits; it is counted apart. A refusal: as many are parked as may be."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        refusal = self.admitter.park(ticket, now)
        self._settle(self.admitter.drain(), loop)
        if refusal is not None:
            self._note(refusal, now)
        return refusal

    def unpark(self, ticket: Ticket) -> None:
        """Count parked work among what is under way again, whatever the limit: it came in long ago."""
        self.admitter.unpark(ticket, asyncio.get_running_loop().time())

    @property
    def inside(self) -> int:
        """The work that has come in and not gone out: under way, or parked."""
        return self.admitter.in_flight + self.admitter.parked

    # Around it.

    def measured(self, used_bytes: float | None, limit_bytes: float | None, lag_s: float) -> None:
        """Pass on what was measured; some of those who wait may go in by it."""
        loop = asyncio.get_running_loop()
        self.admitter.lag_s = lag_s
        self.admitter.sample_memory(loop.time(), used_bytes, limit_bytes)
        self._settle(self.admitter.drain(), loop)

    def stop(self, _stop: Stop) -> None:
        """Refuse those who wait, in the step that fires the stop; the gate refuses whoever comes."""
        now = clock()
        waiting, self._waiting = self._waiting, {}
        for place in waiting:
            # What it frees for another of them comes back when that one leaves.
            self.admitter.leave(place, now)
            place.outcome = None
            _wake(place)

    async def empty(self) -> None:
        """Return when nothing is inside; at once if that is so."""
        if self.inside:
            self.emptied = asyncio.get_running_loop().create_future()
            try:
                await self.emptied
            finally:
                self.emptied = None

    def _note(self, refusal: Refusal, now: float) -> None:
        """Count it in a line, unless it is the caller's own business: work that can never come in."""
        if refusal.retry_after_s is not None:
            self.lines.refused(refusal, now)

    def _went_out(self) -> None:
        """Wake the drain of the service with the last one that goes out."""
        if self.emptied is not None and not self.inside:
            finish(self.emptied)

    def _settle(self, settled: Sequence[Settled], loop: asyncio.AbstractEventLoop) -> None:
        """Wake those who wait of whose places something has come.

        One whose task was cancelled in this very step is woken by that: it leaves, and what it was handed goes on to the next.
        """
        for place, got in settled:
            self._waiting.pop(place, None)
            if isinstance(got, Refusal):
                self._note(got, loop.time())
            _wake(place)
        self._arm(loop)

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the one timer to the time at which the next wait is over, unless it comes earlier: then it sets itself again."""
        next_expiry = self.admitter.next_expiry
        if next_expiry is None or loop.is_closed():
            return
        if self._timer is not None:
            if self._loop is loop and self._timer.when() <= next_expiry:
                return
            self._timer.cancel()
        self._loop = loop
        self._timer = loop.call_at(next_expiry, self._expire, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._settle(self.admitter.expire(loop.time()), loop)


def _wake(place: Place) -> None:
    """Let whoever waits for this place look at what came of it."""
    if place.holder is not None:
        finish(place.holder)
