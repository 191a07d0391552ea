"""What the tests of every drill share: figures of arms that keep all promises, and the looks of what is printed."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from rich.console import Console

from outlast._drill.lab.observer import ArmState
from outlast._drill.shown.live import LiveView, PlainView

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from outlast._drill.lab.observer import Sample

SHARED: dict[str, Any] = {
    "summary": "a kind of service",
    "log_bytes": 800,
    "cpu_s": 9.0,
    "rss_peak_mib": 40.0,
    "connects_100ms_max": 8,
    "connects_100ms_max_recovery": 8,
    "lost": 0,
    "work_s": 0.05,
    "exit_code": 0,
    "stop_s": 0.2,
    "log_first": ("one", "two"),
}


def printed(draw: Callable[[Console], object], *, terminal: bool = False) -> str:
    buffer = io.StringIO()
    draw(Console(file=buffer, width=110, force_terminal=terminal))
    return buffer.getvalue()


def live_text(sample: Sample, series: Sequence[Any]) -> str:
    """Return what a terminal shows of an arm in its outage."""

    def draw(console: Console) -> None:
        view = LiveView(console, ("naive",), planned_s=60.0, title="drill", series=series)
        view.arm_state("naive", ArmState.OUTAGE, 20.0)
        view.arm_sample("naive", sample)
        console.print(view._render())

    return printed(draw, terminal=True)


def plain_text(sample: Sample, series: Sequence[Any]) -> str:
    """Return the line that is printed of it where there is no terminal."""

    def draw(console: Console) -> None:
        view = PlainView(console, series)
        view._print = lambda arm, text: console.print(text)  # type: ignore[method-assign]
        view._printed_s["naive"] = -1e9
        view._states["naive"] = ArmState.OUTAGE
        view.arm_sample("naive", sample)

    return printed(draw).strip()
