"""The end of the electric drill in the terminal: a table of the arms, the promises, the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from outlast.drill.figures import promise_line

if TYPE_CHECKING:
    from rich.console import Console

    from outlast.drill.electric_result import ElectricArm, ElectricResult

_VERDICTS = {0: "every promise was kept", 1: "a promise was broken", 2: "the naive arm did not storm: this drill proves nothing"}


def print_electric_summary(result: ElectricResult, console: Console) -> None:
    """Print the table, the promises and the verdict."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    table.add_column(f"{result.fault} {result.outage_s:g} s", no_wrap=True, style="dim")
    for arm in result.arms:
        table.add_column(arm.arm, justify="right", no_wrap=True)
    rows = [_cells(arm) for arm in result.arms]
    for index, (title, _) in enumerate(rows[0] if rows else ()):
        table.add_row(title, *(cells[index][1] for cells in rows))
    console.print(table)
    for promise in result.promises:
        mark = Text("kept   ", style="green") if promise.held else Text("BROKEN ", style="bold red")
        console.print(mark + Text(promise_line(promise)) + Text(f"  {promise.reason}", style="dim"), soft_wrap=True)
    if result.promises or result.exit_code:
        console.print(Text(_VERDICTS[result.exit_code], style="bold red" if result.exit_code else "bold green"))


def _cells(arm: ElectricArm) -> list[tuple[str, str]]:
    return [
        ("connection attempts", f"{arm.attempts:,}"),
        ("log lines", f"{arm.log_lines:,}"),
        ("log, kB", f"{arm.log_bytes / 1000:,.1f}"),
        ("CPU, % of a core", f"{arm.cpu_percent:.1f}"),
        ("CPU before it, % of a core", f"{arm.cpu_before_percent:.1f}"),
        ("other loops, % of before", f"{arm.throughput_percent:.0f}"),
        ("streams again after, s", "-" if arm.recovery_s is None else f"{arm.recovery_s:.3f}"),
        ("changes", f"{arm.changes:,}"),
        ("lost", "-" if arm.lost is None else f"{arm.lost:,}"),
        ("twice", f"{arm.twice:,}"),
    ]
