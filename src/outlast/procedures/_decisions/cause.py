"""One open cause: what many keys failed by holds a kind of procedure, until one attempt has shown that it is gone."""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from typing import TYPE_CHECKING, Final

from outlast import Backoff
from outlast.extend import BackoffState, Jitter
from outlast.procedures._decisions.memory import asked_s
from outlast.procedures._decisions.waves import Tide, Waves

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from outlast import Fault
    from outlast.procedures._model import KeyOf

BETWEEN: Final = Backoff(base_s=0.2, cap_s=1.0, factor=2.0, jitter=Jitter.EQUAL)
"""Between a canary that failed and the next: at most 1 s, so that a cause that is gone is found within that. A longer wait that
the peer asked for is obeyed."""
AGAIN_S: Final = 0.2
"""After a canary that said nothing about the cause: the next begins after half of this to all of it."""
LEASE_S: Final = 30.0
"""A canary, or one of a wave, keeps its place for so long. Then another may begin; what the first says later still counts."""
OFFER_S: Final = 5.0
"""An offer to claim is waited for so long: whoever got it does not say what it found."""
TRIED_MAX: Final = 64
"""The canaries that are remembered, so that the next is another key."""


class Cause:
    """A cause that is open for one kind of procedure.

    Either one canary at a time is under way, or waves are released. A key's place ends by its own outcome, whatever that is, or
    with its lease: a place that nobody frees is free again after 30 s.
    """

    __slots__ = (
        "_offered_until",
        "_out",
        "_rng",
        "_state",
        "_tried",
        "_waves",
        "failures",
        "fault",
        "kind",
        "next_at",
        "since",
        "step",
    )

    def __init__(self, kind: str, step: str, fault: Fault, since: float, rng: random.Random) -> None:
        self.kind = kind
        self.step = step
        """The step in which they failed. One that passes it shows that the cause is gone."""
        self.fault = fault
        """The first of its kind."""
        self.since = since
        self.failures = 0
        """Attempts that failed by it, before it opened too."""
        self.next_at = since
        """No canary before this time."""
        self._rng = rng
        self._state = BackoffState()
        self._out: dict[KeyOf, float] = {}
        """The canary, and until when it is waited for. More than one only after a lease is over."""
        self._tried: OrderedDict[str, None] = OrderedDict()
        self._waves: Waves | None = None
        self._offered_until = -inf

    @property
    def is_gone(self) -> bool:
        """Whether a canary has passed, and what waited is being released."""
        return self._waves is not None

    @property
    def without(self) -> tuple[str, ...]:
        """The ids of the canaries so far: the next is another one."""
        return () if self._waves is not None else tuple(self._tried)

    def room(self, now: float) -> int:
        """Return how many of the kind may begin now."""
        if now < self._offered_until:
            return 0
        if self._waves is not None:
            return self._waves.room(now)
        return 0 if now < self.next_at or any(until > now for until in self._out.values()) else 1

    def next_in_s(self, now: float) -> float:
        """Return the seconds until there may be room without anything having happened; infinite if that is not by time."""
        if self._waves is not None:
            return 0.0 if self.room(now) else LEASE_S
        return max(0.0, self.next_at - now, self._offered_until - now, *(until - now for until in self._out.values()))

    def offered(self, now: float) -> None:
        """Note that somebody is about to claim what there is room for."""
        self._offered_until = now + OFFER_S

    def claimed(self, now: float, took: Iterable[tuple[str, KeyOf]], *, short: bool) -> None:
        """Note what came of the offer; `short`: fewer were found than asked for."""
        self._offered_until = -inf
        began = list(took)
        if self._waves is not None:
            for _, of in began:
                self._waves.took(of, now + LEASE_S)
            if short:
                self._waves.short()
            return
        if short:
            # Each that waits has been the canary: from the first again.
            self._tried.clear()
        for id_, of in began:
            self._out[of] = now + LEASE_S
            self._tried[id_] = None
            if len(self._tried) > TRIED_MAX:
                self._tried.popitem(last=False)

    def failed(self, now: float, of: KeyOf, fault: Fault) -> bool:
        """Note that an attempt failed by it; return whether this shows that it is back."""
        self.failures += 1
        if self._waves is None:
            if self._out.pop(of, None) is not None:
                self._state, wait_s = BETWEEN.next_always(self._state, now, self._rng, asked_s(fault))
                self.next_at = now + wait_s
            return False
        self._waves.ended(of, good=False)
        if self._waves.tide is not Tide.FAILED:
            return False
        self._waves = None
        self._state, wait_s = BETWEEN.next_always(BackoffState(), now, self._rng, asked_s(fault))
        self.next_at = now + wait_s
        return True

    def said_nothing(self, now: float, of: KeyOf) -> None:
        """Free the place of a key that ended in another way: it was cancelled, given back, or failed by another fault."""
        if self._waves is not None:
            self._waves.ended(of, good=None)
        elif self._out.pop(of, None) is not None:
            self.next_at = max(self.next_at, now + AGAIN_S * self._rng.uniform(0.5, 1.0))

    def passed(self, of: KeyOf) -> bool:
        """Note that a key has passed the step; return whether this is the first, by which the cause is gone."""
        if self._waves is not None:
            self._waves.ended(of, good=True)
            return False
        self.gone()
        return True

    def gone(self) -> None:
        """Begin to release what waited: a canary has passed, or somebody says that the cause is fixed."""
        self._out.clear()
        self._tried.clear()
        self._offered_until = -inf
        self._waves = self._waves or Waves()

    @property
    def is_over(self) -> bool:
        """Whether all who waited may go."""
        return self._waves is not None and self._waves.tide is Tide.OVER
