"""`python -m tests.sim.procedures [--seed N] [--schedules N] [--mutant NAME]`: exit code 1 if a promise was broken.

A single schedule prints all that happened in it.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from procedure_mutants import MUTANTS  # noqa: E402
from procedure_world import replay_command, run_seed  # noqa: E402

from seeds import command  # noqa: E402 - found by the line above

if __name__ == "__main__":
    sys.exit(
        command(
            sys.argv[1:],
            module="tests.sim.procedures",
            description="Procedures whose keys fail, for themselves and all together.",
            mutants=MUTANTS,
            run_seed=run_seed,
            replay_command=replay_command,
        )
    )
