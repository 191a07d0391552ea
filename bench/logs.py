"""Measure how fast `outlast logs fold` is, and whether it counts right, against cat, uniq, drain3 and a loop over lines.

    python bench/logs.py                     # 4,000,000 lines of a storm, 10,000,000 distinct keys, best of 3 rounds
    python bench/logs.py --keys 0            # without the flood of keys, which takes some minutes
    python bench/logs.py --json              # the same, for a script

Every candidate is a process of its own that reads the same file. A rate is lines by processor second, user and system, of the
best round: one core's worth, whatever else the machine does; pipes of several processes are given by the clock. The counts
of every kind are compared with an independent count. The exit code is 1 when a promise does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

SRC = Path(__file__).resolve().parents[1] / "src"
FOLD = [sys.executable, "-m", "outlast", "logs", "fold", "--summaries", "json"]
PLAIN_LEAST = 3_000_000
VARYING_LEAST = 800_000
CAT_TIMES_MAX = 15.0
MEMORY_KB_MAX = 100_000
SLOW_LINES = 100_000
"""Candidates that need microseconds for a line read this many lines only, the beginning of the file."""

STORM = b"2026-01-31T12:00:00.000Z ERROR shop.orders: connection to db1.internal:5432 refused (errno 111), will retry"
KINDS = ("refused (errno 111)", "no route (errno 113)", "answered with status 500", "answered with status 503")

PER_LINE = """
import re, sys
mask = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9]+")
counts = dict()
for line in open(sys.argv[1], "rb"):
    key = mask.sub(b"#", line)
    counts[key] = counts.get(key, 0) + 1
"""
DRAIN3 = """
import sys
from drain3 import TemplateMiner
from drain3.template_miner_config import TemplateMinerConfig
miner = TemplateMiner(config=TemplateMinerConfig())
for line in open(sys.argv[1]):
    miner.add_log_message(line.rstrip())
"""


@dataclass
class Run:
    """One process that read one file: the best of its rounds."""

    what: str
    file: str
    lines: int
    cpu_s: float
    wall_s: float
    memory_kb: int

    @property
    def rate(self) -> float:
        """Lines by processor second."""
        return self.lines / self.cpu_s


def high_water_kb(pid: int) -> int:
    """Return the most memory the process had so far; 0 once it is gone. What wait4 tells includes the program before exec."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
        return int(found[1]) if found else 0
    return 0


def measure(what: str, command: list[str] | str, file: Path, lines: int, rounds: int, out: Path | None = None) -> Run:
    """Run the command `rounds` times; `{}` in it is the file."""
    best: Run | None = None
    for _ in range(rounds):
        words = ["/bin/sh", "-c", command] if isinstance(command, str) else command
        with (out or Path(os.devnull)).open("wb") as target:
            began = time.perf_counter()
            process = subprocess.Popen(
                [word.replace("{}", str(file)) for word in words], stdout=target, env={**os.environ, "PYTHONPATH": str(SRC)}
            )
            memory_kb = 0
            while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
                memory_kb = max(memory_kb, high_water_kb(process.pid))
                time.sleep(0.002)
            _, status, used = ended
            wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"bench/logs.py: {what} on {file.name} ended with {process.returncode}")
        run = Run(what, file.name, lines, used.ru_utime + used.ru_stime, wall_s, memory_kb)
        if best is not None:
            run.cpu_s, run.wall_s = min(run.cpu_s, best.cpu_s), min(run.wall_s, best.wall_s)
        best = run
    assert best is not None
    return best


def write_plain(path: Path, lines: int) -> None:
    with path.open("wb") as file:
        for begin in range(0, lines, 10_000):
            file.write((STORM + b"\n") * min(10_000, lines - begin))


def write_storm(path: Path, lines: int) -> None:
    """Write lines of which one in a hundred is of a kind of its own, at a place that nobody can foretell."""
    chance = random.Random(1)
    with path.open("wb") as file:
        for begin in range(0, lines, 100):
            block = [STORM] * min(100, lines - begin)
            block[chance.randrange(len(block))] = b"2026-01-31T12:00:00.000Z WARN shop.stock: table stock_%d is locked" % (
                begin // 100
            )
            file.write(b"\n".join(block) + b"\n")


def write_varying(path: Path, lines: int, *, as_json: bool) -> None:
    """Write lines that differ in their time, their numbers and a UUID."""
    chance = random.Random(2)
    with path.open("w") as file:
        for number in range(lines):
            bits = f"{chance.getrandbits(128):032x}"
            uuid = f"{bits[:8]}-{bits[8:12]}-{bits[12:16]}-{bits[16:20]}-{bits[20:]}"
            seconds, thousandths = divmod(number, 1000)
            clock = f"{seconds // 3600 % 24:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{thousandths:03}"
            moment = f"2026-01-31T{clock}Z"
            customer, took_ms, kind = chance.randrange(1_000_000), int(chance.lognormvariate(4, 1)), chance.choice(KINDS)
            if as_json:
                file.write(
                    f'{{"ts":"{moment}","level":"error","request_id":"{uuid}","customer":{customer},"took_ms":{took_ms},'
                    f'"msg":"db1 {kind}"}}\n'
                )
            else:
                file.write(f"{moment} ERROR shop: request {uuid} of customer {customer} failed after {took_ms} ms: db1 {kind}\n")


def write_keys(path: Path, lines: int) -> None:
    with path.open("w") as file:
        for number in range(lines):
            file.write(f"ERROR table stock_{number} is locked\n")


