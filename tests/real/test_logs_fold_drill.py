"""The storm of the drill's naive arm, through the pipe."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from outlast.drill.coder import CODER, CoderOptions
from outlast.drill.observer import Silent
from outlast.drill.process import OutputCounter

if TYPE_CHECKING:
    import pytest

SRC = Path(__file__).parents[2] / "src"
COMMAND = [sys.executable, "-m", "outlast.cli", "logs", "fold"]
LINES_MAX = 20
STORM_LINES_MIN = 20 * LINES_MAX
INSTANCE = re.compile(r"^[\d:., -]*|(?<=loop )\d+|(?<=job )\d+|(?<=jobs )\d+")


def test_the_naive_arm_becomes_a_few_lines_with_every_distinct_message(monkeypatch: pytest.MonkeyPatch) -> None:
    storm = bytearray()
    feed = OutputCounter.feed

    def keep(self: OutputCounter, data: bytes, now: float) -> None:
        storm.extend(data)
        feed(self, data, now)

    monkeypatch.setattr(OutputCounter, "feed", keep)
    options = CoderOptions(outage_s=4.0, loops=50, arms=("naive",), warmup_s=0.5, cooldown_s=2.0, seed=3)
    result = CODER.run(options, Silent())
    done = subprocess.run(
        COMMAND, input=bytes(storm), capture_output=True, check=True, env={**os.environ, "PYTHONPATH": str(SRC)}, timeout=60
    )
    out = done.stdout.decode()
    assert result.arms[0].lines_total > STORM_LINES_MIN
    assert len(out.splitlines()) < LINES_MAX, out
    shown = {INSTANCE.sub("", line) for line in out.splitlines() if not line.startswith("outlast: ")}
    assert {INSTANCE.sub("", line) for line in storm.decode().splitlines()} == shown
