"""The cost of a decision of admission, in empty calls of a Python function, in interleaved pairs of one run.

    python bench/admission.py                    # 41 pairs of 1,000 decisions
    python bench/admission.py --only requests    # 20 pairs of two server processes, with and without admission
    python bench/admission.py --json             # the same, for a script

All five checks are on; 1,000 keys of 50 tenants ask one after the other, each with a deadline. A pair times as many empty calls
and as many decisions, each in the same loop over the same asks; which comes first changes from pair to pair. The figure is the
median of the ratios, with its 95 % interval (of a median, by rank: it needs no distribution). The exit code is 1 when the upper
end says that a decision costs more than 40 empty calls, or a refusal more than letting work in and out again and a quarter.

Then what admission adds to a request that parses an order and stores it in PostgreSQL: two server processes, the same but for
admission, answer as many requests each, in pairs that change their order. The figure is processor time of the server process,
user and system, and the interval that of Student's t over the logarithms. The exit code is 1 as well when its upper end is above
5 %. The same is printed, without a limit, for a request that stores nothing: it is dearer in proportion.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import random
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from _admission_requests import Share
from _admission_requests import measure as measure_requests
from _medians import median_interval

from outlast._core.admission.admitter import Admitter
from outlast._core.admission.bucket import Rate
from outlast._core.admission.concurrency import Concurrency
from outlast._core.admission.policy import AdmissionPolicy
from outlast._core.admission.queue import Place, Queue
from outlast._core.admission.ticket import Ticket
from outlast._core.admission.values import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST_SHARE_MAX = 0.05
TIMES_MAX = 40.0
REFUSED_TIMES_MAX = 1.25
STEP_S = 1e-4
"""Between two decisions: ten thousand a second."""
KEYS = [f"key {number}" for number in range(1_000)]
TENANTS = [f"tenant {number}" for number in range(50)]
CROWD = 10_000


Ask: TypeAlias = tuple[float, str, str, float]
"""One piece of work that wants to come in: the time, its key, its tenant, its deadline."""


@dataclass(frozen=True, slots=True)
class Row:
    """The cost of one kind of decision."""

    name: str
    ns: float
    """The median, with the turn of the loop."""
    times: float
    """As a multiple of what it is compared with: the median of the pairs."""
    low: float
    high: float
    compared_with: str
    limit: float | None


def empty() -> None:
    """Do nothing."""


def admitter(slots: int, per_s: float = 1e6, waiters_max: int = 1_000) -> Admitter:
    """Return a machine with all five checks."""
    concurrency = Concurrency(limit_min=slots, limit_start=slots, limit_max=slots)
    rate = Rate(per_s, burst=max(1.0, per_s))
    policy = AdmissionPolicy(rate, rate, concurrency, queue=Queue(waiters_max=waiters_max))
    machine = Admitter(policy, random.Random(1), Ticket)
    machine.sample_memory(0.0, 50.0, 100.0)
    return machine


class Clock:
    """The asks of one measurement after the other; time goes on between them."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._rng = random.Random(1)

    def asks(self, count: int) -> list[Ask]:
        """Return the next `count` asks."""
        first, self.now = self.now, self.now + 1.0 + count * STEP_S
        made = []
        for number in range(count):
            at, which = first + number * STEP_S, self._rng.randrange(len(KEYS))
            made.append((at, KEYS[which], TENANTS[which % len(TENANTS)], at + 2.0))
        return made


# The arms: each returns the processor seconds of as many turns as there are asks.


def time_empty(asks: list[Ask]) -> float:
    """Time empty calls."""
    began = time.process_time()
    for _now, _key, _tenant, _deadline_at in asks:
        empty()
    return time.process_time() - began


def in_only(machine: Admitter) -> Callable[[list[Ask]], float]:
    """Time decisions that let work in."""

    def spent(asks: list[Ask]) -> float:
        tickets: list[Any] = []
        admit, keep = machine.admit, tickets.append
        began = time.process_time()
        for now, key, tenant, deadline_at in asks:
            keep(admit(now, key=key, tenant=tenant, deadline_at=deadline_at))
        took = time.process_time() - began
        for ticket in tickets:
            assert type(ticket) is Ticket
            machine.release(ticket, asks[-1][0])
        return took

    return spent


def in_and_out(machine: Admitter) -> Callable[[list[Ask]], float]:
    """Time decisions that let work in, with its end."""

    def spent(asks: list[Ask]) -> float:
        admit, release, done = machine.admit, machine.release, machine.done
        began = time.process_time()
        for now, key, tenant, deadline_at in asks:
            release(admit(now, key=key, tenant=tenant, deadline_at=deadline_at), now)  # type: ignore[arg-type]
        took = time.process_time() - began
        assert machine.done == done + len(asks)
        return took

    return spent


def refused(machine: Admitter, *, may_wait: bool) -> Callable[[list[Ask]], float]:
    """Time decisions that refuse."""

    def spent(asks: list[Ask]) -> float:
        admit, got = machine.admit, None
        before = sum(machine.refused.values())
        began = time.process_time()
        for now, key, tenant, deadline_at in asks:
            got = admit(now, key=key, tenant=tenant, deadline_at=deadline_at, may_wait=may_wait)
        took = time.process_time() - began
        assert type(got) is Refusal
        assert sum(machine.refused.values()) == before + len(asks)
        return took

    return spent


