"""Overload over real sockets: what is still answered in time, what refusing costs, how soon all is well again.

    python bench/overload.py                          # 60 s of 10 x, 60 s of 3 x, then 0.8 x; both arms: six minutes
    python bench/overload.py --seconds 10 --json      # shorter, for a script
    python bench/overload.py --scenario tenant        # one tenant at 20 times its share beside four others

A server process with a store of a known capacity (8 at once, 20 ms each: 400/s) is loaded by client processes over loopback.
`outlast` is our server with admission; `semaphore` is the same server and application with `asyncio.Semaphore(8)` before the
store, and shows that the load is real: it has to stay down after the load has gone. New requests arrive at random, whatever
becomes of those before them, and each is tried up to three times, so that 10 x is up to 30 x in tries. First the clients obey
`Retry-After`; then they ignore it, come back after 0.1 s, and try again at once what was not answered within their deadline of
1 s. Everything is counted by the clients; processor time is the server process's, read from the kernel.

The exit code is 1 when a promise is missed: answers within the deadline at 0.9 x of the capacity, over each phase and over
every 5 s of it; 99 of 100 of what was let in answered within the deadline; 5 s after the load has gone, as many answers
in time as requests begin; a refusal at most a tenth of the processor time of a served request, in the overload (what is spent
beyond what serving costs) and by itself (a server that refuses all); and the plain semaphore stays down. Tenants:
every request of the others answered, their 99th percentile at most doubled.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from _overload_clients import Phase, Second
from _overload_process import HERE, Running, processor_s, server
from _overload_server import CAPACITY

DEADLINE_S = 1.0
GOODPUT_MIN = 0.9
WINDOW_S = 5
RECOVERY_S_MAX = 5
REFUSAL_COST_MAX = 0.1
STAYS_DOWN_BELOW = 0.5
SEMAPHORE_S_MAX = 10.0
"""The overload that the plain semaphore gets at most: its queue grows by some 60 MiB a second, and 10 s are more than enough."""
P99_TIMES_MAX = 2.0
TENANTS = 5


@dataclass(frozen=True, slots=True)
class Seen:
    """The counts of the clients in one phase, and the processor time that the server spent in it."""

    seconds: list[Second]
    by_tenant: dict[str, list[Second]]
    processor_s: float

    def total(self, name: str, tenant: str | None = None) -> int:
        """Return the sum of a count."""
        return sum(getattr(second, name) for second in (self.seconds if tenant is None else self.by_tenant[tenant]))

    def p99_s(self, tenants: list[str] | None = None) -> float:
        """Return the 99th percentile of the seconds to an answer, of what was not refused."""
        rows = self.seconds if tenants is None else [second for name in tenants for second in self.by_tenant[name]]
        latencies = sorted(latency for second in rows for latency in second.latencies_s)
        return latencies[math.ceil(0.99 * len(latencies)) - 1] if latencies else math.inf


def offer(
    running: Running, phases: list[Phase], clients: int, seed: int, request: tuple[str, str] | None = None
) -> dict[str, Seen]:
    """Offer the phases, one after the other, from `clients` processes, each its part; `request` instead of orders."""
    began_at = time.monotonic() + 1.0
    parts = [asdict(phase) | {"rates": {name: rate / clients for name, rate in phase.rates.items()}} for phase in phases]
    processes = []
    for number in range(clients):
        command = [sys.executable, str(HERE / "_overload_clients.py")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None
        task = {"port": running.port, "seed": seed + number, "phases": parts, "began_at": began_at, "request": request}
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        processes.append(process)
    spent, ends_at = [], began_at
    for seconds in [0.0, *(phase.seconds for phase in phases)]:
        ends_at += seconds
        time.sleep(max(ends_at - time.monotonic(), 0.0))
        spent.append(processor_s(running.pid))
    seen = [json.loads(process.communicate()[0]) for process in processes]
    return {
        phase.name: together([each[phase.name] for each in seen], phase, spent[number + 1] - spent[number])
        for number, phase in enumerate(phases)
    }


def together(parts: list[dict[str, list[dict[str, Any]]]], phase: Phase, spent_s: float) -> Seen:
    """Add up what the client processes saw of a phase, second by second."""
    by_tenant: dict[str, list[Second]] = {}
    seconds = [Second() for _ in range(int(phase.seconds))]
    for part in parts:
        for tenant, rows in part.items():
            sums = by_tenant.setdefault(tenant, [Second() for _ in range(int(phase.seconds))])
            for number, row in enumerate(rows):
                # What came in as the phase was over is part of its last second.
                index = min(number, len(sums) - 1)
                for sum_ in (sums[index], seconds[index]):
                    for name, value in row.items():
                        setattr(sum_, name, getattr(sum_, name) + value)
    return Seen(seconds, by_tenant, spent_s)


def worst_window(seen: Seen) -> float:
    """Return the answers within the deadline, a second, of the worst 5 s."""
    good = [second.good for second in seen.seconds]
    size = min(WINDOW_S, len(good))
    return min(sum(good[at : at + size]) / size for at in range(len(good) - size + 1))


def recovered_after_s(seen: Seen) -> int | None:
    """Return after how many seconds goodput is full: as many answers in time as requests begin. None: not to the end.

    A second may be short of what random arrivals leave to the next one.
    """
    short = [number for number, second in enumerate(seen.seconds) if second.good < second.new - 4 * math.sqrt(second.new)]
    after = short[-1] + 1 if short else 0
    return after if after < len(seen.seconds) else None


def overload_phases(seconds: float) -> list[Phase]:
    """Return the phases of the overload; the same for both arms."""
    calm = {"all": 0.8 * CAPACITY}
    return [
        Phase("calm", max(seconds / 6, 5.0), calm, obeys=False, deadline_s=DEADLINE_S),
        Phase("10x", seconds, {"all": 10 * CAPACITY}, obeys=True, deadline_s=DEADLINE_S),
        Phase("3x", seconds, {"all": 3 * CAPACITY}, obeys=False, deadline_s=DEADLINE_S),
        Phase("after", max(seconds / 2, 12.0), calm, obeys=False, deadline_s=DEADLINE_S),
    ]


def summary(seen: Seen) -> dict[str, Any]:
    """Return the figures of a phase."""
    count = len(seen.seconds)
    return {
        "goodput": seen.total("good") / count / CAPACITY,
        "goodput_worst_5s": worst_window(seen) / CAPACITY,
        "goodput_worst_second": min(second.good for second in seen.seconds) / CAPACITY,
        "answered_share": seen.total("done") / max(seen.total("new"), 1),
        "p99_s": seen.p99_s(),
        "processor_share": seen.processor_s / count,
        **{f"{name}_per_s": seen.total(name) / count for name in ("new", "good", "late", "refused", "unanswered", "failed")},
    }


def overload(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Run both arms; returns the figures and what is missed."""
    figures: dict[str, Any] = {}
    missed: list[str] = []
    for arm in options.arms.split(","):
        print(f"{arm} ...", file=sys.stderr, flush=True)
        seconds = min(options.seconds, SEMAPHORE_S_MAX) if arm == "semaphore" else options.seconds
        with server(arm) as running:
            seen = offer(running, overload_phases(seconds), options.clients, options.seed)
            resident_mib = running.resident_mib
        figures[arm] = {name: summary(each) for name, each in seen.items()} | {
            "recovered_after_s": recovered_after_s(seen["after"]),
            "resident_mib": resident_mib,
        }
        if arm == "semaphore":
            missed += judge_semaphore(figures[arm], seen["after"])
        else:
            missed += judge(arm, figures[arm], seen)
            costs = figures[arm]["refusals"]
            costs |= refused_alone(options, costs["served_us"])
            missed += [
                f"{arm}: {name} costs {costs[name]:.3f} of a served request, the limit {REFUSAL_COST_MAX}"
                for name in ("refused_in_10x", "refused_alone")
                if costs[name] > REFUSAL_COST_MAX
            ]
    return figures, missed


