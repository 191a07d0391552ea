"""`python -m tests.sim.tables [--seed N] [--schedules N] [--mutant NAME]`: exit code 1 if a promise was broken.

A single schedule prints all that happened in it.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1]), str(HERE.parents[1] / "unit" / "tables")]

from tables_mutants import MUTANTS  # noqa: E402
from tables_world import replay_command, run_seed  # noqa: E402

from seeds import command  # noqa: E402 - found by the line above

if __name__ == "__main__":
    sys.exit(
        command(
            sys.argv[1:],
            module="tests.sim.tables",
            description="Writers in several processes, while tables cannot be made and the store fails.",
            mutants=MUTANTS,
            run_seed=run_seed,
            replay_command=replay_command,
        )
    )
