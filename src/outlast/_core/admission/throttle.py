"""Client-side throttling: a caller refuses locally what its peer would refuse anyway, so that the peer need not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random

_SLICE_S: Final = 1.0
"""Counts are forgotten a second at a time."""


@dataclass(frozen=True, slots=True)
class Throttle:
    """Refuse locally with probability max(0, (requests - k × accepts) / (requests + 1)), over the last `window_s` seconds.

    The formula, two minutes and k = 2 are those of "Handling Overload" (Site Reliability Engineering, 2016, chapter 21). A
    higher `k` sends more to a peer that refuses it, and notices sooner that it no longer does. There are two changes, both for
    the way back, which the formula alone makes as long as its window: never more than `refused_max` of the requests are refused
    locally (0.9; Envoy's admission control stops at 0.8), and after a second in which the peer answered and refused
    nothing, all that was before it is forgotten. So what is sent grows to about three times with each such second, somewhat
    as in TCP's slow start: from a tenth to everything in three seconds.

    Raises `ValueError` for values that make no sense.
    """

    k: float = 2.0
    window_s: float = 120.0
    refused_max: float = 0.9

    def __post_init__(self) -> None:
        """Refuse what would refuse always, or what a peer accepts."""
        if not 1.0 <= self.k < math.inf:
            msg = f"a throttle needs k of at least 1, not {self.k}: below it refuses what its peer would accept"
            raise ValueError(msg)
        if not _SLICE_S <= self.window_s <= 3600.0:
            msg = f"a throttle needs window_s from {_SLICE_S:g} to 3600, not {self.window_s}"
            raise ValueError(msg)
        if not 0.0 <= self.refused_max < 1.0:
            msg = f"a throttle needs refused_max from 0 to below 1, not {self.refused_max}: else it never sees its peer recover"
            raise ValueError(msg)


class Throttling:
    """The state of one `Throttle`, before one peer. Not safe for several threads at once."""

    def __init__(self, policy: Throttle) -> None:
        self.policy = policy
        self.requests = 0
        """Requests of the window, with those that were refused locally."""
        self.accepts = 0
        """Requests of the window that the peer accepted."""
        self._slices: list[list[int]] = []
        """Of each second of the window that had any, oldest first: its number, requests, accepts, refusals by the peer."""

    def refuses(self, now: float, rng: random.Random) -> bool:
        """Count a request, and return whether it is refused here, without asking the peer."""
        current = self._slice(now)
        share = (self.requests - self.policy.k * self.accepts) / (self.requests + 1)
        self.requests += 1
        current[1] += 1
        return share > 0.0 and rng.random() < min(share, self.policy.refused_max)

    def record(self, now: float, accepted: bool) -> None:  # noqa: FBT001 - one answer, yes or no
        """Record the peer's answer to a request that was sent: False if it refused it as one too many, True for any other answer.

        A request that was not answered is not recorded: it is no refusal and no acceptance.
        """
        current = self._slice(now)
        if accepted:
            self.accepts += 1
            current[2] += 1
        else:
            current[3] += 1

    def _slice(self, now: float) -> list[int]:
        """Return the counts of the present second, after forgetting what is over."""
        number = int(now // _SLICE_S)
        slices = self._slices
        if slices and number <= slices[-1][0]:
            return slices[-1]
        if slices and slices[-1][2] and not slices[-1][3]:
            del slices[:-1]
        oldest = number - int(self.policy.window_s / _SLICE_S)
        while slices and slices[0][0] <= oldest:
            del slices[0]
        self.requests = sum(counts[1] for counts in slices)
        self.accepts = sum(counts[2] for counts in slices)
        slices.append([number, 0, 0, 0])
        return slices[-1]