def through_the_queue(machine: Admitter, waiters: int) -> Callable[[list[Ask]], float]:
    """Time work that waits among `waiters` others, all of different keys and tenants, until a slot is free, and its end."""
    held = []
    for number in range(waiters + 2):
        got = machine.admit(0.0, key=f"waiter {number}", tenant=f"waiter {number}")
        if isinstance(got, Ticket):
            held.append(got)
    assert machine.waiting == waiters

    def spent(asks: list[Ask]) -> float:
        admit, release = machine.admit, machine.release
        began = time.process_time()
        for _now, key, tenant, _deadline_at in asks:
            # Time stands still, so that nobody is dropped.
            assert type(admit(0.0, key=key, tenant=tenant)) is Place
            [(_, ticket)] = release(held.pop(), 0.0)
            held.append(ticket)  # type: ignore[arg-type]
        took = time.process_time() - began
        assert machine.waiting == waiters
        return took

    return spent


def full(slots: int = 2) -> Admitter:
    """Return a machine whose slots are all held, by work that takes a second."""
    machine = admitter(slots)
    held = [machine.admit(0.0, key=KEYS[number], tenant="held") for number in range(slots)]
    for ticket in held:
        assert isinstance(ticket, Ticket)
    return machine


def exhausted() -> Admitter:
    """Return a machine whose bucket of all has no token for hours."""
    machine = admitter(10, per_s=1e-6)
    first = machine.admit(0.0)
    assert isinstance(first, Ticket)
    machine.release(first, 0.0)
    return machine


# The comparison.


def warm_up(asks: list[Ask]) -> None:
    """Read the asks once: reading them for the first time costs both arms more than an empty call."""
    for _now, _key, _tenant, _deadline_at in asks:
        pass


def compare(arm: Callable[[list[Ask]], float], base: Callable[[list[Ask]], float], pairs: int, calls: int) -> dict[str, float]:
    """Time both in interleaved pairs; the median of their ratios, its 95 % interval, and nanoseconds of `arm`."""
    clock, ratios, seconds = Clock(), [], []
    arm(clock.asks(calls)), base(clock.asks(calls))
    for number in range(pairs):
        spent: dict[bool, float] = {}
        for ours in (True, False) if number % 2 else (False, True):
            asks = clock.asks(calls)
            gc.collect()
            warm_up(asks)
            spent[ours] = (arm if ours else base)(asks)
        ratios.append(spent[True] / spent[False])
        seconds.append(spent[True])
    middle, low, high = median_interval(ratios)
    return {"ns": statistics.median(seconds) / calls * 1e9, "times": middle, "low": low, "high": high}


def measure(pairs: int, calls: int) -> list[Row]:
    """Measure every kind of decision."""
    in_again = in_and_out(admitter(calls))
    few, crowd = (through_the_queue(admitter(2, waiters_max=CROWD + 1), waiters) for waiters in (10, CROWD))
    arms: list[tuple[str, Callable[[list[Ask]], float], Callable[[list[Ask]], float], str, float | None]] = [
        ("let in", in_only(admitter(calls)), time_empty, "an empty call", TIMES_MAX),
        ("let in and out again", in_again, time_empty, "an empty call", None),
        ("refused: no slot", refused(full(), may_wait=False), in_again, "let in and out again", REFUSED_TIMES_MAX),
        ("refused: rate", refused(exhausted(), may_wait=True), in_again, "let in and out again", REFUSED_TIMES_MAX),
        ("one of 10 that wait", few, in_again, "let in and out again", None),
        (f"one of {CROWD:,} that wait", crowd, few, "one of 10 that wait", None),
    ]
    rows = []
    for name, arm, base, compared_with, limit in arms:
        print(f"{name} ...", file=sys.stderr, flush=True)
        rows.append(Row(name=name, compared_with=compared_with, limit=limit, **compare(arm, base, pairs, calls)))
    return rows


def broken(rows: list[Row]) -> list[str]:
    """Return what the measurement says against the promises; empty when they hold."""
    return [
        f"{row.name}: up to {row.high:.2f} x {row.compared_with}, the limit is {row.limit:g} x"
        for row in rows
        if row.limit is not None and row.high > row.limit
    ]


def table(rows: list[Row]) -> str:
    """Return the rows as a plain table."""
    lines = [f"{'':<24}{'ns':>8}{'times':>8}{'95 %':>16}"]
    for row in rows:
        interval = f"{row.low:.2f} to {row.high:.2f}"
        lines.append(f"{row.name:<24}{row.ns:>8.0f}{row.times:>8.2f}{interval:>16}  x {row.compared_with}")
    return "\n".join(lines)


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=1_000, help="decisions in one half of a pair (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=41, help="pairs; an odd number (default: %(default)s)")
    parser.add_argument("--only", choices=["decisions", "requests"], help="one half (default: both)")
    parser.add_argument("--request-pairs", type=int, default=20, help="pairs of servers (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=1_000, help="requests in one half of a pair (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    rows = [] if options.only == "requests" else measure(options.pairs, options.calls)
    against = broken(rows)
    shares: dict[str, Share] = {}
    if options.only != "decisions":
        print("requests ...", file=sys.stderr, flush=True)
        shares["that stores a row"], shares["that stores nothing"] = measure_requests(options.request_pairs, options.requests)
        high = shares["that stores a row"].high
        if high > REQUEST_SHARE_MAX:
            against.append(f"a request: up to {high:.1%} more with admission, the limit is {REQUEST_SHARE_MAX:.0%}")
    if options.json:
        print(
            json.dumps(
                {
                    "python": platform.python_version(),
                    "rows": [asdict(row) for row in rows],
                    "requests": {name: asdict(share) for name, share in shares.items()},
                },
                indent=2,
            )
        )
    else:
        if rows:
            print(table(rows))
        for name, share in shares.items():
            print(
                f"a request {name} ({share.bare_us:.0f} us without): {share.mean:+.1%} with admission, "
                f"{share.low:+.1%} to {share.high:+.1%} ({share.pairs} pairs)"
            )
        print("\n".join(against) or "the promises hold")
    return 1 if against else 0


if __name__ == "__main__":
    sys.exit(main())
