"""A process whose disk never answers again: it ends within its deadline, and nobody is left without an answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
LIMIT_S = 60.0
"""Far beyond the deadline of the service, for a busy machine."""


def test_a_thread_that_hangs_does_not_hold_up_the_end_and_its_appends_are_told_that_nobody_knows() -> None:
    folders = (ROOT / "src", ROOT / "tests", ROOT / "tests" / "unit" / "streams")
    done = subprocess.run(
        [sys.executable, HERE / "stuck_store.py"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    told = sorted(done.stdout.splitlines())
    assert [line.split()[0] for line in told] == ["OutcomeUnknownError", "Stopping"], done.stderr
    assert "while the append was on its way to the disk" in told[0]
    assert done.returncode in (0, 75), done.stderr
    assert "Traceback" not in done.stderr