def counts_agree(file: Path, out: Path, *, kind: str) -> tuple[bool, int]:
    """Compare what the fold showed and summarised, by kind, with a count of the input. `kind` is a regular expression."""
    find = re.compile(kind)
    told: Counter[str] = Counter()
    with out.open() as lines:
        for line in lines:
            if '"outlast.count"' in line:
                summary = json.loads(line)
                told[find.search(summary["outlast.example"])[0]] += summary["outlast.count"]  # type: ignore[index]
            else:
                told[find.search(line)[0]] += 1  # type: ignore[index]
    with file.open() as lines:
        return told == Counter(find.search(line)[0] for line in lines), len(told)  # type: ignore[index]


def promises(runs: list[Run], agree: dict[str, tuple[bool, int]], flood: Run | None) -> dict[str, bool]:
    by = {(run.what, run.file): run for run in runs}
    kept = {f"{file}: counts exact for {kinds} kinds": held for file, (held, kinds) in agree.items()}
    for file, least in (("plain.log", PLAIN_LEAST), ("text.log", VARYING_LEAST), ("json.log", VARYING_LEAST)):
        kept[f"{file}: at least {least:,} lines/s on one core"] = by["outlast", file].rate >= least
    cat = by["cat FILE | wc -l", "plain.log"]
    kept[f"plain.log: a fifteenth of cat FILE | wc -l ({CAT_TIMES_MAX:.0f} x)"] = (
        by["outlast", "plain.log"].wall_s <= CAT_TIMES_MAX * cat.wall_s
    )
    if flood is not None:
        kept[f"{flood.lines:,} distinct keys: under {MEMORY_KB_MAX // 1000} MB"] = flood.memory_kb < MEMORY_KB_MAX
    return kept


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--lines", type=int, default=4_000_000)
    arguments.add_argument("--keys", type=int, default=10_000_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--json", action="store_true")
    chosen = arguments.parse_args()
    lines, varying = chosen.lines, max(chosen.lines // 4, 1)
    runs: list[Run] = []
    agree: dict[str, tuple[bool, int]] = {}
    flood = None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = folder / "out"
        write_plain(folder / "plain.log", lines)
        write_storm(folder / "storm.log", lines)
        write_varying(folder / "text.log", varying, as_json=False)
        write_varying(folder / "json.log", varying, as_json=True)
        kinds = {
            "plain.log": "errno 111",
            "storm.log": r"errno 111|stock_\d+",
            "text.log": r": db1 .*\d\d\d",
            "json.log": r"db1 .*\d\d\d",
        }
        for file, kind in kinds.items():
            path, many = folder / file, lines if file in {"plain.log", "storm.log"} else varying
            head = folder / "head.log"
            with path.open("rb") as reading:
                head.write_bytes(b"".join(line for line, _ in zip(reading, range(SLOW_LINES), strict=False)))
            few = min(many, SLOW_LINES)
            runs.append(measure("outlast", [*FOLD, "{}"], path, many, chosen.rounds, out))
            agree[file] = counts_agree(path, out, kind=kind)
            runs.append(measure("cat FILE | wc -l", "cat {} | wc -l", path, many, chosen.rounds))
            runs.append(measure("uniq -c", ["uniq", "-c", "{}"], path, many, chosen.rounds))
            for what, program in (("loop over lines", PER_LINE), ("drain3", DRAIN3)):
                run = measure(what, [sys.executable, "-c", program, "{}"], head, few, 1)
                runs.append(Run(what, file, few, run.cpu_s, run.wall_s, run.memory_kb))
            path.unlink()
        if chosen.keys:
            write_keys(folder / "keys.log", chosen.keys)
            flood = measure("outlast", [*FOLD, "{}"], folder / "keys.log", chosen.keys, 1, out)
            agree["keys.log"] = _others_agree(out, chosen.keys)
    kept = promises(runs, agree, flood)
    show(runs, flood, kept, as_json=chosen.json)
    return 0 if all(kept.values()) else 1


def _others_agree(out: Path, keys: int) -> tuple[bool, int]:
    """Compare the sum: of a flood, kinds that had no place are counted, not named."""
    told = shown = 0
    with out.open() as lines:
        for line in lines:
            if '"outlast.count"' in line:
                told += json.loads(line)["outlast.count"]
            else:
                shown += 1
    return shown + told == keys, shown


def row(run: Run) -> str:
    return f"  {run.what:<16} {run.rate:>18,.0f} {run.lines / run.wall_s:>14,.0f}"


def show(runs: list[Run], flood: Run | None, kept: dict[str, bool], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"runs": [asdict(run) for run in [*runs, *([flood] if flood else [])]], "promises": kept}, indent=2))
        return
    print(f"{'':<18} {'lines/s of a core':>18} {'by the clock':>14} {'outlast is':>12} {'memory':>8}")
    for file in dict.fromkeys(run.file for run in runs):
        ours = next(run for run in runs if run.file == file)
        print(file)
        for run in (run for run in runs if run.file == file):
            times = (run.wall_s / run.lines) / (ours.wall_s / ours.lines)
            print(f"{row(run)} {times:>10.2f} x {run.memory_kb // 1000:>5} MB")
    if flood is not None:
        print(f"{flood.file}\n{row(flood)} {'':>12} {flood.memory_kb // 1000:>5} MB")
    for promise, held in kept.items():
        print(f"{'ok ' if held else 'NOT'} {promise}")


if __name__ == "__main__":
    sys.exit(main())
