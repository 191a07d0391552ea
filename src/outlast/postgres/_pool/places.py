"""The places of a pool: who has one, whether there is another, and what to say when there is none. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

C = TypeVar("C")

IDLE_S_MAX: Final = 600.0
"""The longest that a connection may lie idle: ten minutes, so that a burst does not keep sessions of the server for a day."""
GRACE_S: Final = 2.0
"""The time in which a statement that was given up has to end, or it counts as one that does not: the cancel request takes some
milliseconds, the server's own look whether we are still there a second."""


@dataclass(slots=True)
class Places(Generic[C]):
    """Every place is in exactly one of four states; together they are what the server may hold of ours.

    `borrowed`: a caller has the connection. `idle`: nobody has it. `dialling`: it is being opened. `given_up`: we have let go of
    it in the middle of a statement, and do not know yet that its session has ended on the server.
    """

    borrowed: set[C] = field(default_factory=set[C])
    idle: list[tuple[C, float]] = field(default_factory=list[tuple[C, float]])
    """With the time since when; the newest last, and lent first, so that the surplus grows old."""
    dialling: set[object] = field(default_factory=set[object])
    given_up: dict[object, float] = field(default_factory=dict[object, float])
    """With the time since when."""

    @property
    def taken(self) -> int:
        """The number of places that are taken."""
        return len(self.borrowed) + len(self.idle) + len(self.dialling) + len(self.given_up)

    @property
    def connections(self) -> list[C]:
        """Every connection that is open."""
        return [*self.borrowed, *(conn for conn, _ in self.idle)]

    def dials_wanted(self, waiting: int, limit: int) -> int:
        """Return how many more connections to open for those who wait."""
        return max(0, min(waiting - len(self.dialling), limit - self.taken))

    def expired(self, now: float) -> list[C]:
        """Remove what has lain idle for too long, and return it."""
        old = [conn for conn, since in self.idle if now - since >= IDLE_S_MAX]
        self.idle = [(conn, since) for conn, since in self.idle if now - since < IDLE_S_MAX]
        return old

    def is_stuck(self, limit: int, now: float) -> bool:
        """Return whether waiting is useless: every place is held by a statement that should have ended by now."""
        return len(self.given_up) >= limit and now - max(self.given_up.values()) >= GRACE_S

    def unended(self, now: float) -> str:
        """Describe what has not ended on the server; "" if everything has."""
        if not self.given_up:
            return ""
        count, oldest_s = len(self.given_up), now - min(self.given_up.values())
        what = "statement of ours has" if count == 1 else "statements of ours have"
        return f"{count} {what} not ended on the server, the oldest since {oldest_s:.1f} s"
