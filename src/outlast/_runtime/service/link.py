"""A long-lived session that is kept up: dial, pre-check, serve, and again when it ends.

    link = Link("coordinator", dial=dial, check=ping, serve=serve)
    link.attach(service, needs=db)

A pre-check that passes proves nothing about the work, so it resets nothing: the wait before the next
session shrinks back only after the session has really served for a while.
"""

from __future__ import annotations

import asyncio
import enum
import random
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from outlast._core.backoff import Backoff, Jitter
from outlast._core.classify import Classifiers
from outlast._core.faults import Fault, Kind
from outlast._core.reaction import Reaction
from outlast._runtime.dependency.incident import Incident
from outlast._runtime.dependency.outages import Explained, Outages
from outlast._runtime.service.stop import Stopping

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from outlast._runtime.dependency.dependency import Dependency
    from outlast._runtime.service.service import Service
    from outlast._runtime.service.stop import Stop

S = TypeVar("S")

BACKOFF: Final = Backoff(base_s=0.5, cap_s=15.0, jitter=Jitter.EQUAL)
"""Lowest sums of the waits: 0.25, 0.75, 1.75, 3.75, 7.75, 15.25 s: at most six sessions in the first ten seconds,
however short they are, and a healthy peer is found again within 15 s."""


class LinkState(enum.Enum):
    """The state of a link. It starts in `WAITING`; each state is set by `Link` alone and dies with the process.

    `WAITING` -> `DIALING` -> `CHECKING` -> `SERVING` -> `WAITING`; a fault in any of them leads to `WAITING`.
    """

    WAITING = "waiting"
    DIALING = "dialing"
    CHECKING = "checking"
    SERVING = "serving"


class Link(Generic[S]):
    """Keeps one session up.

    `dial()` returns an async context manager whose value is the session; leaving it closes the session. `check(session)` is an
    optional pre-check. `serve(session, stop)` runs for the life of the session; its return ends the session, as a
    fault does: both wait before the next dial. Dial and check are given `dial_timeout_s` seconds together;
    None lets them wait forever.

    Faults are folded into one incident, from the first one until a session has served for 30 s (or
    twice the last wait, if that is more). A fault that belongs to a dependency in `needs` is that dependency's affair, and so is
    what may pass by itself and was met while one of them was down, or had been down since the dial: it makes no later wait
    longer, and the link dials as soon as the dependency lets it. So that an outage is seen, it asks the dependency once when a
    session that had served breaks; what may pass by itself and is not explained makes a link with `needs` wait at most 5 s.
    The backoff lives as long as the link, so that whoever runs it again goes on with it.
    """

    def __init__(
        self,
        name: str,
        *,
        dial: Callable[[], AbstractAsyncContextManager[S]],
        serve: Callable[[S, Stop], Awaitable[Any]],
        check: Callable[[S], Awaitable[Any]] | None = None,
        backoff: Backoff = BACKOFF,
        classifiers: Classifiers | None = None,
        dial_timeout_s: float | None = 10.0,
        needs: tuple[Dependency, ...] = (),
        rng: random.Random | None = None,
    ) -> None:
        """Describe the session; nothing happens until a service, or a task of yours with `needs` given here, runs it."""
        self.name = name
        self.state = LinkState.WAITING
        self.sessions = 0
        """Sessions that were dialled successfully."""
        self.incident = Incident(f"link {name}", verb="is failing")
        self._dial = dial
        self._check = check
        self._serve = serve
        self._policy = backoff
        self._classifiers = classifiers or Classifiers()
        self._dial_timeout_s = dial_timeout_s
        self._outages = Outages(name, (), backoff, rng or random.Random(), session=True)
        self._serving_since = 0.0
        self._need(*needs)

    @property
    def wait_s(self) -> float:
        """The last wait before a dial; 0 once health has lasted."""
        return self._outages.waits.state.wait_s

    def attach(self, service: Service, *, needs: Dependency | tuple[Dependency, ...] = ()) -> None:
        """Let `service` keep this link up. It dials only while everything in `needs` is usable."""
        self._need(*(needs if isinstance(needs, tuple) else (needs,)))
        service.task(needs=self._outages.needs, name=f"link {self.name}")(self.run)

    async def run(self, stop: Stop) -> None:
        """Keep the session up until the stop is fired."""
        outages = self._outages
        while not stop.requested:
            await outages.until_usable(stop)
            outages.begin()
            fault, exc = await self._session(stop)
            served, self.state = self.state is LinkState.SERVING, LinkState.WAITING
            if served:
                await outages.look(fault, asyncio.get_running_loop().time() - self._serving_since)
            explained = outages.explain(fault, exc)
            if explained is not Explained.NO:
                await outages.wait_for_rhythm(explained, stop)
                continue
            self.incident.fault(fault, exc)
            await outages.wait(fault, exc, stop)

    async def _session(self, stop: Stop) -> tuple[Fault, BaseException | None]:
        """Run one session to its end, and tell why it ended."""
        try:
            await self._dial_check_serve(stop)
        except (asyncio.CancelledError, Stopping):
            raise
        except Exception as exc:
            fault = self._classifiers.classify(exc, source=self.name, phase=self.state.value)
            fault = fault.met_while(stopping=stop.requested)
            if fault.reaction in {Reaction.LEAVE, Reaction.END}:
                # The service's affair: it leaves by the one, and ends quietly by the other.
                raise
            return fault, exc
        if stop.requested:
            raise Stopping(stop.reason or "")
        return Fault(Kind.TRANSIENT, "ended", "the session ended without a fault", self.name), None

    async def _dial_check_serve(self, stop: Stop) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._dial_timeout_s) as limit:
            self.state = LinkState.DIALING
            async with self._dial() as session:
                self.sessions += 1
                if self._check is not None:
                    self.state = LinkState.CHECKING
                    await self._check(session)
                limit.reschedule(None)
                self.state = LinkState.SERVING
                self._serving_since = loop.time()
                self._outages.waits.worked()
                healthy = loop.call_later(self._outages.waits.reset_after_s(), self._sustained)
                better = loop.call_later(self._policy.base_s, self._better)
                try:
                    await self._serve(session, stop)
                finally:
                    healthy.cancel()
                    better.cancel()

    def _need(self, *needs: Dependency) -> None:
        self._outages.needs = tuple(dict.fromkeys((*self._outages.needs, *needs)))
        for need in needs:
            self._classifiers = self._classifiers.also(need.classifiers)

    def _better(self) -> None:
        self.incident.better()

    def _sustained(self) -> None:
        """Forget the failures while the session still serves."""
        self._outages.waits.forget()
        self.incident.resolve()
