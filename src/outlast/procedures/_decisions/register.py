"""The register of live keys: what this process knows to be queued or running. A submission of such a key joins it."""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from outlast.procedures._model import KeyOf

HEARD_S: Final = 0.5
"""A record that another process may have is believed to be live for so long after the store said so. Then it is asked again."""
MAKING_S: Final = 30.0
"""A submission that has had no answer for so long is no longer joined: its maker did not say how it ended."""
LIVE_MAX: Final = 100_000
FORGET_S: Final = 60.0
"""A record of which nothing was heard for so long is no longer known to have been live."""
SLACK_S: Final = 1.0
"""A deadline is put off by so much more than a joiner asks for, so that many joiners cost the store one write a second."""


class Join(NamedTuple):
    """The key is live: this is its record."""

    id: str
    """Empty while the submission that makes the record is under way: wait for its outcome."""


class Live:
    """A live key."""

    __slots__ = ("begun", "deadline_at", "heard_until", "is_probe", "join", "until")

    def __init__(self, until: float, deadline_at: float, *, is_probe: bool = False) -> None:
        self.join = Join("")
        self.until = until
        """Joined until then; infinite for one that this process has claimed."""
        self.heard_until = -inf
        """The end of the time for which the store said that it is live."""
        self.deadline_at = deadline_at
        self.begun = False
        self.is_probe = is_probe
        """Whether it is the probe of a failing key, and counted as one."""


class Register:
    """At most so many live keys; beyond them one that another process may have is left to the store, which joins as well."""

    def __init__(self, live_max: int = LIVE_MAX) -> None:
        self.live: OrderedDict[KeyOf, Live] = OrderedDict()
        """By key, in the order in which they were entered."""
        self._live_max = live_max
        self._later: dict[KeyOf, None] = {}
        """Those whose deadline is to be put off in the store."""

    def making(self, now: float, of: KeyOf, deadline_s: float | None, *, is_probe: bool) -> None:
        """Note that the store is asked to make a record of this key: whoever comes meanwhile joins it."""
        live = Live(now + MAKING_S, inf if deadline_s is None else now + deadline_s, is_probe=is_probe)
        if (known := self.live.get(of)) is not None:
            live.heard_until = known.heard_until
        self._put(now, of, live)

    def made(self, now: float, of: KeyOf, id_: str, *, mine: bool, begun: bool = False) -> Live:
        """Note the record that has the key; `mine`: this process has claimed it; `begun`: somebody has, now or before."""
        live = self.live.get(of)
        if live is None:
            live = Live(now, inf)
            self._put(now, of, live)
        live.join = Join(id_)
        live.begun = live.begun or mine or begun
        live.until = live.heard_until = inf if mine else now + HEARD_S
        return live

    def not_made(self, of: KeyOf) -> None:
        """Note that the store did not answer: it is as live as it was before."""
        live = self.live.get(of)
        if live is None or live.heard_until == -inf:
            self.ended(of)
        else:
            live.until = live.heard_until

    def left(self, now: float, of: KeyOf) -> None:
        """Note that this process has given the record back: it is live, and anybody's."""
        live = self.live.get(of)
        if live is not None:
            live.until = live.heard_until = now + HEARD_S

    def ended(self, of: KeyOf) -> None:
        """Take a key out: its record is final."""
        self.live.pop(of, None)
        self._later.pop(of, None)

    def put_off(self, of: KeyOf, live: Live, deadline_at: float) -> None:
        """Let a record that has not begun live until the deadline of one who joined it."""
        live.deadline_at = deadline_at + SLACK_S
        self._later[of] = None

    def later(self, now: float) -> dict[str, float | None]:
        """Return the deadlines to be put off in the store, once each: by id, seconds from now, or None for no deadline."""
        found = dict[str, float | None]()
        for of in tuple(self._later):
            live = self.live.get(of)
            if live is None or live.begun:
                del self._later[of]
            elif live.join.id:
                found[live.join.id] = None if live.deadline_at == inf else live.deadline_at - now
                del self._later[of]
        return found

    def _put(self, now: float, of: KeyOf, live: Live) -> None:
        self.live.pop(of, None)
        self.live[of] = live
        # Two at a time, so that what has not been heard of for long goes sooner than others come.
        for _ in range(2):
            oldest, entry = next(iter(self.live.items()))
            if entry.until == inf:
                # Those that this process has claimed are as few as its slots: they go to the end and stay.
                self.live.move_to_end(oldest)
            elif entry.until < now - FORGET_S or len(self.live) > self._live_max:
                self.ended(oldest)
