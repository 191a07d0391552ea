"""One sentence on what an arm did, for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outlast.drill.result import ArmResult


def describe(arm: ArmResult) -> str:
    """What happened in this arm, in words and figures."""
    per_s = arm.lines_outage / arm.outage_s if arm.outage_s else 0.0
    lines = f"{arm.log_lines:,} log lines ({per_s:,.1f} a second during the fault)"
    parts = [f"{lines}, {arm.attempts:,} connection attempts"]
    if arm.recovery_s_max is not None:
        parts.append(f"all {arm.loops} loops back at work {arm.recovery_s_max:.2f} s after the server accepted")
    else:
        parts.append(f"{arm.loops - arm.loops_recovered} of {arm.loops} loops never came back")
    lost = f"{arm.lost:,} jobs lost" if arm.lost else "no job lost"
    twice = f"{arm.twice:,} run twice" if arm.twice else "none run twice"
    return "; ".join([*parts, f"{lost}, {twice}"]) + "."
