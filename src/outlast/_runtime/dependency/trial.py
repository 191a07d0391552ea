"""The half-open place: where no probe exists, one caller at a time finds out whether the dependency is back."""

from __future__ import annotations

OFFER_S = 1.5
"""The seconds that a released waiter may take to use its place before the next one gets it: one probe wait at the cap."""


class Trial:
    """One place. It is taken by at most one caller, and given back by whoever does not decide anything.

    It has no lock: the owner's is held by whoever calls, except for `withdraw`, which only makes it free.
    `taken` while a call is on trial; `offered_until` while a released waiter is on its way to its call.
    """

    __slots__ = ("offered_until", "taken")

    def __init__(self) -> None:
        self.taken = False
        self.offered_until: float | None = None

    def take(self, now: float, due_at: float | None) -> bool:
        """Take the place, if it is free and the wait is over."""
        if self.taken or due_at is None or now < due_at:
            return False
        self.taken = True
        self.offered_until = None
        return True

    def offer(self, now: float) -> bool:
        """Reserve the place for a waiter that is released now; False while somebody has it."""
        if self.taken or (self.offered_until is not None and now < self.offered_until):
            return False
        self.offered_until = now + OFFER_S
        return True

    def withdraw(self) -> None:
        """Make the place free again."""
        self.taken = False
        self.offered_until = None
