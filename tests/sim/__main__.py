"""`python -m tests.sim [--seed N] [--schedules N] [--hours H] [--mutant NAME] [--json]`: exit code 1 if an invariant broke."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from tests.sim.mutants import MUTANTS
from tests.sim.run import monotonic_s, replay_command, run_parallel, run_seeds, told


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.sim", description="Services of random shape, stopped at random instants."
    )
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--schedules", type=int, help="how many seeds (1000, or no limit with --hours)")
    parser.add_argument("--hours", type=float, help="go on for so long")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="plant this defect, and see how soon it is found")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    chosen = parser.parse_args(arguments)
    count = chosen.schedules or (None if chosen.hours else 1000)
    began_s = monotonic_s()
    if count == 1:
        result = run_seeds(chosen.seed, 1, chosen.mutant)
    else:
        result = run_parallel(chosen.seed, count, hours=chosen.hours, mutant=chosen.mutant)
    took_s = monotonic_s() - began_s
    first = result.failures[0] if result.failures else None
    if chosen.json:
        replay = {} if first is None else {"failure": asdict(first), "replay": replay_command(first.seed, chosen.mutant)}
        figures = {"schedules": result.schedules, "events": result.events, "exit_codes": result.exit_codes, "took_s": took_s}
        print(json.dumps({**figures, **replay}, indent=1))  # noqa: T201 - a command
    else:
        if first is not None:
            print(told(first, chosen.mutant))  # noqa: T201 - a command
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(result.exit_codes.items()))
        print(  # noqa: T201 - a command
            f"{result.schedules} schedules from seed {chosen.seed}, {result.services} services, {result.events} events in "
            f"{took_s:.1f} s ({result.schedules / max(took_s, 1e-9):.0f} a second); exit codes {codes}; "
            f"{'no invariant broken' if first is None else f'seed {first.seed} failed'}"
        )
    return 0 if first is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
