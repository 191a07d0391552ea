"""Overload of tables over HTTP: what is still stored, how soon, what refusing costs, and whether anything acknowledged is lost.

    python bench/tables_overload.py                       # both scenarios; some five minutes
    python bench/tables_overload.py --scenario fleet --seconds 10 --json

A server process with admission, whose store takes 10,000 rows a second and no more, is loaded over loopback; capacity is 100
bodies of 100 points a second, or 20 of 500. `crowd`: requests arrive at random, whatever becomes of those before them, each is
tried up to three times, and has a deadline of 1 s; first the clients obey `Retry-After`, then they ignore it. `fleet`: collectors
with `influxdb-client`, unchanged, which batch, and retry by themselves; each point has a number, and what was acknowledged is
looked for in the store at the end.

The exit code is 1 when a promise is missed. Crowd, as in `overload.py`: answers within the deadline at 0.9 x of the capacity in
each overload and in every 5 s of it, 99 of 100 of what was let in answered within the deadline, all well 5 s after the load has
gone, a refusal at most a tenth of the processor time of a body that is stored. Fleet: at 2 x and 10 x of the capacity 0.9 x of
the points a second that are acknowledged at 1 x, 99 of 100 tries that were stored answered within 5 s, nothing acknowledged
that is not there, and no answer but stored, 429 and 503.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from _overload_clients import Phase
from _overload_process import HERE, Running, listening, processor_s
from overload import DEADLINE_S, GOODPUT_MIN, RECOVERY_S_MAX, REFUSAL_COST_MAX, Seen, offer, recovered_after_s, worst_window

from outlast._drill.greptime.http.collectors import percentile
from outlast._drill.greptime.http.points import stored_points

ROWS_PER_S = 10_000
CROWD_POINTS, FLEET_POINTS = 100, 500
CROWD_CAPACITY, FLEET_CAPACITY = ROWS_PER_S / CROWD_POINTS, ROWS_PER_S / FLEET_POINTS
FLEET_COLLECTORS = 40
"""Of each process: a collector has one batch under way, so these are the requests that are there at a time."""
FLEET_P99_S_MAX = 5.0
SETTLE_S = 5.0


def server(place: Path, arm: str = "admitted", rows_per_s: float = ROWS_PER_S) -> Any:  # noqa: ANN401 - a context manager
    """Run a server over a store of that capacity."""
    arguments = ("--place", str(place), "--rows-per-s", str(rows_per_s), "--log", str(place.with_suffix(".log")))
    return listening("_tables_server.py", arm, *arguments)


def crowd_request() -> tuple[str, str]:
    """Return the path and the body: points without a time, so that each request has new ones."""
    lines = [f"crowd,host=h{number:03},region=eu usage_user=12.5,usage_system=3.25,procs=17i" for number in range(CROWD_POINTS)]
    return "/write?db=bench", "\n".join(lines)


def crowd(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Run the crowd; returns the figures and what is missed."""
    seconds, calm = options.seconds, {"all": 0.8 * CROWD_CAPACITY}
    phases = [
        Phase("calm", max(seconds / 2, 5.0), calm, obeys=False, deadline_s=DEADLINE_S),
        Phase("2x", seconds, {"all": 2 * CROWD_CAPACITY}, obeys=True, deadline_s=DEADLINE_S),
        Phase("10x", seconds, {"all": 10 * CROWD_CAPACITY}, obeys=True, deadline_s=DEADLINE_S),
        Phase("3x, impatient", seconds, {"all": 3 * CROWD_CAPACITY}, obeys=False, deadline_s=DEADLINE_S),
        Phase("after", max(seconds / 2, 12.0), calm, obeys=False, deadline_s=DEADLINE_S),
    ]
    with tempfile.TemporaryDirectory() as folder, server(Path(folder) / "metrics.db") as running:
        seen = offer(running, phases, options.clients, options.seed, crowd_request())
        resident_mib = running.resident_mib
    figures: dict[str, Any] = {name: summary(each) for name, each in seen.items()}
    figures["resident_mib"] = resident_mib
    missed = []
    for name in ("2x", "10x", "3x, impatient"):
        missed += [
            f"crowd, {name}: {figure} is {figures[name][figure]:.3f} of the capacity, at least {GOODPUT_MIN}"
            for figure in ("goodput", "goodput_worst_5s")
            if figures[name][figure] < GOODPUT_MIN
        ]
        if figures[name]["p99_s"] > DEADLINE_S:
            missed.append(f"crowd, {name}: the 99th percentile of what was let in is {figures[name]['p99_s']:.2f} s")
    missed += [
        f"crowd, {name}: {each.total('failed')} answers are neither 204, 429 nor 503"
        for name, each in seen.items()
        if each.total("failed")
    ]
    figures["recovered_after_s"] = after_s = recovered_after_s(seen["after"])
    if after_s is None or after_s > RECOVERY_S_MAX:
        missed.append(f"crowd: all is well {after_s} s after the overload, the limit {RECOVERY_S_MAX}")
    figures["refusals"] = costs(seen)
    if figures["refusals"]["share"] > REFUSAL_COST_MAX:
        missed.append(f"crowd: a refusal costs {figures['refusals']['share']:.3f} of a body, the limit {REFUSAL_COST_MAX}")
    return figures, missed


