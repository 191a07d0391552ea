"""Procedures decided and completed a second: by the core alone, on PostgreSQL against peers, on SQLite against bare transactions.

    python bench/procedures.py                        # all of it, some five minutes
    python bench/procedures.py --only core            # core, one, three, sqlite, keys
    python bench/procedures.py --rounds 8 --json

**core**: submissions that are answered from memory, refused and joined, in a second of processor time, over 1,000 keys; the
median of 5 rounds. Promised: 300,000 and 100,000.
**one**: procedures of one step against Procrastinate and Oban (which needs Python 3.12): all are enqueued, then done 50 at a
time.
**three**: procedures of three recorded steps against DBOS and Absurd. The clock of Outlast and DBOS runs from the first
submission, that of Absurd from when all have been spawned.
**sqlite**: procedures of one step, submitted, done and recorded, against bare transactions of one row each with apsw. Promised:
0.3.
**keys**: the time that a good key takes while 5,000 keys which have failed, each for its own reason, are submitted 2,000 times a
second, against the time without them, in 20 pairs, on SQLite. Promised: at most twice, by the upper end of the interval; no good
key is refused; no more than 10 a second of the failing ones reach the store.

The PostgreSQL server is started for the bench and writes its log to disk (fsync and synchronous_commit on); SQLite has a
write-ahead log and `synchronous=FULL`, on both sides. In each round the candidates take turns, each in a process of its own and
with a database or a folder of its own; statistics are brought up to date before the clock runs. The clock of Outlast stops when
the last end is recorded, that of a peer when its last function has returned. A ratio is the median of the rounds, with its 95 %
interval (of fewer than six rounds: the least and the largest), by whose lower end a promise is judged: above 1 for each peer.

The exit code is 1 when a promise is missed.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _medians import median_interval

from outlast import Fault, Kind
from outlast.procedures._decisions.front import Front, KeyRefusal
from outlast.procedures._decisions.register import Join
from outlast.procedures._model import KeyOf, Submission

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HERE = Path(__file__).parent
KEYS = 1_000
DECISIONS = 300_000
DECIDED_MIN = {"refused": 300_000, "joined": 100_000}
SQLITE_MIN = 0.3
BAD_KEYS = 5_000
GOOD_MAX = 2.0
PROBES_MAX = 10
PEERS = {
    "one": ("outlast_one", "procrastinate_one", "oban_one"),
    "three": ("outlast_three", "dbos_three", "absurd_three"),
    "sqlite": ("outlast_sqlite", "bare_sqlite"),
}
PARTS = ("core", *PEERS, "keys")
COUNTS = {"procrastinate_one": 1_000, "dbos_three": 500, "absurd_three": 500}
"""Procedures of a slower peer in a round; of the others as many as `--procedures` says."""
TIMEOUT_S = 300.0


def decided(rounds: int = 5) -> dict[str, float]:
    """Return the submissions that one front refuses and joins from memory in a second of processor time."""
    found: dict[str, list[float]] = {"refused": [], "joined": []}
    for _ in range(rounds):
        front, fault = Front(random.Random(1)), Fault(Kind.REJECTED, "42P07", "the table is there already", source="metasrv")
        failing = [KeyOf("create-table", f"bad-{number}") for number in range(KEYS)]
        live = [KeyOf("create-table", f"good-{number}") for number in range(KEYS)]
        for of in failing:
            front.failing(0.0, of, "0" * 32, fault, fault, failures=1, since_s=0.0, until_s=1e9)
        for of in live:
            front.submit(0.0, of, 10.0)
            front.created(0.0, of, "0" * 32, Submission.CREATED, mine=True)
        for name, keys, answer in (("refused", failing, KeyRefusal), ("joined", live, Join)):
            submit, names = front.submit, [(of.kind, of.key) for of in keys]
            begun = time.process_time()
            for _ in range(DECISIONS // KEYS):
                for kind, key in names:
                    last = submit(1.0, KeyOf(kind, key), 10.0)
            found[name].append(DECISIONS / (time.process_time() - begun))
            assert isinstance(last, answer), last
    return {name: statistics.median(values) for name, values in found.items()}


def measure(name: str, place: str, count: int) -> float:
    """Run one candidate in a process of its own; return the completed ones a second."""
    return count / float(run("_procedures_peers.py", name, place, str(count))["s"])


def rounds_of(part: str, rounds: int, count: int, place: Callable[[str], str]) -> dict[str, list[float]]:
    """Let the candidates of a part take turns; return the completed ones a second of each, by round."""
    names = [name for name in PEERS[part] if name != "oban_one" or sys.version_info >= (3, 12)]
    seen: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        # In another order in each round: whoever comes first finds the machine as others have left it.
        for name in names if number % 2 == 0 else names[::-1]:
            seen[name].append(measure(name, place(f"{name}_{number}"), COUNTS.get(name, count)))
            print(f"    round {number + 1} of {rounds}: {name:<18} {seen[name][-1]:>8,.0f}/s", file=sys.stderr, flush=True)
    return seen


def run(program: str, *arguments: str) -> dict[str, Any]:
    """Run a program of this folder in a process of its own; return what it prints last, as JSON."""
    command = [sys.executable, str(HERE / program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode != 0:
        sys.exit(f"bench procedures: {program} {arguments[0]} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


class Report:
    """Figures and promises as they come."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}
        self.missed: list[str] = []

    def promise(self, name: str, text: str, value: object, *, holds: bool) -> None:
        """Print a figure that was promised, and keep it."""
        self.figures[name] = value
        print(f"  {name:<34} {text}{'' if holds else '   MISSED'}", flush=True)
        if not holds:
            self.missed.append(name)

    def core(self) -> None:
        """Measure the decisions."""
        for name, per_s in decided().items():
            text = f"{per_s:>12,.0f}/s (promised {DECIDED_MIN[name]:,})"
            self.promise(name, text, round(per_s), holds=per_s >= DECIDED_MIN[name])

    def ratios(self, seen: dict[str, list[float]], least: float) -> None:
        """Compare the first candidate with the others."""
        for name, values in seen.items():
            per_s = statistics.median(values)
            self.figures[f"{name}_per_s"] = round(per_s)
            print(f"  {name:<34} {per_s:>12,.0f}/s", flush=True)
        first, *others = seen
        for other in others:
            ratios = [ours / theirs for ours, theirs in zip(seen[first], seen[other], strict=True)]
            middle, low, high = median_interval(ratios)
            text = f"{middle:>12.2f} x ({low:.2f} to {high:.2f}; promised {'above ' if least == 1 else ''}{least:g})"
            self.promise(
                f"{first} / {other}", text, [middle, low, high], holds=middle > least or (least != 1 and middle >= least)
            )


