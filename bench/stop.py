"""The stop of a real process: how soon it says so, and by how much what hangs exceeds the deadline.

    python bench/stop.py                     # 100 stops under load, then what hangs, then 2,000 child services
    python bench/stop.py --rounds 20 --json  # fewer, for a script

A process under load gets SIGTERM at a random instant, with half a second more at one of the steps of the stop; `/readyz` is
asked all the time. What hangs does so in a child service: deaf to its cancellation, blocking the event loop, in a
thread, in a flush. The time that 2,000 idle child services take to stop is given as a ratio to cancelling as many idle asyncio
tasks in the same run. The exit code is 1 when readiness took more than 100 ms, or a stop more than 110 % of its deadline.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "real" / "runtime"))

from stop_rounds import Shop, rounds  # the same processes as in the tests

import outlast
from outlast._core.phases import EXIT_FORCED

UNREADY_S_MAX = 0.1
OVERTIME_MAX = 1.1
CHILDREN = 2_000
DEADLINE_S = 3.0


def readiness(count: int, parallel: int) -> dict[str, float]:
    """Measure the seconds from the signal to the first answer that says "not ready"."""
    seen = sorted(each.unready_s or 0.0 for each in rounds(count, parallel=parallel, delay=True))
    return {"median_s": statistics.median(seen), "p99_s": seen[int(0.99 * (len(seen) - 1))], "max_s": seen[-1]}


def overtime(hang: str) -> float:
    """Measure how long a stop with something that hangs takes, as a share of its deadline."""
    shop = Shop(hang=hang, deadline_s=DEADLINE_S)
    shop.until("shop started")
    time.sleep(0.2)
    ended = shop.end(shop.signal(signal.SIGTERM))
    if ended.code != EXIT_FORCED:
        sys.exit(f"bench: exit code {ended.code}: {ended.said}")
    return ended.took_s / DEADLINE_S


async def idle_children() -> float:
    """Measure the seconds in which 2,000 idle child services stop."""
    service, stop = outlast.Service("shop"), outlast.Stop()
    for number in range(CHILDREN):
        child = outlast.Service(f"child-{number}")
        child.task()(outlast.Stop.wait)
        service.add(child)
    running = asyncio.create_task(service.run(stop))
    await service.until_ready()
    await asyncio.sleep(0.2)
    began_at = time.perf_counter()
    stop.fire("bench")
    await running
    return time.perf_counter() - began_at


async def idle_tasks() -> float:
    """Measure the seconds in which as many bare tasks are cancelled."""
    tasks = [asyncio.create_task(asyncio.Event().wait()) for _ in range(CHILDREN)]
    await asyncio.sleep(0.2)
    began_at = time.perf_counter()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return time.perf_counter() - began_at


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100, help="stops under load (default: %(default)s)")
    parser.add_argument("--parallel", type=int, default=2, help="processes at a time (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    options = parser.parse_args()
    logging.getLogger("outlast").setLevel(logging.ERROR)
    unready = readiness(options.rounds, options.parallel)
    over = {hang: overtime(hang) for hang in ("deaf", "blocking", "thread", "flush")}
    children_s, tasks_s = asyncio.run(idle_children()), asyncio.run(idle_tasks())
    figures: dict[str, Any] = {
        "unready": unready,
        "overtime": over,
        "children_s": children_s,
        "children_times_tasks": children_s / tasks_s,
    }
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        print(f"readiness false after median {unready['median_s'] * 1e3:.1f} ms, p99 {unready['p99_s'] * 1e3:.1f} ms, "
              f"most {unready['max_s'] * 1e3:.1f} ms ({options.rounds} stops)")  # fmt: skip
        print("hanging: left after " + ", ".join(f"{share:.0%} of the deadline ({hang})" for hang, share in over.items()))
        print(f"{CHILDREN} idle child services stopped in {children_s:.2f} s, {children_s / tasks_s:.0f} x bare tasks")
    return 1 if unready["max_s"] > UNREADY_S_MAX or max(over.values()) > OVERTIME_MAX else 0


if __name__ == "__main__":
    sys.exit(main())