def judge_semaphore(figures: dict[str, Any], after: Seen) -> list[str]:
    """Return what is missed if the load has gone and all is well: then it showed nothing."""
    end = after.seconds[-5:]
    share = sum(second.good for second in end) / max(sum(second.new for second in end), 1)
    figures["answered_share_at_the_end"] = share
    return [] if share < STAYS_DOWN_BELOW else [f"semaphore: {share:.0%} answered at the end: the load shows nothing"]


def judge(arm: str, figures: dict[str, Any], seen: dict[str, Seen]) -> list[str]:
    """Return what is missed of what admission promises; adds what a refusal costs to the figures."""
    missed = []
    for name in ("10x", "3x"):
        missed += [
            f"{arm}, {name}: {figure} is {figures[name][figure]:.3f} of the capacity, the limit {GOODPUT_MIN}"
            for figure in ("goodput", "goodput_worst_5s")
            if figures[name][figure] < GOODPUT_MIN
        ]
        if figures[name]["p99_s"] > DEADLINE_S:
            missed.append(f"{arm}, {name}: the 99th percentile of what was let in is {figures[name]['p99_s']:.2f} s")
    after_s = figures["recovered_after_s"]
    if after_s is None or after_s > RECOVERY_S_MAX:
        missed.append(f"{arm}: all is well {after_s} s after the overload, the limit {RECOVERY_S_MAX}")
    calm, ten = seen["calm"], seen["10x"]
    served_s = calm.processor_s / calm.total("good")
    refused_s = (ten.processor_s - served_s * ten.total("good")) / max(ten.total("refused"), 1)
    figures["refusals"] = {
        "served_us": served_s * 1e6,
        "refused_in_10x_us": refused_s * 1e6,
        "refused_in_10x": refused_s / served_s,
    }
    return missed


