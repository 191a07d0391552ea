"""A peer that fails by a script: a stand-in for the dependency of a service under test, without a network.

script = Script(Episode(10, 20, Trouble.REFUSE), Episode(60, math.inf, Trouble.HANG))
peer = ScriptedPeer("db", script)
db = outlast.Dependency("db", probe=peer.probe)
...
await peer.call(lambda: rows.append(row))    # in the service
script.heal()                                # in the test: from now on all is well
"""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, TypeVar, assert_never, overload

from outlast.testing._peers.scripted_faults import Script, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class ScriptedPeer:
    """A remote thing that does what it is asked, and fails by its script.

    A request takes half of `latency_s` to get there and its reply the other half; even without latency each gives way to other
    tasks once. Which trouble a call meets is decided when it begins. The counters are exact at every moment, and
    `effects == answered + replies_lost` when nothing is `in_flight`.
    """

    def __init__(self, name: str, script: Script | None = None, *, latency_s: float = 0.0) -> None:
        """Without a script nothing ever fails."""
        self.name = name
        self.script = script or Script()
        self.latency_s = latency_s
        self.calls = 0
        self.probes = 0
        self.troubled = 0
        """Calls and probes that began while there was trouble."""
        self.in_flight = 0
        """Calls that have begun and not ended."""
        self.effects = 0
        """Calls whose work was done."""
        self.answered = 0
        """Calls that returned."""
        self.replies_lost = 0
        """Calls whose work was done while the caller was not told: it was cancelled meanwhile, or the reply lost."""

    @overload
    async def call(self) -> None: ...

    @overload
    async def call(self, work: Callable[[], T]) -> T: ...

    async def call(self, work: Callable[[], T] | None = None) -> T | None:
        """Ask the peer to do `work()`, at most once, and return the result.

        Raises as the script says. What `work` raises comes through, whatever the trouble. A call that is cancelled may have had
        its effect or not, as with a real peer; no work begins after it has ended.
        """
        self.calls += 1
        self.in_flight += 1
        try:
            lost = await self._reach()
            result = None if work is None else work()
            self.effects += 1
            try:
                await self._reply(lost)
            except BaseException:
                self.replies_lost += 1
                raise
            self.answered += 1
        finally:
            self.in_flight -= 1
        return result

    async def probe(self) -> None:
        """Return when the peer answers; raise as `call` does. Made for `outlast.Dependency(name, probe=peer.probe)`."""
        self.probes += 1
        await self._reply(await self._reach())

    async def _reach(self) -> bool:
        """Bring a request there, through the trouble of the moment; return whether its reply will be lost."""
        episode = self.script.at(asyncio.get_running_loop().time())
        if episode is None:
            await asyncio.sleep(self.latency_s / 2)
            return False
        self.troubled += 1
        lost = False
        match episode.trouble:
            case Trouble.REFUSE:
                # A caller that tries again at once must not keep the loop to itself.
                await asyncio.sleep(0)
                raise ConnectionRefusedError(errno.ECONNREFUSED, f"{self.name} refuses, as the script says")
            case Trouble.HANG:
                await self.script.hold()
            case Trouble.SLOW:
                await self.script.hold(episode.slow_s)
            case Trouble.LOSE_REPLY:
                lost = True
            case Trouble.FAIL:
                await asyncio.sleep(self.latency_s / 2)
                raise episode.error()
            case _:
                assert_never(episode.trouble)
        await asyncio.sleep(self.latency_s / 2)
        return lost and not self.script.healed

    async def _reply(self, lost: bool) -> None:  # noqa: FBT001
        await asyncio.sleep(self.latency_s / 2)
        if lost:
            raise ConnectionResetError(errno.ECONNRESET, f"the reply of {self.name} was lost, as the script says")
