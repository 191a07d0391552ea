"""The right to be at work: given back exactly once, however the work ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Self

from outlast._core.admission.queue import Place
from outlast._core.admission.ticket import Ticket as Held
from outlast._core.admission.ticket import TicketState
from outlast._core.admission.values import Refusal
from outlast._core.reaction import Reaction

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from outlast._core.admission.values import Criticality
    from outlast._runtime.admission.desk import Desk

_GONE: Final = TicketState.GONE


class Ticket(Held):
    """One piece of work that has come in. Hold it, with `with`, for as long as the work is under way, or `release` it.

    The time between is a sample for the limit that follows the latency. On the event loop's thread only.
    """

    __slots__ = ()

    holder: Desk

    def __repr__(self) -> str:
        """Show the state, for logs."""
        return f"<Ticket of {self.holder.name}, {self.state.value}>"

    def __enter__(self) -> Self:
        """Begin the work."""
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        """Release it; the exception, if any, passes."""
        self.release(ok=True if exc is None else ended_well(self.holder, exc))

    def release(self, *, ok: bool | None = True) -> None:
        """Return the ticket: the work is no longer under way. The second time is nothing.

        `ok`: True, the work was done, and the time it took is a sample of the latency; False, it failed or was given up, and
        would have taken at least that time; None, its end says nothing about how long work takes.
        """
        if self.state is _GONE:
            # A server and its middleware both see to it; the one that comes later pays for no look at the clock.
            return
        desk = self.holder
        loop = asyncio.get_running_loop()
        settled = desk.admitter.release(self, loop.time(), ok=ok)
        if settled or desk.emptied is not None:
            desk.went_out(settled, loop)

    def park(self) -> None:
        """Let others in while the work only waits: a long poll, a stream of events. `unpark` or `release` ends it.

        The time for which it is parked is no sample of the latency. Raises `Refused` where as many are parked as may be; the
        work then counts as under way, as before. Parking twice is parking once; a ticket that was given back cannot be parked.
        """
        refusal = self.holder.park(self)
        if refusal is not None:
            raise self.holder.error(refusal)

    def unpark(self) -> None:
        """Count the work as under way again, at once, even if the limit is reached. Nothing happens unless it is parked."""
        self.holder.unpark(self)


def ended_well(desk: Desk, exc: BaseException) -> bool | None:
    """Return what the exception that ended a piece of work says about how long work takes.

    False: what was waited for was not there in time, or not at all, or nobody waited any longer (a cancellation). The work
    would have taken at least as long as it did, so that the limit shrinks if that was long; that it failed soon says nothing.
    None: a wrong request, a bug, a person who has to act. That is no question of how much is under way.
    """
    if isinstance(exc, asyncio.CancelledError):
        return False
    return False if desk.classifiers.classify(exc).reaction is Reaction.WAIT else None


class Waiting:
    """One piece of work that waits to come in, as `Admission.arrive` returns it. On the event loop's thread only.

    Its place in the queue is bounded in time, whether or not anybody awaits `ticket`. Whoever has it calls `release` in the
    end, as with a ticket: one that came meanwhile would otherwise be nobody's.
    """

    __slots__ = ("_asked", "_desk", "_place", "_ticket")

    def __init__(self, desk: Desk, place: Place) -> None:
        self._desk = desk
        self._place = place
        self._asked = False
        self._ticket: Ticket | None = None

    def on_outcome(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, soon after there is an `outcome`: for a server that makes no task for what is not let in.

        Also when the service stops: then there is none, and the admission is `closed`. It is called instead of waking who awaits
        `ticket`: ask for that afterwards, or not at all.
        """
        self._desk.watch(self._place, callback)

    def outcome(self) -> Ticket | Refusal | None:
        """Return what has come of it; None while it waits, when the service stops, and after `release`.

        A ticket is the caller's from then on.
        """
        got = self._place.outcome
        if isinstance(got, Refusal):
            return got
        if isinstance(got, Ticket) and not self._asked:
            self._asked = True
            self._ticket = got
        return self._ticket

    async def ticket(self) -> Ticket:
        """Wait, and return the ticket; the same again once it is there.

        Raises `Refused` or `Stopping`; cancelled, it leaves no trace. Raises `RuntimeError` where somebody waits for it
        already, and after it was refused or released.
        """
        if self._ticket is None:
            if self._asked:
                raise RuntimeError("this work was refused or released, or somebody waits for it: ask the admission again")
            self._asked = True
            self._ticket = await self._desk.wait(self._place)
        return self._ticket

    def release(self, *, ok: bool | None = True) -> None:
        """Return the ticket, as `Ticket.release` does; before it is there, leave the queue. The second time is nothing."""
        if self._ticket is not None:
            self._ticket.release(ok=ok)
        elif not self._asked:
            self._asked = True
            self._desk.leave(self._place, asyncio.get_running_loop())


class Entry:
    """The way in to an admission. See `Admission.enter`. Enter it once."""

    __slots__ = ("_asked", "_desk", "_ticket")

    def __init__(self, desk: Desk, asked: tuple[str, str, float, int, float | None, Criticality]) -> None:
        """Belong to `desk`; nothing happens until it is entered."""
        self._desk = desk
        self._asked = asked
        self._ticket: Ticket | None = None

    async def __aenter__(self) -> Ticket:
        """Come in, or wait in the queue; raise `Refused`, `TooLargeError` or `Stopping`."""
        desk = self._desk
        if desk.gate.closed is not None:
            await desk.refuse_stopping()
        got = desk.admit(*self._asked, True)
        if isinstance(got, Refusal):
            await desk.refuse(got)
        elif isinstance(got, Place):
            got = await desk.wait(got)
        self._ticket = got
        return got

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release it; the exception, if any, passes."""
        if self._ticket is not None:
            self._ticket.__exit__(kind, exc, traceback)
