"""A key that cannot succeed, submitted 10,000 times a second beside 20 good keys, on each store.

    python bench/procedures_doomed.py                             # 60 s a run, three pairs on each store
    python bench/procedures_doomed.py --store etcd --seconds 10 --pairs 1
    python bench/procedures_doomed.py --json                      # the same, for a script

A pair is two runs of a process of its own on a store of its own: one submits the bad key, the other does as many empty calls in
its place; which comes first changes from pair to pair. Both serve 20 good keys, each in turn at the same fixed rate: half of what
they do without a pause. Then the cause is gone: it is measured when the key is served again, for one by itself, for another by
`clear`. The exit code is 1 when a count is wrong (more than one record of the key, more than six lines of log, a caller without a
typed answer, a good key refused, 32 MiB of memory, 1 MiB of etcd beyond the other run's), or when the median of the ratios of the
good keys' p99 is above 2, or the p99 of a refusal above 20 ms. The absolute figures are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import outlast
from outlast import Fault, Kind, OutlastError
from outlast.procedures import Procedure, ProcedureRefused, Procedures, ProcedureState, Run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STORES = ("sqlite", "postgres", "etcd")
GOOD = 20
RATE = 10_000
TURN_S = 0.01
LINES_MAX, RECORDS_MAX = 6, 1
RSS_MAX, ETCD_MAX = 32 * 2**20, 2**20
RATIO_MAX, REFUSAL_S_MAX = 2.0, 0.020
HEAL_S_MAX = 70.0
"""The longest backoff of a transient fault is 60 s."""


class Lines(logging.Handler):
    """Counts the lines of log, and keeps the first."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.count = 0
        self.first: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Count it."""
        self.count += 1
        if len(self.first) < 20:
            self.first.append(f"{record.levelname} {record.getMessage()}")


class Doomed:
    """One run on one store."""

    def __init__(self, procedures: Procedures, *, is_bad: bool, rate: float) -> None:
        self.procedures = procedures
        self.is_bad = is_bad
        self.rate = rate
        self.answers: Counter[str] = Counter()
        # Half a million of them are no growth of what is measured.
        self.refusal_s = array("d")
        self.good_s = array("d")
        self.over = asyncio.Event()

    async def flood(self) -> None:
        """Submit the bad key, or do nothing, as often as it is due."""
        loop = asyncio.get_running_loop()
        began, done = loop.time(), 0
        while not self.over.is_set():
            for _ in range(int((loop.time() - began) * RATE) - done):
                done += 1
                await (self._bad() if self.is_bad else _nothing())
            await asyncio.sleep(TURN_S)

    async def _bad(self) -> None:
        began = time.perf_counter()
        try:
            await self.procedures.submit("create", "bad", {"columns": 3})
        except ProcedureRefused as refused:
            self.answers[f"refused: {refused.why} {refused.fault.code}"] += 1
            self.refusal_s.append(time.perf_counter() - began)
        except Exception as exc:  # noqa: BLE001 - it is counted
            self.answers[f"untyped: {type(exc).__name__}: {exc}"[:200]] += 1
        else:
            self.answers["a handle"] += 1

    async def good(self, number: int) -> None:
        """Serve a good key again and again, at the rate."""
        loop = asyncio.get_running_loop()
        pause_s = GOOD / self.rate if self.rate else 0.0
        due = loop.time() + pause_s * number / GOOD
        while not self.over.is_set():
            await asyncio.sleep(max(0.0, due - loop.time()))
            began = loop.time()
            handle = await self.procedures.submit("create", f"good {number}")
            await handle.wait(60.0)
            self.good_s.append(loop.time() - began)
            due = max(due + pause_s, began)

    async def run(self, seconds: float) -> None:
        """Let it go on for so long."""
        tasks = [asyncio.create_task(self.good(number)) for number in range(GOOD)]
        if self.rate:
            tasks.append(asyncio.create_task(self.flood()))
        await asyncio.sleep(seconds)
        self.over.set()
        for task in tasks:
            await task

    async def healed_s(self, key: str) -> float:
        """Submit a key until it is served; return how long that took."""
        began = time.perf_counter()
        while time.perf_counter() - began < HEAL_S_MAX:
            try:
                await (await self.procedures.submit("create", key)).wait(HEAL_S_MAX)
            except OutlastError:
                await asyncio.sleep(0.01)
                continue
            break
        return time.perf_counter() - began


async def _nothing() -> None:
    pass


def create_table(causes: dict[str, Fault]) -> Procedure:
    """Return the procedure: keys with a cause fail by it."""
    create = Procedure("create", attempts_max=1)

    @create.step
    async def allocate(run: Run) -> str:
        if run.key in causes:
            raise OutlastError("it cannot be created", causes[run.key])
        return "made"

    return create


async def measure(store: str, place: str, *, is_bad: bool, rate: float, seconds: float) -> dict[str, Any]:
    """Run once; return the figures."""
    lines = Lines()
    logging.getLogger("outlast").addHandler(lines)
    logging.getLogger("outlast").setLevel(logging.INFO)
    causes = {
        "bad": Fault(Kind.TRANSIENT, "no region", "the peer has no room for it", "metasrv"),
        "worse": Fault(Kind.PERMANENT, "bad name", "it can never be made", "metasrv"),
    }
    database = _database(store, place)
    with tempfile.TemporaryDirectory() as directory:
        procedures = Procedures(database, [create_table(causes)], journal_path=Path(directory) / "journal")
        service, stop = outlast.Service("doomed"), outlast.Stop()
        procedures.attach(service)
        running = asyncio.create_task(service.run(stop))
        await service.until_ready()
        try:
            return await _measured(procedures, causes, lines, is_bad=is_bad, rate=rate, seconds=seconds)
        finally:
            stop.fire("measured")
            await running
            await database.close()


async def _measured(
    procedures: Procedures, causes: dict[str, Fault], lines: Lines, *, is_bad: bool, rate: float, seconds: float
) -> dict[str, Any]:
    # What is loaded, pooled and made at the first use is no growth.
    warm = Doomed(procedures, is_bad=False, rate=0)
    await warm.run(min(2.0, seconds))
    if is_bad:
        with contextlib.suppress(OutlastError):
            await (await procedures.submit("create", "worse")).wait(30.0)
    run = Doomed(procedures, is_bad=is_bad, rate=rate)
    rss, size, line_count = _rss(), await _etcd_bytes(procedures), lines.count
    if rate:
        await run.run(seconds)
    figures: dict[str, Any] = {
        "capacity": len(warm.good_s) / min(2.0, seconds),
        "answers": dict(run.answers),
        "good": len(run.good_s),
        "good_p50_ms": _percentile(run.good_s, 0.5) * 1e3,
        "good_p99_ms": _percentile(run.good_s, 0.99) * 1e3,
        "refusal_p99_ms": _percentile(run.refusal_s, 0.99) * 1e3,
        "rss_growth": _rss() - rss,
        "etcd_growth": await _etcd_bytes(procedures) - size,
        "log_lines": lines.count - line_count,
        "lines": lines.first[line_count:],
    }
    if is_bad and rate:
        bad = await procedures.list(kind="create", key="bad")
        figures["records"] = len(bad)
        figures["failures"] = bad[0].failures if bad else 0
        figures["is_dead"] = bool(bad) and bad[0].state is ProcedureState.DEAD
        figures["backoff_s"] = (bad[0].until_at or 0.0) - bad[0].read_at if bad else 0.0
        causes.clear()
        await procedures.clear("create", "worse")
        figures["cleared_s"] = await run.healed_s("worse")
        figures["healed_s"] = await run.healed_s("bad")
    return figures


async def _etcd_bytes(procedures: Procedures) -> int:
    status = getattr(procedures.store.dependency, "status", None)
    return 0 if status is None else (await status()).db_size_bytes


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _percentile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))] if values else 0.0


def _database(store: str, place: str) -> Any:  # noqa: ANN401 - one of three adapters
    if store == "sqlite":
        from outlast.sqlite import Sqlite

        return Sqlite(place)
    if store == "postgres":
        from outlast.postgres import Postgres

        return Postgres(place)
    from outlast.etcd import Etcd

    return Etcd(place)


@contextlib.contextmanager
def served(store: str) -> Iterator[str]:
    """Start what the store needs; yield the place."""
    from outlast.testing import EtcdServer, PostgresServer

    if store == "sqlite":
        with tempfile.TemporaryDirectory() as directory:
            yield str(Path(directory) / "work.db")
    elif store == "postgres":
        with PostgresServer() as postgres:
            yield postgres.dsn()
    else:
        with EtcdServer() as etcd:
            yield etcd.url


def one(store: str, arm: str, rate: float, seconds: float) -> dict[str, Any]:
    """Run once, in a process of its own."""
    with served(store) as place:
        command = [sys.executable, __file__, "--run", arm, "--store", store, "--place", place, "--rate", str(rate)]
        done = subprocess.run([*command, "--seconds", str(seconds)], stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def pairs(store: str, seconds: float, count: int) -> dict[str, Any]:
    """Run in pairs; return the figures and what is wrong."""
    rate = one(store, "noop", 0.0, min(5.0, seconds))["capacity"] / 2
    runs: dict[str, list[dict[str, Any]]] = {"bad": [], "noop": []}
    for number in range(count):
        for arm in ("bad", "noop") if number % 2 else ("noop", "bad"):
            runs[arm].append(one(store, arm, rate, seconds))
    ratios = [bad["good_p99_ms"] / max(noop["good_p99_ms"], 1e-9) for bad, noop in zip(runs["bad"], runs["noop"], strict=True)]
    grown = [bad["etcd_growth"] - noop["etcd_growth"] for bad, noop in zip(runs["bad"], runs["noop"], strict=True)]
    result = {"store": store, "rate": rate, "p99_ratio": statistics.median(ratios), "etcd_more": max(grown), **runs}
    result["wrong"] = list(wrong(result))
    return result


def wrong(result: dict[str, Any]) -> Iterator[str]:
    """Yield what is not as promised."""
    for run in result["bad"]:
        untyped = [answer for answer in run["answers"] if answer.startswith("untyped")]
        facts = {
            "records": run["records"] == RECORDS_MAX,
            "log_lines": run["log_lines"] <= LINES_MAX,
            "answers": not untyped,
            "rss_growth": run["rss_growth"] < RSS_MAX,
            "refusal_p99_ms": run["refusal_p99_ms"] < REFUSAL_S_MAX * 1e3,
            "healed_s": run["healed_s"] < run["backoff_s"] + 2.0,
            "cleared_s": run["cleared_s"] < 2.0,
        }
        yield from (f"{result['store']}: {name} is {run[name]}" for name, holds in facts.items() if not holds)
    if result["etcd_more"] >= ETCD_MAX:
        yield f"{result['store']}: etcd grew by {result['etcd_more']} bytes more"
    if result["p99_ratio"] > RATIO_MAX:
        yield f"{result['store']}: the p99 of the good keys is {result['p99_ratio']:.2f} times as long"


def show(result: dict[str, Any]) -> None:
    """Print one store."""
    print(f"{result['store']}: 20 good keys at {result['rate']:.0f}/s, p99 {result['p99_ratio']:.2f} times that of the no-op")
    for arm in ("bad", "noop"):
        for run in result[arm]:
            more = ""
            if arm == "bad":
                more = (
                    f", answers {sum(run['answers'].values())}, refusal p99 {run['refusal_p99_ms']:.2f} ms, records "
                    f"{run['records']}, failures {run['failures']}, log lines {run['log_lines']}, healed {run['healed_s']:.1f} s "
                    f"(backoff {run['backoff_s']:.1f}), cleared {run['cleared_s']:.2f} s"
                )
            print(
                f"  {arm:4}: good {run['good']}, p50 {run['good_p50_ms']:.1f} p99 {run['good_p99_ms']:.1f} ms, "
                f"rss +{run['rss_growth'] / 2**20:.1f} MiB, etcd +{run['etcd_growth'] / 2**10:.0f} KiB{more}"
            )
    print(*(f"  WRONG {text}" for text in result["wrong"]), sep="\n")


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=STORES)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--run", choices=("bad", "noop"), help=argparse.SUPPRESS)
    parser.add_argument("--place", default="", help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, default=0.0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        measured = measure(asked.store, asked.place, is_bad=asked.run == "bad", rate=asked.rate, seconds=asked.seconds)
        print(json.dumps(asyncio.run(measured)))
        return 0
    results = [pairs(store, asked.seconds, asked.pairs) for store in ([asked.store] if asked.store else STORES)]
    if asked.json:
        print(json.dumps(results))
    else:
        for result in results:
            show(result)
    return 1 if any(result["wrong"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
