"""Scripts of faults: the trouble that a scripted peer is in, and when."""

from __future__ import annotations

import asyncio
import errno
import math
from bisect import bisect_right
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from outlast._runtime.service.stop import finish

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence


class Trouble(Enum):
    """The treatment of a call that begins while a peer is in trouble."""

    REFUSE = "refuse"
    """It refuses at once: `ConnectionRefusedError`."""
    HANG = "hang"
    """It never answers: the call waits until it is cancelled or the script healed, also when the episode is over by then."""
    SLOW = "slow"
    """It begins after `slow_s` seconds."""
    LOSE_REPLY = "lose reply"
    """It does the work, and its reply is lost: `ConnectionResetError`."""
    FAIL = "fail"
    """It does nothing and answers with an error of your own."""


SURVIVABLE: Final = (Trouble.REFUSE, Trouble.HANG, Trouble.SLOW, Trouble.LOSE_REPLY)
"""Troubles that pass by themselves, and that a service is to outlast."""
ROUNDING_S: Final = 0.001
"""Random times are whole milliseconds: they read well, and some of them coincide with the service's own."""
TROUBLE_AT_START: Final = 0.25
"""The share of random scripts that begin in trouble: a service must also start while its dependency is away."""


def corrupted() -> Exception:
    """Make the error of a medium that cannot be read: EIO, which is `FATAL`."""
    return OSError(errno.EIO, "corrupted, as the script says")


@dataclass(frozen=True, slots=True, repr=False)
class Episode:
    """One trouble of a peer, from `start_s` until just before `end_s` on the loop's clock; `math.inf`: until healed."""

    start_s: float
    end_s: float
    trouble: Trouble
    slow_s: float = 1.0
    """`SLOW`: seconds before the peer begins."""
    error: Callable[[], Exception] = corrupted
    """`FAIL`: makes the error, a new one for each call."""

    def __post_init__(self) -> None:
        """Refuse times that mean nothing."""
        if not (-math.inf < self.start_s < self.end_s and 0 <= self.slow_s < math.inf):
            msg = f"{self!r} needs start_s < end_s, and slow_s of 0 or more"
            raise ValueError(msg)

    def __repr__(self) -> str:
        """Show it as it is written, so that a random one can be pasted into a test."""
        slow = f", slow_s={self.slow_s!r}" if self.trouble is Trouble.SLOW else ""
        error = f", error={self.error!r}" if self.error is not corrupted else ""
        return f"Episode({self.start_s!r}, {self.end_s!r}, {self.trouble}{slow}{error})"


class Script:
    """The troubles of a peer: episodes in order of time, which do not overlap. One script may serve several peers.

    All its times are seconds on the clock of the event loop, which begins at 0 in `run_virtual`. Use it on that loop's thread.
    """

    def __init__(self, *episodes: Episode) -> None:
        """Take the episodes; between them all is well. Raises `ValueError` when they overlap or are out of order."""
        for earlier, later in pairwise(episodes):
            if later.start_s < earlier.end_s:
                msg = f"{later!r} begins before the end of {earlier!r}: put the episodes in order, without overlap"
                raise ValueError(msg)
        self.episodes = episodes
        self.healed = False
        """Whether all trouble is over for good."""
        self._held: dict[asyncio.Future[None], None] = {}

    @classmethod
    def random(
        cls,
        rng: random.Random,
        duration_s: float,
        *,
        start_s: float = 0.0,
        troubles: Sequence[Trouble] = SURVIVABLE,
        trouble_s: tuple[float, float] = (0.1, 30.0),
        well_s: tuple[float, float] = (0.5, 30.0),
        slow_s: tuple[float, float] = (0.1, 10.0),
        error: Callable[[], Exception] = corrupted,
    ) -> Script:
        """Draw a script: from `start_s` on, for `duration_s` seconds, spells of trouble and of health take turns.

        Lengths lie between the two bounds, evenly on a logarithmic scale. One script in four begins in trouble. The same state
        of `rng` leads to the same script. `FAIL` is drawn only when `troubles` names it. What hangs goes on to
        hang when the last episode is over: call `heal`.
        """
        for low_s, high_s in (trouble_s, well_s, slow_s):
            if not ROUNDING_S <= low_s <= high_s < math.inf:
                msg = f"({low_s}, {high_s}) needs two lengths of {ROUNDING_S} s or more, the shorter first"
                raise ValueError(msg)
        episodes: list[Episode] = []
        end_s = start_s + duration_s
        at_s = start_s if rng.random() < TROUBLE_AT_START else round(start_s + _length_s(rng, well_s), 3)
        while at_s < end_s:
            until_s = min(end_s, round(at_s + _length_s(rng, trouble_s), 3))
            trouble = rng.choice(troubles)
            if until_s > at_s:
                episodes.append(Episode(at_s, until_s, trouble, _length_s(rng, slow_s), error))
            at_s = round(until_s + _length_s(rng, well_s), 3)
        return cls(*episodes)

    def __repr__(self) -> str:
        """Show it as it is written, so that a random one can be pasted into a test."""
        return f"Script({', '.join(map(repr, self.episodes))})"

    @property
    def held(self) -> int:
        """The number of calls that hang, or are held up, now."""
        return len(self._held)

    def at(self, now: float) -> Episode | None:
        """Return the episode of that time on the loop's clock, or None when all is well."""
        if self.healed:
            return None
        index = bisect_right(self.episodes, now, key=lambda episode: episode.start_s) - 1
        return self.episodes[index] if index >= 0 and now < self.episodes[index].end_s else None

    def heal(self) -> None:
        """End all trouble for good. Calls that hang or are held up go on now, and are answered."""
        self.healed = True
        for future in self._held:
            finish(future)

    async def hold(self, seconds: float | None = None) -> None:
        """Wait as a call that hangs does: until healed, or for `seconds`."""
        if self.healed:
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, finish, future)
        self._held[future] = None
        try:
            await future
        finally:
            del self._held[future]
            if timer is not None:
                timer.cancel()


def _length_s(rng: random.Random, bounds_s: tuple[float, float]) -> float:
    low_s, high_s = bounds_s
    return round(low_s * math.pow(high_s / low_s, rng.random()), 3)
