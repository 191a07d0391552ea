"""What was appended outlives `kill -9`, and what was not leaves no trace that a reader would take for a unit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from appenders import WITH_A_RESTART, Appender

HERE = Path(__file__).parent
PATHS = os.pathsep.join(str(HERE.parents[2] / part) for part in ("src", "tests/contract"))
ROUNDS = 3
UNITS_MIN = 20


@pytest.mark.parametrize("kind", WITH_A_RESTART, ids=lambda kind: kind.__name__)
def test_a_killed_process_leaves_every_unit_that_it_kept_and_no_part_of_another(kind: type[Appender], tmp_path: Path) -> None:
    kept: list[int] = []
    for number in range(ROUNDS):
        first = 1000 * number + 1
        command = [sys.executable, str(HERE / "appending.py"), kind.__name__, str(tmp_path), str(first)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": PATHS}) as process:
            assert process.stdout is not None
            kept += [int(process.stdout.readline()) for _ in range(UNITS_MIN + number)]
            process.kill()
            kept += map(int, process.stdout.read().split())
        again = kind(tmp_path)
        again.append(first - 1)
        again.close()
        found = again.units()
        # The one that was being appended may be there as well, if it was written and not yet printed.
        assert [unit for unit in found if unit != kept[-1] + 1] == [*kept, first - 1]
        kept = found
