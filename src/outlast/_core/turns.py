"""Turns of those who are refused: one that comes back at once waits before the next refusal, so that others get their turn.

A refusal costs nothing, and that is the danger: `while True` around it turns a hundred thousand times a second, and where
it is raised without one await, the event loop, the prober and the end of the outage never come.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

NEAR_S: Final = 0.010
"""Coming back within this time of the last refusal is coming back at once."""
FIRST_S: Final = 0.001
"""The first wait; it doubles. 1 + 2 + ... + 512 ms: the tenth refusal in a row comes a second after the first."""
SPINS_AT: Final = 8
"""With this many refusals in a row a caller spins, and is named: it has waited for 1 + 2 + ... + 64 = 127 ms by then."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A refusal of one task or thread."""

    refused_at: float
    """The time at which it was refused; before that, at which it asked."""
    wait_s: float = 0.0
    """The wait before it was refused."""
    in_a_row: int = 1

    @property
    def begins_to_spin(self) -> bool:
        """Whether this refusal is the one by which its caller is named."""
        return self.in_a_row == SPINS_AT


def next_turn(last: Turn | None, now: float, cap_s: float) -> Turn:
    """Return the refusal of someone who asks `now`, if it has to be refused: after `wait_s` seconds.

    They are 0 for whoever was not refused within the last 10 ms; otherwise 1 ms, doubling up to `cap_s`.
    """
    if last is None or now - last.refused_at > NEAR_S:
        return Turn(now)
    wait_s = min(max(FIRST_S, 2 * last.wait_s), max(FIRST_S, cap_s))
    return Turn(now, wait_s, last.in_a_row + 1)


def refused(turn: Turn, now: float) -> Turn:
    """Return the same turn, refused `now`: its wait may have taken longer than was asked for, which is no staying away."""
    return replace(turn, refused_at=now)