def postgres(part: str, options: argparse.Namespace, report: Report) -> None:
    """Measure a part on a server of its own."""
    import psycopg

    from outlast.testing import PostgresServer

    with PostgresServer(settings={"fsync": "on", "synchronous_commit": "on"}) as server:

        def database(name: str) -> str:
            with psycopg.connect(server.dsn(), autocommit=True) as conn:
                conn.execute(f"CREATE DATABASE {name}".encode())
            return server.dsn(name)

        report.ratios(rounds_of(part, options.rounds, options.procedures, database), 1.0)


def sqlite(options: argparse.Namespace, report: Report) -> None:
    """Measure the files, on the disk that `--directory` names."""
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:

        def folder(name: str) -> str:
            path = Path(directory) / name
            path.mkdir()
            return str(path)

        report.ratios(rounds_of("sqlite", options.rounds, options.procedures, folder), SQLITE_MIN)


def keys(options: argparse.Namespace, report: Report) -> None:
    """Measure a good key among failing ones."""
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        found = run("_procedures_keys.py", directory, str(BAD_KEYS))
    middle, low, high = median_interval(found["ratios"])
    text = f"{middle:>12.2f} x of {1000 * found['usual_s']:.1f} ms ({low:.2f} to {high:.2f}; promised at most {GOOD_MAX:g})"
    report.promise("a good key among failing ones", text, [middle, low, high], holds=high <= GOOD_MAX)
    text = f"{found['good_refused']:>12,} of good keys, {found['refused']:,} of failing ones"
    report.promise("refusals", text, found["refused"], holds=found["good_refused"] == 0)
    text = f"{found['probes_per_s']:>12.1f}/s (promised at most {PROBES_MAX})"
    report.promise("failing keys that reach the store", text, found["probes"], holds=found["probes_per_s"] <= PROBES_MAX)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be given again")
    parser.add_argument("--procedures", type=int, default=3_000, help="procedures in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=6, help="rounds; the median counts (default: %(default)s)")
    parser.add_argument("--directory", help="the folder for SQLite's files, on a disk (default: the temporary one)")
    parser.add_argument("--json", action="store_true", help="print JSON at the end")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    report = Report()
    for part in options.only or PARTS:
        print(part, flush=True)
        if part == "core":
            report.core()
        elif part == "sqlite":
            sqlite(options, report)
        elif part == "keys":
            keys(options, report)
        else:
            postgres(part, options, report)
    if options.json:
        packages = ("procrastinate", "oban", "dbos", "absurd-sdk", "apsw") if sys.version_info >= (3, 12) else ()
        print(json.dumps({**report.figures, "versions": {name: version(name) for name in packages}}, indent=2))
    print("every promise holds" if not report.missed else f"missed: {', '.join(report.missed)}")
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
