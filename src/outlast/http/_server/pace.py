"""A lowest rate: how long something may take that moves bytes, where slow is allowed and standing still is not."""

from __future__ import annotations

import math


class Pace:
    """A deadline that is `grace_s` away at first and moves on by a second for each `bytes_per_s` bytes, never further than
    `grace_s` from now: who was quick for a while has no credit to stand still.
    """

    __slots__ = ("_bytes_per_s", "_grace_s", "deadline")

    def __init__(self, grace_s: float, bytes_per_s: float) -> None:
        self._grace_s = grace_s
        self._bytes_per_s = bytes_per_s
        self.deadline = math.inf

    def start(self, now: float) -> None:
        """Begin, or begin again."""
        self.deadline = now + self._grace_s

    def moved(self, now: float, count: float) -> None:
        """Note that `count` bytes were moved."""
        self.deadline = min(self.deadline + count / self._bytes_per_s, now + self._grace_s)

    def idle(self, seconds: float) -> None:
        """Leave out a time in which the other side was not waited for."""
        self.deadline += seconds

    def hurry(self, now: float, grace_s: float) -> None:
        """Allow less from now on: the server stops."""
        self._grace_s = min(self._grace_s, grace_s)
        if self.deadline != math.inf:
            self.deadline = min(self.deadline, now + self._grace_s)

    def end(self) -> None:
        """Wait for nothing."""
        self.deadline = math.inf
