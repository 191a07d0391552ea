"""The adaptive limit of concurrency: how much may be under way at once, from how long the work takes.

The algorithm is the *gradient limit* of Netflix's concurrency-limits and of Envoy's adaptive concurrency, with a baseline
that is measured again and again as BBR's PROBE_RTT does it. At the end of each window

    gradient = min(1, max(1/2, tolerance × baseline / median))
    limit    = limit × gradient + √limit

where `median` is how long the work of this window took, and `baseline` how long it takes where nothing waits. Work that is
not held up lets the limit grow by √limit a window; where it waits inside what serves it, the limit comes to rest
at tolerance × (what is served at once) + √limit.

The known failure of this family is the drift of the baseline: under constant overload there is no moment without waiting, and
a baseline that is an average, or a minimum that is forgotten, comes to include the wait; the limit grows with it, and so on. So

- under load the limit is halved for one window in ten seconds, a *probe*. What waits inside the store is then served, and
  the median of the probe is the baseline. Half and not four, as BBRv2 has it: the store keeps working.
- a window, and so a probe, counts only work that was begun and has ended within it: work begun before has waited behind
  what another limit let in (envoyproxy/envoy#11579).
- while less than half of the limit is in use, nothing is ever lowered, and no probe is needed: what such a window shows is a
  baseline (envoyproxy/envoy#9007: a probe refused healthy traffic).

Two more of its failures. Work of two kinds, 10 ms and 2 s, made averages jump and the limit fall to 1: here it is medians,
of at least ten, and the limit never falls below `limit_min`, from which it is back at 20 in seven windows. And a store
that fails fast looks like a fast one: a failure counts only as slow, when it took longer than the work takes now.

What remains: processes that share a store each measure the waits that the others cause, so that one that comes late to an
overloaded store takes their queue for its baseline until they too have probed.
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
LAG_FACTOR: Final = 0.9
"""By how much a window with a late event loop lowers the limit: the back-off ratio of Netflix's AIMDLimit."""
SAMPLES_MIN: Final = 10
"""A window lasts until so much work has begun and ended in it: as in Netflix's WindowedLimit."""
SAMPLES_MAX: Final = 250
"""The latest of a window; sorting them takes some 20 µs."""
PROBE_SAMPLES: Final = 32
"""A probe ends with so many. The median of 32 exponential times is within 25 % of the truth (one standard deviation)."""
PROBE_SAMPLES_MIN: Final = 8
"""With fewer a probe that has lasted too long says nothing."""
PROBE_LATENCIES_MAX: Final = 5.0
"""A probe ends after so many medians: the first is for what waits inside the store."""
PROBE_S_MIN: Final = 0.2
"""A probe may last so long in any case: BBR's ProbeRTTDuration."""
PROBE_SHARE: Final = 20.0
"""The next probe waits twenty times as long as the last one took: at half the limit, a fortieth of the work at most."""
BASELINE_SAMPLES: Final = 96
"""The baseline is the median of the last three probes, as long as they agree."""
DISAGREE: Final = 1.5
"""A probe whose median is so many times longer or shorter is no noise: the store has changed, and what was is forgotten."""
SETTLED: Final = 0.1
"""After a probe that moved the baseline by more than a tenth the next comes after a second."""
PROBE_AGAIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most so much work at once as can be served without waiting inside: found out, from `limit_start`, by how long it takes.

    `limit_min` is above 1, so that one slow piece of work is never all there is. `lag_s` is how late the event loop may be before
    the limit shrinks. `tolerance` is how much longer than the baseline work may take before it counts as waiting (Envoy's
    buffer of 25 %). `window_s` is the shortest window, `probe_every_s` the time between two probes under load (BBR: 10 s).

    Raises `ValueError` for values that make no sense.
    """

    limit_min: int = 4
    limit_max: int = 1000
    limit_start: int = 20
    lag_s: float = 0.05
    tolerance: float = 1.25
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
        "_full",
        "_highest",
        "_in_flight",
        "_peak",
        "_probe_at",
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
        """How long one piece of work takes now (the median); 0.0 while unknown."""
        self.baseline_s = 0.0
        """How long it takes where nothing waits; 0.0 while unknown."""
        self.window_ends_at = 0.0
        self.probing = False
        self.probes = 0
        self._full = float(policy.limit_start)
        """The limit outside of a probe, with its fraction."""
        self._highest = self._full
        """The highest of it since the last probe."""
        self._probe_at = 0.0
        """The earliest time of the next probe."""
        self._baselines: deque[float] = deque(maxlen=BASELINE_SAMPLES)
        self._sampled_at = 0.0
        # Of the present window: how long its work took, how much that was, what was under way before it in sum and at most.
        self._took: list[float] = []
        self._samples = 0
        self._in_flight = 0
        self._peak = 0
        self._window_at = 0.0

    def sample(self, now: float, began_at: float, in_flight_at_start: int, ok: bool) -> None:  # noqa: FBT001 - the hot path
        """Record a piece of work that has ended, begun when so many others were under way. `ok` is False if it failed."""
        if began_at < self._window_at:
            return
        took_s = now - began_at
        if not ok and (self.probing or not 0.0 < self.latency_s < took_s):
            return
        self._samples += 1
        self._in_flight += in_flight_at_start
        self._peak = max(self._peak, in_flight_at_start)
        took = self._took
        if len(took) < SAMPLES_MAX:
            took.append(took_s)
        else:
            took[self._samples % SAMPLES_MAX] = took_s
        if self.probing and len(took) >= PROBE_SAMPLES:
            self.window_ends_at = now

    def adapt(self, now: float, in_flight: int, lag_s: float) -> None:
        """End a window that is over: set the limit by what it showed. `lag_s` is how late the event loop is now."""
        if now < self.window_ends_at:
            return
        if self._samples:
            self._sampled_at = now
        if self.probing:
            self._end_probe(now)
        elif len(self._took) < SAMPLES_MIN:
            self._go_on(now, in_flight)
        else:
            self._end_window(now, in_flight, lag_s)

    def _open(self, now: float) -> None:
        self._took = []
        self._samples = self._in_flight = self._peak = 0
        self._window_at = now
        self.window_ends_at = now + self.policy.window_s

    def _go_on(self, now: float, in_flight: int) -> None:
        """Let a window with too little work in it last; forget a latency that nothing has shown for long."""
        self.window_ends_at = now + self.policy.window_s
        if in_flight == 0 and now - self._sampled_at > 1.0 + 2 * self.latency_s:
            # Deadlines are refused by it: without work it would stay as it is, and refuse all work.
            self.latency_s = 0.0

    def _end_window(self, now: float, in_flight: int, lag_s: float) -> None:
        median_s = self.latency_s = _median(self._took)
        limit = self._full
        loaded = self._in_flight / self._samples >= LOADED * limit
        peak = max(self._peak, in_flight)
        if not loaded or median_s < self.baseline_s / DISAGREE:
            self._learn(self._took)
        elif now >= self._probe_at or limit < self._highest * GRADIENT_MIN:
            self._begin_probe(now)
            return
        gradient = min(1.0, max(GRADIENT_MIN, self.policy.tolerance * self.baseline_s / median_s)) if median_s else 1.0
        changed = limit * LAG_FACTOR if lag_s > self.policy.lag_s else limit * gradient + math.sqrt(limit)
        if loaded if changed < limit else peak >= LOADED * limit:
            self._full = min(float(self.policy.limit_max), max(float(self.policy.limit_min), changed))
            self._highest = max(self._highest, self._full)
            self.limit = int(self._full)
        self._open(now)

    def _begin_probe(self, now: float) -> None:
        self._open(now)
        self.probing = True
        self.probes += 1
        self.limit = max(self.policy.limit_min, int(self._full * 0.5))
        self.window_ends_at = now + max(PROBE_S_MIN, PROBE_LATENCIES_MAX * self.latency_s)

    def _end_probe(self, now: float) -> None:
        moved = not self.baseline_s
        if len(self._took) >= PROBE_SAMPLES_MIN or (self._took and moved):
            before_s = self.baseline_s
            self._learn(self._took)
            moved = abs(self.baseline_s - before_s) > SETTLED * before_s
        wait_s = max(PROBE_AGAIN_S if moved else self.policy.probe_every_s, PROBE_SHARE * (now - self._window_at))
        self._probe_at = now + wait_s
        self.probing = False
        self.limit = int(self._full)
        self._highest = self._full
        self._open(now)

    def _learn(self, took: Sequence[float]) -> None:
        """Measure the baseline from work that did not wait."""
        measured_s = _median(took)
        if not self.baseline_s / DISAGREE <= measured_s <= self.baseline_s * DISAGREE:
            self._baselines.clear()
        self._baselines.extend(took[-PROBE_SAMPLES:])
        self.baseline_s = _median(self._baselines)


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
