"""The cost of a guarded call while all is well: bare, Outlast and its peers, sync and async, in one run.

    python bench/healthy.py                      # 200,000 calls, median of 5 rounds
    python bench/healthy.py --json               # the same, for a script

Each candidate wraps the same function, which returns its argument. A round times all of them one after the
other, so that a slow moment of the machine falls on everyone; the figure is the median over the rounds. The
exit code is 1 when Outlast costs more than 10 x the bare call (sync), 4 x (async), or more than any peer.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.metadata
import json
import platform
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SYNC_TIMES_MAX = 10.0
ASYNC_TIMES_MAX = 4.0


def work(value: int) -> int:
    """Do nothing, so that only the guard is measured."""
    return value


async def work_async(value: int) -> int:
    """Do nothing, in a coroutine."""
    return value


# Each candidate: name, distribution, and a function that returns (sync guard or None, async guard or None).


def outlast_guard() -> tuple[Any, Any]:
    import outlast

    dependency = outlast.Dependency("peer")
    return dependency.guard(work), dependency.guard(work_async)


def outlast_retry() -> tuple[Any, Any]:
    import outlast

    return outlast.retry()(work), outlast.retry()(work_async)


def tenacity() -> tuple[Any, Any]:
    from tenacity import retry, stop_after_attempt, wait_exponential_jitter

    wrap = retry(stop=stop_after_attempt(5), wait=wait_exponential_jitter(multiplier=0.1, max=5))
    return wrap(work), wrap(work_async)


def stamina() -> tuple[Any, Any]:
    import stamina

    wrap = stamina.retry(on=OSError, attempts=5)
    return wrap(work), wrap(work_async)


def pybreaker() -> tuple[Any, Any]:
    from pybreaker import CircuitBreaker

    return CircuitBreaker()(work), None


def circuitbreaker() -> tuple[Any, Any]:
    from circuitbreaker import circuit

    return circuit(work), circuit(work_async)


def purgatory() -> tuple[Any, Any]:
    from purgatory import AsyncCircuitBreakerFactory, SyncCircuitBreakerFactory

    return SyncCircuitBreakerFactory()("peer")(work), AsyncCircuitBreakerFactory()("peer")(work_async)


def hyx() -> tuple[Any, Any]:
    from hyx.circuitbreaker import consecutive_breaker

    return None, consecutive_breaker(exceptions=OSError, failure_threshold=5, recovery_time_secs=1)(work_async)


def redress() -> tuple[Any, Any]:
    from redress import CircuitBreaker, ErrorClass
    from redress.policy import AsyncPolicy, Policy

    def breaker() -> CircuitBreaker:
        trips = {ErrorClass.SERVER_ERROR, ErrorClass.CONCURRENCY}
        return CircuitBreaker(failure_threshold=5, window_s=60.0, recovery_timeout_s=30.0, trip_on=trips)

    sync, asynchronous = Policy(circuit_breaker=breaker()), AsyncPolicy(circuit_breaker=breaker())

    def call(value: int) -> int:
        result: int = sync.call(lambda: work(value))
        return result

    async def call_async(value: int) -> int:
        result: int = await asynchronous.call(lambda: work_async(value))
        return result

    return call, call_async


def interlock() -> tuple[Any, Any]:
    from interlock import CircuitBreaker

    return CircuitBreaker(name="peer")(work), CircuitBreaker(name="peer async")(work_async)


PEERS: dict[str, tuple[str, Callable[[], tuple[Any, Any]]]] = {
    "outlast guard": ("outlast", outlast_guard),
    "outlast retry": ("outlast", outlast_retry),
    "tenacity": ("tenacity", tenacity),
    "stamina": ("stamina", stamina),
    "pybreaker": ("pybreaker", pybreaker),
    "circuitbreaker": ("circuitbreaker", circuitbreaker),
    "purgatory": ("purgatory", purgatory),
    "hyx": ("hyx", hyx),
    "redress": ("redress", redress),
    "interlock-cb": ("interlock-cb", interlock),
}


def time_sync(function: Callable[[int], Any], calls: int) -> float:
    """Return the seconds for `calls` calls in a row."""
    started = time.perf_counter()
    for value in range(calls):
        function(value)
    return time.perf_counter() - started


async def time_async(function: Callable[[int], Any], calls: int) -> float:
    """Return the seconds for `calls` awaited calls in a row."""
    started = time.perf_counter()
    for value in range(calls):
        await function(value)
    return time.perf_counter() - started


def measure(calls: int, rounds: int) -> list[dict[str, Any]]:
    """Time every candidate in every round; nanoseconds a call, the median of the rounds."""
    guards = {"bare": (work, work_async)} | {name: build() for name, (_, build) in PEERS.items()}
    times: dict[tuple[str, str], list[float]] = {}
    with asyncio.Runner() as runner:
        for number in range(rounds):
            print(f"round {number + 1} of {rounds} ...", file=sys.stderr, flush=True)
            for name, (sync, asynchronous) in guards.items():
                gc.collect()
                if sync is not None:
                    times.setdefault((name, "sync"), []).append(time_sync(sync, calls))
                if asynchronous is not None:
                    spent = runner.run(time_async(asynchronous, calls))
                    times.setdefault((name, "async"), []).append(spent)
    rows = []
    for name in guards:
        row: dict[str, Any] = {"name": name, "version": version(name)}
        for way in ("sync", "async"):
            spent_s = times.get((name, way))
            bare_s = statistics.median(times["bare", way])
            row[f"{way}_ns"] = None if spent_s is None else statistics.median(spent_s) / calls * 1e9
            row[f"{way}_times_bare"] = None if spent_s is None else statistics.median(spent_s) / bare_s
        rows.append(row)
    return rows


def version(name: str) -> str:
    """Return the version of the package behind a candidate."""
    return "" if name == "bare" else importlib.metadata.version(PEERS[name][0])


def broken(rows: list[dict[str, Any]]) -> list[str]:
    """Return what the measurement says against Outlast's promise; empty when it holds."""
    ours = next(row for row in rows if row["name"] == "outlast guard")
    said = []
    for way, limit in (("sync", SYNC_TIMES_MAX), ("async", ASYNC_TIMES_MAX)):
        if ours[f"{way}_times_bare"] > limit:
            said.append(f"{way}: {ours[f'{way}_times_bare']:.1f} x bare, the limit is {limit:g} x")
        for row in rows:
            peer = row[f"{way}_ns"]
            if not row["name"].startswith(("outlast", "bare")) and peer is not None and peer <= ours[f"{way}_ns"]:
                said.append(f"{way}: {row['name']} costs {peer:.0f} ns, Outlast {ours[f'{way}_ns']:.0f} ns")
    return said


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a plain table, cheapest first."""
    lines = [f"{'':<16}{'version':>10}{'sync ns':>10}{'x bare':>8}{'async ns':>10}{'x bare':>8}"]
    for row in sorted(rows, key=lambda row: row["sync_ns"] or row["async_ns"]):
        cells = [
            "-" if row[key] is None else f"{row[key]:.{digits}f}"
            for key, digits in (("sync_ns", 0), ("sync_times_bare", 1), ("async_ns", 0), ("async_times_bare", 1))
        ]
        lines.append(f"{row['name']:<16}{row['version']:>10}{cells[0]:>10}{cells[1]:>8}{cells[2]:>10}{cells[3]:>8}")
    return "\n".join(lines)


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=200_000, help="calls in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the median counts (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    rows = measure(options.calls, options.rounds)
    against = broken(rows)
    if options.json:
        python = platform.python_version()
        print(json.dumps({"calls": options.calls, "rounds": options.rounds, "python": python, "rows": rows}, indent=2))
    else:
        print(table(rows))
        print("\n".join(against) or "the promise holds: at most 10 x bare sync, 4 x async, less than every peer")
    return 1 if against else 0


if __name__ == "__main__":
    sys.exit(main())
