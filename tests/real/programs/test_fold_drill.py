"""The storm of the drill's naive arm, through the pipe."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from outlast._drill.coder.drill import CODER, CoderOptions
from outlast._drill.lab.arm.process import OutputCounter
from outlast._drill.lab.observer import Silent

if TYPE_CHECKING:
    import pytest

SRC = Path(__file__).parents[3] / "src"
COMMAND = [sys.executable, "-m", "outlast", "logs", "fold"]
SUMMARIES_MAX = 10
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
    kinds = {INSTANCE.sub("", line) for line in storm.decode().splitlines()}
    # How many kinds there are, and how many of each, is a matter of how busy the machine is.
    assert len(out.splitlines()) <= len(kinds) + SUMMARIES_MAX, out
    assert result.arms[0].lines_total > 10 * len(out.splitlines())
    shown = {INSTANCE.sub("", line) for line in out.splitlines() if not line.startswith("outlast: ")}
    assert kinds == shown
