"""The adaptive limit of concurrency: how much may be under way at once, from how long the work takes.

The algorithm is the *gradient limit* of Netflix's concurrency-limits and of Envoy's adaptive concurrency, with a baseline that
is measured again and again as BBR's PROBE_RTT does it. At the end of each window

    gradient = min(1, max(1/2, (tolerance + chance) × baseline / mean))
    limit    = limit + √limit             where nothing waits (gradient 1)
               limit × gradient + 1/2     where work waits inside the store

where `mean` is how long the work of this window took, `baseline` how long it takes where nothing waits, and `chance` by how much
a mean of so few may be off. It is the mean, not a median, since what is under way is what is served a second times the mean
(Little), whether the store works in batches or not. Before a store that serves k at once, the limit comes to rest at 1 or 2 more
than k, if all work takes the same time, and near 1.4 k if its times are scattered: the store never idles, and whoever is let in
waits little.

The known failure of this family is the drift of the baseline: under constant overload there is no moment without waiting, and
a baseline that is an average, or a minimum that is forgotten, comes to include the wait; the limit grows with it, and so on. So

- under load the limit is lowered for a tenth of a second in ten seconds, a *probe*. What waits inside the store is then served,
  and the mean of the probe is the baseline. A probe lets in nine tenths of what keeps the store busy, by what is known:
  it drains, and does not starve. If work then takes less in the same proportion, it still waits inside, and half of it is let
  in, and so on: a baseline that had drifted is found at once.
- a window, and so a probe, counts only work that was begun and has ended within it: work begun before has waited behind
  what another limit let in (envoyproxy/envoy#11579).
- while less than half of the limit is in use nothing is ever lowered, and no probe is needed: what such a window shows is a
  baseline (envoyproxy/envoy#9007: a probe refused healthy traffic).

Two more of its failures. Work of two kinds, 10 ms and 2 s, made averages jump and the limit fall to 1: here what took four
medians is left out, and the limit never falls below `limit_min`, from which it is back at 20 in seven windows. And a store that
fails fast looks like a fast one: a failure counts only as slow, when it took longer than the baseline.

What remains. Processes that share a store each measure the waits that the others cause: one that comes late to an overloaded
store takes their queue for its baseline. A store that serves fewer than `limit_min` at once is given that many. And where a few
slow calls take most of the store's time, the quick ones wait for them, and a seventh of what could be served is not let in.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

GRADIENT_MIN: Final = 0.5
"""A window at most halves the limit, whatever one window shows: as in Netflix's Gradient2Limit."""
LOADED: Final = 0.5
"""The share of the limit in use below which latency says nothing about the limit: as in Netflix's Gradient2Limit."""
BOUND: Final = 0.75
"""The share of the limit in use from which it is the limit that holds work back, so that a probe is needed."""
LAG_FACTOR: Final = 0.9
"""By how much a window with a late event loop lowers the limit: the back-off ratio of Netflix's AIMDLimit."""
SAMPLES_MIN: Final = 10
"""A window lasts until so much work has begun and ended in it: as in Netflix's WindowedLimit."""
SAMPLES_MAX: Final = 250
"""The latest of a window; sorting them takes some 20 µs."""
HEADROOM: Final = 0.5
"""The pieces of work that wait inside the store when the limit has found its place, so that it never idles: Vegas' alpha."""
CHANCE: Final = 1.5
"""By so many standard errors a mean may be longer by chance: times of one length show a wait of a tenth, others of a third."""
OUTLIER: Final = 4.0
"""Work that took so many medians is of another kind: it is left out of a mean."""
PROBE_BUSY: Final = 0.9
"""The share of what the store does at once that a probe lets in: it is drained, and not starved."""
QUEUED: Final = 1.07
"""Work that waits inside the store takes less in proportion when less is let in: by so much more, and it does not wait any more.
A baseline that is right makes it 1 / 0.9."""
PROBE_SAMPLES: Final = 50
"""A probe ends with so many, Envoy's `request_count`. The mean of 50 exponential times is within 14 % of the truth (one
standard deviation: 1 / √50)."""
PROBE_S_MAX: Final = 0.2
"""Or after so long, BBR's ProbeRTTDuration, if work is quick."""
PROBE_LATENCIES: Final = (2.0, 6.0, 20.0)
"""If work is slow it lasts two means, in the first of which what waits inside the store is served. After six less is enough:"""
PROBE_SAMPLES_MIN: Final = 8
"""And after twenty it says nothing. (The slots may all be held by the slowest work; and a mean of little work is a guess: in a
short window only the quickest work both begins and ends.)"""
PROBE_COST: Final = 20.0
"""The next probe waits twenty times as long as the last one took: at half of the limit, a fortieth of the work at most."""
PROBE_AGAIN_S: Final = 1.0
"""After a surprise it waits so long instead."""
PROBES_KEPT: Final = 3
"""The baseline is the median of the last three probes."""
UNLIKE: Final = 1.5
"""A probe that says so many times more or less than was known is a surprise: more likely a change of the store than noise. A
limit that has become so many times what it was, or half, is a reason to probe."""
FORGET_S: Final = 1.0
"""With nothing under way and no work for so long, how long it takes is not known."""


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most so much work at once as can be served without waiting inside: found out, from `limit_start`, by how long it takes.

    `limit_min` is above 1, so that one slow piece of work is never all there is. `lag_s` is how late the event loop may be before
    the limit shrinks. `tolerance` is how much longer than the baseline work may take before it counts as waiting, besides
    what is chance. `window_s` is the shortest window, `probe_every_s` the time between two probes under load (BBR: 10 s).

    Raises `ValueError` for values that make no sense.
    """

    limit_min: int = 4
    limit_max: int = 1000
    limit_start: int = 20
    lag_s: float = 0.05
    tolerance: float = 1.05
    window_s: float = 0.1
    probe_every_s: float = 10.0

    def __post_init__(self) -> None:
        """Refuse limits that contradict each other."""
        if not 2 <= self.limit_min <= self.limit_start <= self.limit_max:
            msg = (
                "concurrency needs 2 <= limit_min <= limit_start <= limit_max, "
                f"not {self.limit_min}, {self.limit_start}, {self.limit_max}"
            )
            raise ValueError(msg)
        if not 1.0 < self.tolerance <= 10.0:
            msg = f"concurrency needs a tolerance above 1 and at most 10, not {self.tolerance}"
            raise ValueError(msg)
        for name, value in (("lag_s", self.lag_s), ("window_s", self.window_s), ("probe_every_s", self.probe_every_s)):
            if not 0.0 < value < math.inf:
                msg = f"concurrency needs {name} above 0 seconds, not {value}"
                raise ValueError(msg)


class Limit:
    """The state of one `Concurrency`. Read `limit` before work begins, call `sample` when it ends, and `adapt` when
    `now >= window_ends_at`. Not safe for several threads at once.
    """

    __slots__ = (
        "_baselines",
        "_bound",
        "_enough_at",
        "_failures",
        "_full",
        "_gives_up_at",
        "_in_flight",
        "_peak",
        "_probe_at",
        "_probed",
        "_queued_s",
        "_sampled_at",
        "_samples",
        "_took",
        "_window_at",
        "baseline_s",
        "latency_s",
        "limit",
        "policy",
        "probes",
        "probing",
        "window_ends_at",
    )

    def __init__(self, policy: Concurrency) -> None:
        self.policy = policy
        self.limit = policy.limit_start
        """How much may be under way at once, now."""
        self.latency_s = 0.0
        """How long one piece of work takes now (the mean without outliers); 0.0 while unknown."""
        self.baseline_s = 0.0
        """How long it takes where nothing waits; 0.0 while unknown."""
        self.window_ends_at = 0.0
        self.probing = False
        self.probes = 0
        self._full = float(policy.limit_start)
        """The limit outside of a probe, with its fraction."""
        self._probed = self._full
        """What it was after the last probe."""
        self._probe_at = 0.0
        """The earliest time of the next probe."""
        self._bound = False
        """Whether the limit held work back in the window before. Only the second such window sets off a probe: no burst does."""
        self._queued_s = 0.0
        """In a probe: work that takes less still waits inside the store, and half of it shows more."""
        self._enough_at = 0.0
        self._gives_up_at = 0.0
        """The latest end of this one. From `_enough_at` on it needs less work."""
        self._baselines: deque[float] = deque(maxlen=PROBES_KEPT)
        self._sampled_at = 0.0
        # Of the present window: how long its work took, how much that was, how much of it had failed, and what was under way
        # when it began: in sum, and at most.
        self._took: list[float] = []
        self._samples = 0
        self._failures = 0
        self._in_flight = 0
        self._peak = 0
        self._window_at = 0.0

    def sample(self, now: float, began_at: float, in_flight_at_start: int, ok: bool) -> None:  # noqa: FBT001 - the hot path
        """Record a piece of work that has ended, begun when with it so many were under way. `ok` is False if it failed.

        Not for work that was parked, or that waited for its client: it says nothing about the store.
        """
        if began_at < self._window_at:
            return
        took_s = now - began_at
        if not ok:
            if self.probing or not 0.0 < self.baseline_s < took_s:
                # A quick failure is not quick work. A slow one (a time-out) took at least so long.
                return
            self._failures += 1
        self._sampled_at = now
        self._samples += 1
        self._in_flight += in_flight_at_start
        if in_flight_at_start > self._peak:  # noqa: PLR1730 - three times as quick as max()
            self._peak = in_flight_at_start
        took = self._took
        if len(took) < SAMPLES_MAX:
            took.append(took_s)
        else:
            took[self._samples % SAMPLES_MAX] = took_s

    def adapt(self, now: float, in_flight: int, lag_s: float) -> None:
        """End a window that is over: set the limit by what it showed. `lag_s` is how late the event loop is now.

        Call it also for work that is refused: a latency that nothing shows any more is forgotten here, and deadlines are
        refused by it.
        """
        if now < self.window_ends_at:
            return
        if in_flight == 0 and now - self._sampled_at > FORGET_S:
            self.latency_s = 0.0
        if self.probing:
            enough = PROBE_SAMPLES if now < self._enough_at else PROBE_SAMPLES_MIN
            if len(self._took) >= enough or now >= self._gives_up_at:
                self._end_probe(now)
        elif len(self._took) < SAMPLES_MIN:
            self.window_ends_at = now + self.policy.window_s
        else:
            self._end_window(now, in_flight, lag_s)

    def _open(self, now: float) -> None:
        self._took = []
        self._samples = self._failures = self._in_flight = self._peak = 0
        self._window_at = now
        self.window_ends_at = now + self.policy.window_s

    def _end_window(self, now: float, in_flight: int, lag_s: float) -> None:
        mean_s = self.latency_s = _mean(self._took)
        full, used, peak = self._full, self._in_flight / self._samples, max(self._peak, in_flight)
        bound = used >= BOUND * full
        if peak < LOADED * full or full <= self.policy.limit_min:
            # No more is under way than in a probe. At the floor a baseline that was too short would hold the limit there.
            if not self._failures:
                self._learn(mean_s)
        elif (bound and self._bound and (now >= self._probe_at or full < self._probed * GRADIENT_MIN)) or not self.baseline_s:
            self._begin_probe(now, self._busy(used, mean_s), used, mean_s)
            return
        self._bound = bound
        changed = self._changed(mean_s, lag_s)
        if used >= LOADED * full if changed < full else peak >= BOUND * full:
            self._full = min(float(self.policy.limit_max), max(float(self.policy.limit_min), changed))
            self.limit = int(self._full)
        if self._full > self._probed * UNLIKE:
            # The store has become quicker, or serves more at once; or the baseline was too long, and so is the limit.
            self._probe_at = min(self._probe_at, now + PROBE_AGAIN_S)
        self._open(now)

    def _changed(self, mean_s: float, lag_s: float) -> float:
        """Return the limit that this window asks for."""
        if lag_s > self.policy.lag_s:
            return self._full * LAG_FACTOR
        tolerance = self.policy.tolerance + CHANCE * _error(self._took, mean_s)
        gradient = tolerance * self.baseline_s / mean_s if mean_s else 1.0
        if gradient >= 1.0:
            return self._full + math.sqrt(self._full)
        return self._full * max(GRADIENT_MIN, gradient) + HEADROOM

    def _busy(self, used: float, mean_s: float) -> float:
        """Return how much keeps the store at work with nothing waiting in it: what it serves a second times the baseline."""
        if not self.baseline_s:
            return self._full / 2
        # What is under way is what is served a second times the mean (Little). Where nothing seems to wait, although the limit
        # holds work back, the baseline may be too long, or this is chance: a half would then starve the store.
        busy = PROBE_BUSY * used * self.baseline_s / mean_s if self.baseline_s < mean_s else BOUND * used
        return min(busy, BOUND * self._full)

    def _begin_probe(self, now: float, limit: float, used: float, mean_s: float) -> None:
        """Let in `limit` at once, where it was `used`, and work took `mean_s`."""
        self._open(now)
        self.probing = True
        self.probes += 1
        self.limit = max(self.policy.limit_min, int(limit))
        # Where no more was under way than the probe lets in, it drains nothing and shows nothing of that kind.
        self._queued_s = QUEUED * mean_s * self.limit / used if self.limit < used else 0.0
        at_least, enough, at_most = PROBE_LATENCIES
        self.window_ends_at = now + max(self.policy.window_s, at_least * mean_s)
        self._enough_at = now + max(PROBE_S_MAX, enough * mean_s)
        self._gives_up_at = now + max(PROBE_S_MAX, at_most * mean_s)

    def _end_probe(self, now: float) -> None:
        lasted_s = now - self._window_at
        self._probe_at = now + max(PROBE_AGAIN_S, PROBE_COST * lasted_s)
        if len(self._took) >= PROBE_SAMPLES_MIN:
            mean_s = _mean(self._took)
            if mean_s < self._queued_s and self.limit > self.policy.limit_min:
                self._begin_probe(now, self.limit / 2, self.limit, mean_s)
                return
            if self._learn(mean_s):
                self._probe_at = max(self._probe_at, now + self.policy.probe_every_s)
        self.probing = False
        self.limit = int(self._full)
        self._probed = self._full
        self._open(now)

    def _learn(self, mean_s: float) -> bool:
        """Measure the baseline by work that did not wait; return whether it is like what was known."""
        before_s, known = self.baseline_s, self._baselines
        alike = before_s / UNLIKE <= mean_s <= before_s * UNLIKE
        if not alike:
            known.clear()
        known.append(mean_s)
        self.baseline_s = sorted(known)[len(known) // 2]
        return alike


def _mean(values: Sequence[float]) -> float:
    """Return the mean without outliers. Not the median: what is under way is what is served times the *mean* (Little)."""
    ordered = sorted(values)
    longest_s = OUTLIER * ordered[len(ordered) // 2]
    while ordered[-1] > longest_s:
        ordered.pop()
    return sum(ordered) / len(ordered)


def _error(values: Sequence[float], mean_s: float) -> float:
    """Return the standard error of a mean, as a share of it; an outlier counts as one that is just none."""
    if not mean_s:
        return 0.0
    squares = sum(min(abs(value - mean_s), OUTLIER * mean_s) ** 2 for value in values)
    return math.sqrt(squares) / (len(values) * mean_s)
