"""A table that cannot be made, written to 1,200 times a second over HTTP beside 20 tables that can, on each store.

    python bench/tables_doomed.py                                  # 60 s a run, three pairs on each store
    python bench/tables_doomed.py --store sqlite --seconds 10 --pairs 1
    python bench/tables_doomed.py --json                           # the same, for a script

A pair is two runs, each with a server process and a store of its own: in one a view has the name of the table that gets 200
requests a second of 50 points and 1,000 of a single one, in the other nothing stands in its way; which comes first changes from
pair to pair. Both serve 20 other tables at the same fixed rate of bodies of 500 points: half of what they do without a pause
beside that load, while it is stored. Then the view is dropped, and it is measured when a point is stored in the table.
Everything is seen by the clients and from outside the process.

The exit code is 1 when a count is wrong (more than one record of the table, more than six lines of log, an answer that is
neither stored nor 503 or 429 with Retry-After, a point that was acknowledged and is not there, 32 MiB of memory), when it heals
later than 2 s after its backoff, when the p99 of a refusal is above 20 ms, when the others got less than 0.95 x, or by the median
of the ratios took more than twice the p99 of the run where all is well. The absolute figures are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from _overload_process import Running, listening, processor_s

from outlast._drill.greptime.http.client import HttpClient
from outlast._drill.greptime.http.collectors import Collectors, Sent, lost, percentile, twice
from outlast._drill.greptime.http.points import free_name, is_postgres, stored_points, take_name
from outlast._drill.greptime.http.promises import backoff_s_max

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STORES = ("sqlite", "postgres")
GOOD, GOOD_BODY, BODY = 20, 500, 50
LARGE_PER_S, SMALL_PER_S = 200, 1_000
BAD = "broken"
LINES_MAX, RECORDS_MAX = 6, 1
RSS_MAX = 32 * 2**20
RATIO_MAX, REFUSAL_S_MAX, SHARE_MIN = 2.0, 0.020, 0.95
HEAL_S_MORE = 2.0
WARM_S = 2.0
COLLECTORS = 20
"""Those of the capacity: one for each of the twenty tables, without a pause."""
RECORDS = "SELECT count(*), coalesce(sum(failures), 0) FROM {} WHERE key LIKE '%broken%'"


@contextlib.contextmanager
def served(store: str) -> Iterator[tuple[Running, str, Path]]:
    """Start the store and the server; yield it, the place of its data, and its log."""
    from outlast.testing import PostgresServer

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place = str(folder / "metrics.db") if store == "sqlite" else stack.enter_context(PostgresServer()).dsn()
        log = folder / "log"
        running = stack.enter_context(listening("_tables_server.py", "outlast", "--place", place, "--log", str(log)))
        yield running, place, log


async def capacity(store: str, seconds: float) -> float:
    """Return the bodies a second that the twenty tables take beside the load of the bad one, where that is stored."""
    with served(store) as (running, _, _):
        client = HttpClient(f"127.0.0.1:{running.port}")
        collectors = Collectors(client)
        async with flooded(collectors):
            tasks = [asyncio.create_task(collectors.collect(f"good_{number % GOOD}", GOOD_BODY)) for number in range(COLLECTORS)]
            await asyncio.sleep(WARM_S)
            began_s = time.monotonic()
            await asyncio.sleep(seconds)
            done = sum(each.is_stored and each.at_s >= began_s and each.table != BAD for each in collectors.sent)
            await ended(tasks)
        client.close()
    return done / seconds


@contextlib.asynccontextmanager
async def flooded(collectors: Collectors) -> Any:  # noqa: ANN401 - a context manager
    """Send to the bad table while the block runs."""
    floods = [(BODY, LARGE_PER_S), (1, SMALL_PER_S)]
    tasks = [asyncio.create_task(collectors.flood(BAD, points, rate)) for points, rate in floods]
    try:
        yield
    finally:
        await ended(tasks)
        await collectors.settle(15.0)


async def in_turn(collectors: Collectors, number: int, rate: float) -> None:
    """Send to a good table, each at a moment of its own: twenty collectors do not send at once."""
    await asyncio.sleep(number / rate)
    await collectors.flood(f"good_{number}", GOOD_BODY, rate / GOOD)


async def ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel them, and wait."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def one(store: str, *, is_bad: bool, rate: float, seconds: float) -> dict[str, Any]:
    """Run once; return the figures."""
    with served(store) as (running, place, log):
        client = HttpClient(f"127.0.0.1:{running.port}")
        collectors = Collectors(client)
        for number in range(GOOD):
            assert (await collectors.send(f"good_{number}", GOOD_BODY)).is_stored
        good = [asyncio.create_task(in_turn(collectors, number, rate)) for number in range(GOOD)]
        await asyncio.sleep(WARM_S)
        if is_bad:
            take_name(place, BAD)
        lines, rss = _lines(log), running.resident_mib
        began_s, spent_s = time.monotonic(), processor_s(running.pid)
        async with flooded(collectors):
            await asyncio.sleep(seconds)
        ended_s, spent_s = time.monotonic(), processor_s(running.pid) - spent_s
        await ended(good)
        await collectors.settle(15.0)
        during = [each for each in collectors.sent if began_s <= each.sent_s < ended_s]
        figures = _seen(during, seconds) | {
            "rss_growth": (running.resident_mib - rss) * 2**20,
            "log_lines": _lines(log) - lines,
            "lines": log.read_text().splitlines()[lines : lines + 20],
            "core": spent_s / (ended_s - began_s),
        }
        if is_bad:
            figures["records"], figures["failures"] = records(place)
            free_name(place, BAD)
            figures["outage_s"] = time.monotonic() - began_s
            figures["healed_s"], figures["refused_last"] = await healed_s(collectors, backoff_s_max(figures["outage_s"]) + 10.0)
        stored = stored_points(place)
        figures["lost"] = sum(map(len, lost(collectors.sent, stored).values()))
        figures["twice"] = sum(1 for _ in twice(stored))
        client.close()
    return figures


def _seen(during: list[Sent], seconds: float) -> dict[str, Any]:
    bad = [each for each in during if each.table == BAD]
    good = [each for each in during if each.table != BAD]
    good_s, refusal_s = [each.took_s for each in good if each.is_stored], [each.took_s for each in bad if not each.is_stored]
    odd = [each for each in during if not each.is_stored and (each.status not in {429, 503} or not each.retry_after_s)]
    return {
        "answers": dict(Counter(f"{each.status} {_text(each)}" for each in bad).most_common(10)),
        "odd": dict(Counter(f"{each.status} {each.body[:200].decode(errors='replace')}" for each in odd).most_common(5)),
        "sent_per_s": len(bad) / seconds,
        "good_per_s": len(good_s) / seconds,
        "good_refused": len(good) - len(good_s),
        "good_p50_ms": _ms(good_s, 50),
        "good_p99_ms": _ms(good_s, 99),
        "refusal_p50_ms": _ms(refusal_s, 50),
        "refusal_p99_ms": _ms(refusal_s, 99),
    }


def _text(sent: Sent) -> str:
    return "" if sent.is_stored else sent.body[:160].decode(errors="replace")


def _ms(values: list[float], percent: int) -> float:
    return (percentile(values, percent) or 0.0) * 1e3


def _lines(log: Path) -> int:
    return log.read_bytes().count(b"\n")


def records(place: str) -> tuple[int, int]:
    """Return the records of the bad table in the store, and the failures that they have."""
    if is_postgres(place):
        with psycopg.connect(place) as conn:
            ((count, failures),) = conn.execute(RECORDS.format("outlast.procedures").encode()).fetchall()
    else:
        import sqlite3

        with contextlib.closing(sqlite3.connect(place)) as db:
            ((count, failures),) = db.execute(RECORDS.format("outlast_procedures")).fetchall()
    return count, int(failures)


async def healed_s(collectors: Collectors, limit_s: float) -> tuple[float, str]:
    """Send to the bad table until a point is stored; return how long that took, and the last refusal."""
    began_s, refused = time.monotonic(), ""
    while time.monotonic() - began_s < limit_s and not (sent := await collectors.send(BAD)).is_stored:
        refused = f"{sent.status}, retry after {sent.retry_after_s}: {_text(sent)}"
        await asyncio.sleep(0.05)
    return time.monotonic() - began_s, refused


def pairs(store: str, seconds: float, count: int) -> dict[str, Any]:
    """Run in pairs; return the figures and what is wrong."""
    full = asyncio.run(capacity(store, min(5.0, seconds)))
    runs: dict[str, list[dict[str, Any]]] = {"bad": [], "noop": []}
    for number in range(count):
        for arm in ("bad", "noop") if number % 2 else ("noop", "bad"):
            runs[arm].append(asyncio.run(one(store, is_bad=arm == "bad", rate=full / 2, seconds=seconds)))
    both = list(zip(runs["bad"], runs["noop"], strict=True))
    result = {
        "store": store,
        "capacity": full,
        "p99_ratio": statistics.median(bad["good_p99_ms"] / max(noop["good_p99_ms"], 1e-9) for bad, noop in both),
        "share": min(bad["good_per_s"] / max(noop["good_per_s"], 1e-9) for bad, noop in both),
        **runs,
    }
    return result | {"wrong": list(wrong(result))}


def wrong(result: dict[str, Any]) -> Iterator[str]:
    """Yield what is not as promised."""
    for run in result["bad"]:
        facts = {
            "records": run["records"] == RECORDS_MAX,
            "log_lines": run["log_lines"] <= LINES_MAX,
            "odd": not run["odd"],
            "lost": not run["lost"],
            "twice": not run["twice"],
            "good_refused": not run["good_refused"],
            "rss_growth": run["rss_growth"] < RSS_MAX,
            "refusal_p99_ms": 0 < run["refusal_p99_ms"] < REFUSAL_S_MAX * 1e3,
            "healed_s": run["healed_s"] < backoff_s_max(run["outage_s"]) + HEAL_S_MORE,
        }
        yield from (f"{result['store']}: {name} is {run[name]}" for name, holds in facts.items() if not holds)
    if result["share"] < SHARE_MIN:
        yield f"{result['store']}: the good tables got {result['share']:.2f} of what they get where all is well"
    if result["p99_ratio"] > RATIO_MAX:
        yield f"{result['store']}: the p99 of the good tables is {result['p99_ratio']:.2f} times as long"


def show(result: dict[str, Any]) -> None:
    """Print one store."""
    print(
        f"{result['store']}: 20 good tables at {result['capacity'] / 2:.0f} bodies of {GOOD_BODY} points a second, half of all; "
        f"p99 {result['p99_ratio']:.2f} times that without the bad one"
    )
    for arm in ("bad", "noop"):
        for run in result[arm]:
            more = ""
            if arm == "bad":
                more = (
                    f", refusal p50 {run['refusal_p50_ms']:.2f} p99 {run['refusal_p99_ms']:.2f} ms, records {run['records']}, "
                    f"failures {run['failures']}, healed {run['healed_s']:.1f} s"
                )
            print(
                f"  {arm:4}: good {run['good_per_s']:.0f}/s, p50 {run['good_p50_ms']:.1f} p99 {run['good_p99_ms']:.1f} ms, "
                f"bad {run['sent_per_s']:.0f}/s, rss +{run['rss_growth'] / 2**20:.1f} MiB, log lines {run['log_lines']}, "
                f"core {run['core']:.0%}, lost {run['lost']}{more}"
            )
            print(*(f"        {count:7} x {text}" for text, count in (run["answers"] | run["odd"]).items()), sep="\n")
    print(*(f"  WRONG {text}" for text in result["wrong"]), sep="\n")


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=STORES)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    results = [pairs(store, asked.seconds, asked.pairs) for store in ([asked.store] if asked.store else STORES)]
    if asked.json:
        print(json.dumps(results))
    else:
        for result in results:
            show(result)
    return 1 if any(result["wrong"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
