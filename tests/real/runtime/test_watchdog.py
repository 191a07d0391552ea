"""A body that blocks the event loop: named with its line, interrupted, and the rest of the service goes on."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

SERVICE = """
import asyncio, sys, time
import outlast
from outlast._runtime.process.watchdog import Watchdog

service = outlast.Service("shop", deadline_s=2.0)

@service.loop(name="spinner", restart=outlast.Restart(bugs_max=None))
async def spinner(stop):
    while True:
        try:
            1 / 0
        except Exception:
            pass

@service.loop(name="other", every_s=0.1)
async def other(stop):
    print("turn", flush=True)

sys.exit(outlast.run(service, watchdog=Watchdog(blocked_s=0.4, interrupt_s=1.0)))
"""


@pytest.mark.short
def test_a_body_that_never_awaits_is_named_interrupted_and_restarted_with_backoff(tmp_path: Path) -> None:
    program = tmp_path / "spinning.py"
    program.write_text(SERVICE, encoding="utf-8")
    process = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(6)
    process.terminate()
    turns, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "the event loop has not turned for" in said
    assert "spinning.py:12 in spinner" in said or "spinning.py:1" in said
    assert "loop spinner is failing: BUG" in said
    assert "interrupted after blocking the event loop" in said
    assert turns.count("turn") > 3, "the others got their turns between two interruptions"
