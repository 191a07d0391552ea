"""The cost of standing by for a slot that a foreign pg_recvlogical reads, against the same service without a stream.

    python bench/slot_held.py                      # held for 90 s in each of five ways: eight minutes
    python bench/slot_held.py --held 10 --json     # shorter, for a script

The stream is attached; or in a loop that crashes at each attempt in vain and is restarted by its service; or in one that
crashes every half second and is restarted at once. "hidden": no look shows the reader, each claim finds out by itself
(55006); the time until it streams again is then that of the backoff, and not measured. The baseline runs in the same seconds.
Attempts are sessions for the stream or claims of the slot, whichever are more, as the server counted them; connections are
all, those for the lock included. The exit code is 1 when one exceeds 15 attempts, 5 lines, 1 % of a core beyond the baseline,
5 % of the other loop's turns, or 1 s from the release to the first change.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "real" / "changes"))

from changes_source import LOGICAL, source_database
from held_slot import SETTINGS, WAYS, Cost, stand_by  # the same service as in the tests

from outlast.testing import PostgresServer

ATTEMPTS_MAX = 15
LINES_MAX = 5
CPU_PERCENT_MAX = 1.0
SLOWER_PERCENT_MAX = 5.0
AGAIN_S_MAX = 1.0


def holds(cost: Cost) -> bool:
    """Return whether it is as cheap as promised."""
    return (
        cost.attempts <= ATTEMPTS_MAX
        and len(cost.lines) <= LINES_MAX
        and cost.cpu_percent < CPU_PERCENT_MAX
        and cost.slower_percent < SLOWER_PERCENT_MAX
        and (cost.again_s is None or cost.again_s < AGAIN_S_MAX)
    )


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--held", type=float, default=90.0, help="seconds that the slot is held (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    costs: dict[str, Cost] = {}
    with PostgresServer(settings=LOGICAL | SETTINGS) as server:
        for way, hidden in [(way, False) for way in WAYS] + [("attached", True), ("restarted at once", True)]:
            name = f"{way}, hidden" if hidden else way
            print(f"{name} ...", file=sys.stderr, flush=True)
            with source_database(server) as dsn:
                costs[name] = asyncio.run(stand_by(server, dsn, way, options.held, hidden=hidden))
    if options.json:
        print(json.dumps({name: asdict(cost) for name, cost in costs.items()}, indent=2))
        return 0 if all(map(holds, costs.values())) else 1
    print(f"{'':<26}{'attempts':>10}{'connections':>13}{'crashes':>9}{'lines':>7}{'CPU %':>8}{'slower %':>10}{'again s':>9}")
    for name, cost in costs.items():
        again = "-" if cost.again_s is None else f"{cost.again_s:.2f}"
        counts = f"{cost.attempts:>10}{cost.connections:>13}{cost.crashes:>9}{len(cost.lines):>7}"
        print(f"{name:<26}{counts}{cost.cpu_percent:>8.2f}{cost.slower_percent:>10.2f}{again:>9}{'' if holds(cost) else '  !'}")
    return 0 if all(map(holds, costs.values())) else 1


if __name__ == "__main__":
    sys.exit(main())
