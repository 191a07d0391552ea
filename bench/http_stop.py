"""The stop of a server under load: how long it takes, as a share of its deadline, and that everybody sees the end.

    python bench/http_stop.py                     # 5 rounds with a crowd, 3 in which requests hang
    python bench/http_stop.py --rounds 1 --json   # fewer, for a script

A process serves 200 long polls, 200 viewers of an event stream with 20 events a second, 16 clients that ask without a pause, and
30 that send half of something or do not read; it gets SIGTERM. In the rounds that hang, 20 requests do not end by themselves.
The exit code is 1 when a stop took more than 110 % of its deadline, the process did not exit with 0, it wrote a line above INFO
(with requests that hang: other than the one that names them), or a client did not see the end of its stream.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "real" / "http"))

from crowd import Crowd, Ended  # the same process and clients as in the tests

OVERTIME_MAX = 1.1
DEADLINE_S = 5.0
HANGING = 20


def complaints(crowd: Crowd, ended: Ended) -> list[str]:
    """Say what was not as promised."""
    found = []
    if ended.code:
        found.append(f"exit code {ended.code}")
    found += [line for line in ended.loud if not (crowd.hanging and "cancelled what still ran" in line)]
    for name, ends, wanted in (
        ("long polls", ended.polls, {"204, then the end": crowd.polls}),
        ("streams", ended.streams, {"last chunk, then the end": crowd.streams}),
        ("trouble", ended.trouble, {"the end": 6 * crowd.trouble}),
        ("hanging", ended.hung, {"503, then the end": crowd.hanging} if crowd.hanging else {}),
    ):
        if ends != wanted:
            found.append(f"{name}: {dict(ends)} instead of {wanted}")
    return found


def measure(rounds: int, hanging: int) -> tuple[list[float], list[str]]:
    """Run some rounds; return the share of the deadline that each stop took, and what was wrong."""
    shares, wrong = [], []
    for _ in range(rounds):
        crowd = Crowd(hanging=hanging)
        ended = asyncio.run(crowd.round(deadline_s=DEADLINE_S))
        shares.append(ended.took_s / DEADLINE_S)
        wrong += complaints(crowd, ended)
    return shares, wrong


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="stops with a crowd (default: %(default)s)")
    parser.add_argument("--hanging", type=int, default=3, help="stops in which requests hang (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    options = parser.parse_args()
    crowded, wrong = measure(options.rounds, 0)
    hung, more = measure(options.hanging, HANGING)
    wrong += more
    if options.json:
        print(json.dumps({"crowd": crowded, "hanging": hung, "wrong": wrong}, indent=2))
    else:
        for name, shares in (("a crowd", crowded), (f"a crowd and {HANGING} requests that hang", hung)):
            if shares:
                print(f"{name}: stopped after median {statistics.median(shares):.0%}, most {max(shares):.0%} of the deadline"
                      f" ({len(shares)} stops)")  # fmt: skip
        print("\n".join(wrong) or "everybody saw the end of its stream; no line above INFO")
    return 1 if wrong or max([*crowded, *hung, 0.0]) > OVERTIME_MAX else 0


if __name__ == "__main__":
    sys.exit(main())
