"""The end of a drill in the terminal: a table of the arms, the promises, the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from outlast._drill.shown.figures import facts, promise_line, verdict

if TYPE_CHECKING:
    from rich.console import Console

    from outlast._drill.lab.drills import Drill
    from outlast._drill.lab.result import A, DrillResult


def print_summary(drill: Drill[Any, A], result: DrillResult[A], console: Console) -> None:
    """Print the table, the notes, the promises and the verdict."""
    console.print()
    console.print(Text(", ".join(f"{name} {value}" for name, value in facts(drill, result)), style="dim"))
    console.print(_table(drill, result))
    for arm in result.arms:
        for note in arm.notes:
            console.print(f"{arm.arm}: {note}", markup=False, highlight=False, soft_wrap=True)
    if result.promises:
        console.print()
        for promise in result.promises:
            mark = Text("kept   ", style="green") if promise.held else Text("BROKEN ", style="bold red")
            console.print(mark + Text(promise_line(promise)) + Text(f"  {promise.reason}", style="dim"), soft_wrap=True)
    console.print()
    console.print(Text(verdict(result), style=_verdict_style(result)))


def _verdict_style(result: DrillResult[A]) -> str:
    if result.exit_code:
        return "bold red"
    return "bold green" if result.promises else "bold"


def _table(drill: Drill[Any, A], result: DrillResult[A]) -> Table:
    """Make a table of one column an arm, so that the table fits a terminal of 90 columns."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    table.add_column("", no_wrap=True, style="dim")
    for arm in result.arms:
        table.add_column(arm.arm, justify="right", no_wrap=True, style="bold" if arm.arm in drill.proven else "")
    for column in drill.columns:
        table.add_row(f"{column.title}, {column.unit}".rstrip(", "), *(column.cell(arm) for arm in result.arms))
    return table