def summary(seen: Seen) -> dict[str, Any]:
    """Return the figures of a phase of the crowd."""
    count = len(seen.seconds)
    return {
        "goodput": seen.total("good") / count / CROWD_CAPACITY,
        "goodput_worst_5s": worst_window(seen) / CROWD_CAPACITY,
        "answered_share": seen.total("done") / max(seen.total("new"), 1),
        "p99_s": seen.p99_s(),
        "core": seen.processor_s / count,
        **{f"{name}_per_s": seen.total(name) / count for name in ("new", "good", "late", "refused", "unanswered", "failed")},
    }


def costs(seen: dict[str, Seen]) -> dict[str, float]:
    """Return what a refusal costs in the overload, beyond what storing costs, in microseconds and in shares of a stored body."""
    calm, ten = seen["calm"], seen["10x"]
    stored_s = calm.processor_s / max(calm.total("good"), 1)
    refused_s = (ten.processor_s - stored_s * ten.total("good")) / max(ten.total("refused"), 1)
    return {"stored_us": stored_s * 1e6, "refused_us": refused_s * 1e6, "share": refused_s / stored_s}


def fleet(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Run the fleet at each load, with a server and a store of its own; returns the figures and what is missed."""
    figures: dict[str, Any] = {}
    missed = []
    for times in (1, 2, 10):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "metrics.db"
            with server(place) as running:
                figures[f"{times}x"] = found = loaded(running, times, options)
            stored = set(stored_points(str(place)).get("fleet", ()))
            found["lost"] = len(found.pop("acknowledged") - stored)
        odd = {status: count for status, count in found["statuses"].items() if status not in {"204", "429", "503"}}
        if odd:
            missed.append(f"fleet, {times}x: answers with these statuses: {odd}")
        if found["lost"]:
            missed.append(f"fleet, {times}x: {found['lost']} points were acknowledged and are not there")
        if found["p99_s"] is None or found["p99_s"] > FLEET_P99_S_MAX:
            missed.append(
                f"fleet, {times}x: the 99th percentile of what was stored is {found['p99_s']} s, at most {FLEET_P99_S_MAX}"
            )
        share = found["points_per_s"] / figures["1x"]["points_per_s"]
        if share < GOODPUT_MIN:
            missed.append(f"fleet, {times}x: {share:.3f} of the points a second at 1x, at least {GOODPUT_MIN}")
    return figures, missed


def loaded(running: Running, times: float, options: argparse.Namespace) -> dict[str, Any]:
    """Load a server by fleets for the time; return what they saw."""
    began_at, clients = time.monotonic() + 2.0, options.clients
    processes = []
    for number in range(clients):
        process = subprocess.Popen(
            [sys.executable, str(HERE / "_tables_fleet.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        phases = [(options.seconds, times * FLEET_CAPACITY / clients)]
        task = {
            "port": running.port,
            "collectors": FLEET_COLLECTORS,
            "points": FLEET_POINTS,
            "process": number,
            "began_at": began_at,
        }
        process.stdin.write(json.dumps(task | {"phases": phases, "settle_s": SETTLE_S}) + "\n")
        process.stdin.flush()
        processes.append(process)
    time.sleep(max(began_at - time.monotonic(), 0.0))
    spent_s = processor_s(running.pid)
    time.sleep(options.seconds)
    spent_s = processor_s(running.pid) - spent_s
    seen = [json.loads(process.communicate()[0]) for process in processes]
    tries = [each for one in seen for each in one["tries"]]
    acknowledged = [each for one in seen for each in one["acknowledged"]]
    inside = sum(points for at_s, _, points in acknowledged if began_at <= at_s < began_at + options.seconds)
    return {
        "handed_over": sum(sum(one["handed_over"]) for one in seen) * FLEET_POINTS,
        "points_per_s": inside / options.seconds,
        "acknowledged": {number for _, first, points in acknowledged for number in range(first, first + points)},
        "statuses": dict(Counter(str(status) for _, _, status in tries)),
        "p50_s": percentile((took_s for _, took_s, status in tries if status == 204), 50),
        "p99_s": percentile((took_s for _, took_s, status in tries if status == 204), 99),
        "refusal_p99_s": percentile((took_s for _, took_s, status in tries if status in {429, 503}), 99),
        "given_up": sum(one["given_up"] for one in seen),
        "core": spent_s / options.seconds,
    }


SCENARIOS = {"crowd": crowd, "fleet": fleet}


def main() -> int:
    """Load, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", choices=SCENARIOS, help="(default: both)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each phase (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=2, help="client processes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    missed: list[str] = []
    for name in [options.scenario] if options.scenario else SCENARIOS:
        figures[name], found = SCENARIOS[name](options)
        missed += found
    if options.json:
        print(json.dumps({"seconds": options.seconds, "figures": figures, "missed": missed}, indent=2))
    else:
        for name, each in figures.items():
            for phase, row in each.items():
                print(f"{name}, {phase}: {json.dumps(row, default=str)}")
        print("\n".join(missed) or "the promises hold")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
