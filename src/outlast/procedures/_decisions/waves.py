"""Growing waves: when a cause is gone, what waited for it goes on in ones, twos, fours ..., each when the last has gone well."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from outlast.procedures._model import KeyOf

WAVE_MAX: Final = 256
"""After a wave of this size the rest may go: it is twice the slots of a runner, unless told otherwise."""


class Tide(enum.Enum):
    """The outcome of the wave so far."""

    GOES_ON = "goes on"
    FAILED = "failed"
    """More than half of it failed by the cause: that is not gone."""
    OVER = "over"
    """All who waited may go."""


class Waves:
    """One wave at a time. `room` is how many may still begin in it."""

    def __init__(self) -> None:
        self.size = 1
        self._taken = 0
        self._good = 0
        self._bad = 0
        self._is_last = False
        """Whether nobody else waited when it began."""
        self._out: dict[KeyOf, float] = {}
        """Those under way, and until when they are waited for."""

    def room(self, now: float) -> int:
        """Return how many may begin now. One that is under way for longer than its lease is no longer waited for."""
        for of in [of for of, until in self._out.items() if until <= now]:
            del self._out[of]
        self._turn()
        return self.size - self._taken

    @property
    def tide(self) -> Tide:
        """The outcome so far."""
        if self._bad * 2 > self.size or (self._bad > self._good and not self._out and self._is_last):
            return Tide.FAILED
        return Tide.OVER if self.size > WAVE_MAX or (self._is_last and not self._out) else Tide.GOES_ON

    def took(self, of: KeyOf, until: float) -> None:
        """Count one that begins."""
        self._taken += 1
        self._out[of] = until

    def short(self) -> None:
        """Note that fewer were found than may begin: nobody waits any more, so this wave is the last."""
        self._is_last = True

    def ended(self, of: KeyOf, *, good: bool | None) -> None:
        """Note the outcome of one; None: it says nothing about the cause. Of one that is not in the wave, nothing is noted."""
        if self._out.pop(of, None) is None:
            return
        self._good += good is True
        self._bad += good is False
        self._turn()

    def _turn(self) -> None:
        """Begin the next wave when this one is over: a larger one, if it has shown something."""
        if self._out or self._taken < self.size or self._is_last or self._bad * 2 > self.size:
            return
        self.size = self.size * 2 if self._good + self._bad else self.size
        self._taken = self._good = self._bad = 0
