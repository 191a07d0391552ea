"""`python -m tests.sim.procedures [--seed N] [--schedules N] [--mutant NAME]`: exit code 1 if a promise was broken.

A single schedule prints all that happened in it.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from procedure_mutants import MUTANTS  # noqa: E402
from procedure_world import replay_command, run_seed  # noqa: E402

from planting import planted  # noqa: E402 - found by the line above


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.sim.procedures", description="Procedures whose keys fail, for themselves and all together."
    )
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--schedules", type=int, default=1000, help="how many seeds")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="plant this defect, and see how soon it is found")
    chosen = parser.parse_args(arguments)
    counts = Counter[str]()
    with planted(MUTANTS, chosen.mutant):
        for seed in range(chosen.seed, chosen.seed + chosen.schedules):
            outcome = run_seed(seed)
            counts.update(outcome.counts)
            if outcome.violation or chosen.schedules == 1:
                print("\n".join(outcome.trace[-40:]))  # noqa: T201 - a command
            if outcome.violation:
                print(f"seed {seed}: {outcome.violation}\nreplay: {replay_command(seed, chosen.mutant)}")  # noqa: T201 - a command
                return 1
    print(f"{chosen.schedules} schedules from seed {chosen.seed}, no promise broken: {dict(counts)}")  # noqa: T201 - a command
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
