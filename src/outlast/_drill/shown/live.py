"""The view of a drill while it runs: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from outlast._core.duration import format_duration
from outlast._drill.lab.observer import ArmState, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast._drill.shown.figures import Series

_RATES = ("lines", "attempts", "refused", "jobs", "changes", "stored")
"""The rates of a sample that a drill may want to show; what is drawn is the last of them."""

_SPARKS = "▁▂▃▄▅▆▇█"
_SAMPLES_MAX = 4_000
"""Four a second: a run of a quarter of an hour; of a longer one the end is drawn."""

_SPARK_CHARS_MAX = 40
_OTHER_CHARS = 78
"""The width of the columns beside the two sparklines, or more where there are more of them."""
_STATE_CHARS = len("recovery 10 s")

_PLAIN_EVERY_S = 5.0
_STYLES = {
    ArmState.WAITING: "dim",
    ArmState.HEALTHY: "green",
    ArmState.OUTAGE: "bold red",
    ArmState.RECOVERY: "yellow",
    ArmState.DONE: "bold green",
}


def sparkline(values: Sequence[float]) -> str:
    """Draw values as a row of bars, the largest full height; zero is the lowest bar."""
    top = max(values, default=0.0)
    if top <= 0:
        return _SPARKS[0] * len(values)
    return "".join(_SPARKS[min(len(_SPARKS) - 1, int(value / top * (len(_SPARKS) - 1) + 0.5))] for value in values)


def condense(values: Sequence[float], chars: int) -> list[float]:
    """Return the largest value of each of `chars` equal parts; all values where they are fewer."""
    if len(values) <= chars:
        return list(values)
    cuts = [round(index * len(values) / chars) for index in range(chars + 1)]
    return [max(values[first:last]) for first, last in pairwise(cuts)]


@dataclass(slots=True)
class _Row:
    """The present state of one arm."""

    state: ArmState = ArmState.WAITING
    state_began_s: float = 0.0
    state_lasts_s: float | None = None
    sample: Sample = field(default_factory=lambda: Sample(0, 0, 0, 0, 0))
    lines: deque[float] = field(default_factory=lambda: deque(maxlen=_SAMPLES_MAX))
    work: deque[float] = field(default_factory=lambda: deque(maxlen=_SAMPLES_MAX))

    def left(self) -> str:
        """Return the state with the seconds left of it."""
        if self.state_lasts_s is None or self.state in {ArmState.DONE, ArmState.DRAINING}:
            return self.state.value
        left_s = max(0.0, self.state_lasts_s - (time.monotonic() - self.state_began_s))
        return f"{self.state.value} {left_s:.0f} s"


class LiveView:
    """An observer that draws one row an arm and the progress of the whole; a context manager."""

    def __init__(self, console: Console, arms: Sequence[str], planned_s: float, title: str, series: Sequence[Series]) -> None:
        """Draw on `console`; `planned_s` is how long the drill should take, `series` are the rates of interest."""
        self._rates = [name for name in _RATES if name in {each.field for each in series}]
        self._work = self._rates[-1]
        self._rows = {arm: _Row() for arm in arms}
        self._planned_s = planned_s
        self._title = title
        words = [max(map(len, arms), default=0), _STATE_CHARS, *(len(f"{rate}/s") for rate in self._rates), len("100 %")]
        others = max(_OTHER_CHARS, sum(words) + 3 * (len(words) + 1))
        self._spark_chars = max(5, min(_SPARK_CHARS_MAX, (console.width - others) // 2))
        self._began_s = time.monotonic()
        self._lock = threading.Lock()
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()

    def arm_state(self, arm: str, state: ArmState, lasts_s: float | None = None) -> None:
        """Show the state and count it down."""
        with self._lock:
            row = self._rows[arm]
            row.state, row.state_began_s, row.state_lasts_s = state, time.monotonic(), lasts_s

    def arm_sample(self, arm: str, sample: Sample) -> None:
        """Show the rates."""
        with self._lock:
            row = self._rows[arm]
            row.sample = sample
            row.lines.append(sample.lines_per_s)
            row.work.append(getattr(sample, f"{self._work}_per_s"))

    def arm_done(self, arm: str, words: str) -> None:
        """Do nothing: the state says so already."""

    def _render(self) -> RenderableType:
        with self._lock:
            return Group(self._header(), self._table())

    def _header(self) -> RenderableType:
        passed_s = time.monotonic() - self._began_s
        left_s = max(0.0, self._planned_s - passed_s)
        done = sum(1 for row in self._rows.values() if row.state is ArmState.DONE)
        text = f"{done} of {len(self._rows)} arms done, {format_duration(passed_s)} passed, about {format_duration(left_s)} left"
        grid = Table.grid(padding=(0, 1))
        grid.add_row(Text(self._title, style="bold"), ProgressBar(total=self._planned_s, completed=passed_s, width=30), text)
        return grid

    def _table(self) -> RenderableType:
        table = Table(show_edge=False, pad_edge=False, header_style="dim")
        for title in ("arm", "state"):
            table.add_column(title, no_wrap=True)
        for title in (*(f"{name}/s" for name in self._rates), "CPU"):
            table.add_column(title, justify="right", no_wrap=True, min_width=max(5, len(title)))
        table.add_column(self._work, no_wrap=True, style="green")
        table.add_column("lines", no_wrap=True, style="red")
        for arm, row in self._rows.items():
            sample = row.sample
            quiet = row.state in {ArmState.WAITING, ArmState.DONE}
            numbers = [getattr(sample, f"{name}_per_s") for name in self._rates]
            rates = (*(f"{number:,.0f}" for number in numbers), f"{sample.cpu_percent:.0f} %")
            shown = ("",) * len(rates) if quiet else rates
            state = Text(row.left(), style=_STYLES.get(row.state, ""))
            sparks = [sparkline(condense(list(values), self._spark_chars)) for values in (row.work, row.lines)]
            table.add_row(arm, state, *shown, *sparks)
        return table


class PlainView:
    """An observer that prints a line at each state and every few seconds of an outage."""

    def __init__(self, console: Console, series: Sequence[Series]) -> None:
        """Print to `console`; `series` are the rates of interest."""
        self._console = console
        self._rates = [name for name in _RATES if name in {each.field for each in series}]
        self._began_s = time.monotonic()
        self._states: dict[str, ArmState] = {}
        self._printed_s: dict[str, float] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Do nothing: there is nothing to put back."""

    def arm_state(self, arm: str, state: ArmState, lasts_s: float | None = None) -> None:
        """Print the state."""
        with self._lock:
            self._states[arm] = state
            self._printed_s[arm] = time.monotonic()
        if state is not ArmState.WAITING and state is not ArmState.DONE:
            most = "up to " if state is ArmState.DRAINING else ""
            self._print(arm, state.value + (f", {most}{format_duration(lasts_s)}" if lasts_s else ""))

    def arm_sample(self, arm: str, sample: Sample) -> None:
        """Print the rates now and then while the fault lasts."""
        with self._lock:
            due = self._states.get(arm) is ArmState.OUTAGE and time.monotonic() - self._printed_s[arm] >= _PLAIN_EVERY_S
            if due:
                self._printed_s[arm] = time.monotonic()
        if due:
            rates = ", ".join(f"{getattr(sample, f'{name}_per_s'):,.0f} {name}/s" for name in self._rates)
            self._print(arm, f"{rates}, CPU {sample.cpu_percent:.0f} %")

    def arm_done(self, arm: str, words: str) -> None:
        """Print what the arm did."""
        self._print(arm, f"done: {words}")

    def _print(self, arm: str, text: str) -> None:
        passed_s = time.monotonic() - self._began_s
        self._console.print(f"[{passed_s:6.1f} s] {arm}: {text}", markup=False, highlight=False, soft_wrap=True)
