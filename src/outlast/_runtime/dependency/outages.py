"""Outages of dependencies as causes of the failures of one worker or session, and its waits after a failure."""

from __future__ import annotations

import asyncio
import enum
import logging
from typing import TYPE_CHECKING, cast

from outlast._core.faults import Kind, Unavailable
from outlast._core.health import State
from outlast._core.own_waits import OwnWaits, refused_s
from outlast._core.reaction import Reaction

if TYPE_CHECKING:
    import random

    from outlast._core.backoff import Backoff
    from outlast._core.faults import Fault
    from outlast._runtime.dependency.dependency import Dependency
    from outlast._runtime.service.stop import Stop

HELD_S_MAX = 10.0
"""The time for which a peer may hold what a broken session of ours had: until it notices, a keepalive or two."""
DEPTH_MAX = 8
"""The causes of an exception that are looked at for a refusal."""

logger = logging.getLogger("outlast")


class Explained(enum.Enum):
    """Whether an outage of a dependency explains a failure."""

    NO = "no"
    DOWN = "down"
    """One is down: whoever failed waits for it with the others, and for nothing else."""
    RETURNED = "returned"
    """One was down while the work was under way, and is back."""


class Outages:
    """Belongs to one worker or link, on its event loop. Call `begin` before the work, `explain` when it has failed.

    A `session` works with what it needs all the time: an outage may break it and be over before anyone else has seen it. So
    the rhythm of the dependency bounds its waits always, those of a worker while the dependency is recovering.
    """

    def __init__(
        self, name: str, needs: tuple[Dependency, ...], policy: Backoff, rng: random.Random, *, session: bool = False
    ) -> None:
        """`name` is the source of faults that are its own."""
        self.needs = needs
        self._name = name
        self.waits = OwnWaits(policy)
        self._session = session
        self._broke_at = float("-inf")
        """The time at which a session that had served broke."""
        self._rng = rng
        self._epochs: dict[Dependency, int] = {}

    async def until_usable(self, stop: Stop) -> None:
        """Return when everything needed is usable. Raises `Stopping`."""
        for need in self.needs:
            while True:
                try:
                    await need.ready(stop=stop)
                    break
                except Unavailable as refusal:
                    # As many wait there already as may.
                    await stop.sleep(refused_s(refusal.retry_after_s, self._rng))

    def begin(self) -> None:
        """Note that work begins: a dependency that returns from now on returns while it is under way."""
        if self.needs:
            self._epochs = {need: need.epoch for need in self.needs}

    async def look(self, fault: Fault, served_s: float) -> None:
        """Ask the dependencies once whether they are there, after a session that had served for so long has broken.

        Not if it was shorter than the wait before it: a peer that lets in and throws out is not asked each time.
        """
        if fault.reaction is not Reaction.WAIT:
            return
        self._broke_at = asyncio.get_running_loop().time()
        if served_s >= max(self.waits.state.wait_s, self.waits.rhythm.wait_s):
            for need in self.needs:
                await need.look()

    def explain(self, fault: Fault, exc: BaseException | None) -> Explained:
        """Return whether an outage explains the failure; record a fault that is evidence of one."""
        theirs = False
        for need in self.needs:
            if need.name != fault.source or not (fault.is_evidence or isinstance(exc, Unavailable)):
                continue
            theirs = True
            if need.passable and not isinstance(exc, Unavailable):
                # It was met outside of a guarded block.
                need.observe(fault, exc, self._epochs.get(need))
        if not theirs and fault.reaction is not Reaction.WAIT:
            return Explained.NO
        explained = Explained.NO
        if any(not need.passable for need in self.needs):
            explained = Explained.DOWN
        elif any(need.epoch != self._epochs.get(need, need.epoch) for need in self.needs):
            explained = Explained.RETURNED
        if explained is not Explained.NO:
            self.waits.returned()
            logger.debug("%s: an outage explains %s", self._name, fault.code)
        return explained

    async def wait_for_rhythm(self, explained: Explained, stop: Stop) -> None:
        """Wait after a failure that an outage explains: the dependency's rhythm rules, and nothing is held against anyone."""
        if explained is Explained.RETURNED:
            await stop.sleep(self.waits.first_s(self._rng))

    async def wait(self, fault: Fault, exc: BaseException | None, stop: Stop) -> None:
        """Wait after a failure that none explains. One that is explained by what goes down meanwhile is taken back."""
        now = asyncio.get_running_loop().time()
        refusal = _refusal(exc, DEPTH_MAX)
        if refusal is not None:
            # By a dependency that is not among the needs, whose prober says when.
            self.waits.take_back()
            await stop.sleep(refused_s(refusal.retry_after_s, self._rng))
        elif fault.reaction is not Reaction.WAIT:
            await stop.sleep(self.waits.failed(fault, now, self._rng))
        elif self._in_rhythm(fault):
            if await self._rest(self.waits.in_rhythm(now, self._rng, fault.retry_after_s), stop):
                self.waits.returned()
        elif await self._rest(self.waits.failed(fault, now, self._rng), stop):
            self.waits.returned()

    def _in_rhythm(self, fault: Fault) -> bool:
        """Return whether the rhythm of a dependency bounds the wait, instead of the backoff of its own."""
        if fault.is_evidence and fault.source not in {"", self._name}:
            # It concerns a dependency, which is not among the needs or would have explained it.
            self.waits.take_back()
            return True
        if any(need.state is State.RECOVERING for need in self.needs):
            return True
        if not self._session or not self.needs:
            return False
        # What somebody else holds while all is well is no trace of an outage; the peer may still hold what a session of ours had.
        return fault.kind is not Kind.CONTENDED or asyncio.get_running_loop().time() < self._broke_at + HELD_S_MAX

    async def _rest(self, seconds: float, stop: Stop) -> bool:
        """Sleep; return True as soon as a dependency goes down, otherwise False. Raises `Stopping`."""
        if not self.needs:
            await stop.sleep(seconds)
            return False
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()

        def end(went_down: bool) -> None:  # noqa: FBT001
            if not future.done():
                future.set_result(went_down)

        def listen(state: State, first: Fault | None) -> None:
            del first
            if state is State.DOWN:
                end(True)

        forget = [need.subscribe(listen) for need in self.needs]
        handle = loop.call_later(seconds, end, False)
        try:
            return await stop.until(future)
        finally:
            handle.cancel()
            for each in forget:
                each()


def _refusal(exc: BaseException | None, depth: int) -> Unavailable | None:
    """Return the refusal that an exception is, or was raised because of; of a group, only if all of it are refusals."""
    if exc is None or depth == 0:
        return None
    if isinstance(exc, Unavailable):
        return exc
    if isinstance(exc, BaseExceptionGroup):
        members = cast("BaseExceptionGroup[BaseException]", exc).exceptions
        found = [_refusal(member, depth - 1) for member in members]
        return found[0] if all(found) else None
    return _refusal(exc.__cause__, depth - 1)
