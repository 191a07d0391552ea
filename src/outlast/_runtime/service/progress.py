"""The loop or task that is working right now, so that a guarded call that succeeded counts as useful work of the right loop."""

from __future__ import annotations

from contextvars import ContextVar


class Progress:
    """The useful work of one supervised worker: a plain counter that only grows."""

    __slots__ = ("count", "name")

    def __init__(self, name: str = "") -> None:
        """Start at zero. `name` says whose it is: "loop settle"; "" is nobody's."""
        self.count = 0
        self.name = name


_NOBODY = Progress()
current: ContextVar[Progress] = ContextVar("outlast_progress", default=_NOBODY)


def progress() -> None:
    """Record that this turn of the loop did useful work.

    A guarded call that succeeds says so by itself. Call this in a loop that turns quickly and rightly so
    without using any dependency; otherwise it is taken for one that spins. Outside a loop it does nothing.
    """
    current.get().count += 1