def refused_alone(options: argparse.Namespace, served_us: float) -> dict[str, float]:
    """Offer 10 x to a server that refuses everything by its rate; compare with a served request of the calm phase."""
    phase = Phase("refusing", min(options.seconds, 10.0), {"all": 10 * CAPACITY}, retries=0, deadline_s=DEADLINE_S)
    with server("refusing") as running:
        seen = offer(running, [phase], options.clients, options.seed)["refusing"]
    refused_us = seen.processor_s / max(seen.total("refused"), 1) * 1e6
    return {"refused_alone_us": refused_us, "refused_alone": refused_us / served_us}


def tenants(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Run the others with and without a tenant at 20 times its share."""
    others = [f"tenant-{number}" for number in range(1, TENANTS)]
    calm = dict.fromkeys(others, CAPACITY / 2 / len(others))
    phases = [
        Phase("without", options.seconds, calm, retries=0, deadline_s=DEADLINE_S),
        Phase("with", options.seconds, calm | {"greedy": 20 * CAPACITY / TENANTS}, retries=0, deadline_s=DEADLINE_S),
    ]
    with server("outlast") as running:
        seen = offer(running, phases, options.clients, options.seed)
    figures: dict[str, Any] = {}
    for name, each in seen.items():
        new, done = (sum(each.total(count, tenant) for tenant in others) for count in ("new", "done"))
        figures[name] = {"new": new, "done": done, "p99_ms": each.p99_s(others) * 1e3}
    figures["greedy"] = {name: seen["with"].total(name, "greedy") / options.seconds for name in ("new", "good", "refused")}
    figures["p99_times"] = figures["with"]["p99_ms"] / figures["without"]["p99_ms"]
    missed = [
        f"tenants, {name}: {each['new'] - each['done']} of {each['new']} requests of the others were not answered"
        for name, each in figures.items()
        if name in {"with", "without"} and each["new"] > each["done"]
    ]
    if figures["p99_times"] > P99_TIMES_MAX:
        missed.append(f"tenants: the others' 99th percentile is {figures['p99_times']:.2f} x that without the greedy one")
    return figures, missed


def table(figures: dict[str, Any]) -> str:
    """Return the figures of the overload as a plain table."""
    lines = []
    for arm, phases in figures.items():
        lines.append(
            f"{arm:<10}{'goodput':>9}{'worst 5 s':>10}{'second':>8}{'answered':>10}{'p99 s':>8}{'new/s':>8}{'good/s':>8}"
            f"{'refused/s':>11}{'no answer/s':>13}{'core':>7}"
        )
        for name, row in phases.items():
            if name in {"calm", "10x", "3x", "after"}:
                lines.append(
                    f"  {name:<8}{row['goodput']:>9.3f}{row['goodput_worst_5s']:>10.3f}{row['goodput_worst_second']:>8.3f}"
                    f"{row['answered_share']:>10.2%}{row['p99_s']:>8.3f}{row['new_per_s']:>8.0f}{row['good_per_s']:>8.0f}"
                    f"{row['refused_per_s']:>11.0f}{row['unanswered_per_s']:>13.0f}{row['processor_share']:>7.0%}"
                )
        rest = {name: row for name, row in phases.items() if name not in {"calm", "10x", "3x", "after"}}
        lines.append(f"  {json.dumps(rest)}")
    return "\n".join(lines)


def main() -> int:
    """Load, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenario", choices=["overload", "tenant"], default="overload", help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each phase (default: %(default)s)")
    parser.add_argument("--arms", default="outlast,semaphore", help="(default: %(default)s)")
    parser.add_argument("--clients", type=int, default=2, help="client processes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    figures, missed = (overload if options.scenario == "overload" else tenants)(options)
    if options.json:
        print(json.dumps({"seconds": options.seconds, "figures": figures, "missed": missed}, indent=2))
    else:
        print(table(figures) if options.scenario == "overload" else json.dumps(figures, indent=2))
        print("\n".join(missed) or "the promises hold")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
