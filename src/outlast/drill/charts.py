"""The pictures of a drill: lines, attempts and jobs over time, drawn as inline SVG."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.drill.result import ArmResult

_WIDTH_IN, _HEIGHT_IN = 10.0, 3.9
_OUTAGE, _INK, _FAINT = "#fbe4e0", "#334155", "#94a3b8"


@dataclass(frozen=True, slots=True)
class Series:
    """One row of the picture: which counts, in which colour, and whether its scale is logarithmic."""

    field: str
    label: str
    color: str
    log: bool


SERIES = (
    Series("lines", "log lines / s", "#c2410c", log=True),
    Series("attempts", "connects / s", "#1d4ed8", log=True),
    Series("jobs", "jobs done / s", "#15803d", log=False),
)


def rates(arm: ArmResult, series: Series) -> list[float]:
    """The counts of one series per second, for each bin."""
    counts: Sequence[int] = getattr(arm.timeline, series.field)
    return [count / arm.timeline.bin_s for count in counts]


def tops(arms: Sequence[ArmResult]) -> dict[str, float]:
    """The largest rate of each series over all arms: every panel has the same scales, so that they can be compared."""
    return {series.field: max((max(rates(arm, series), default=0.0) for arm in arms), default=0.0) for series in SERIES}


def draw(arm: ArmResult, top: dict[str, float], span_s: tuple[float, float]) -> str:
    """Draw one arm as an SVG element; `top` and `span_s` are the scales shared by all arms."""
    # matplotlib's own types stop at its keyword arguments, so from here on it is untyped.
    untyped: Any = mpl
    style = {"svg.fonttype": "none", "svg.hashsalt": arm.arm, "font.family": "sans-serif", "font.size": 9.0}
    with untyped.rc_context(style):
        figure: Any = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.03, hspace=0.06)
        figure.patch.set_alpha(0.0)
        rows: Sequence[Any] = figure.subplots(len(SERIES), 1, sharex=True)
        for axes, series in zip(rows, SERIES, strict=True):
            _draw_series(axes, arm, series, top[series.field])
        rows[-1].set_xlim(*span_s)
        rows[-1].set_xlabel("seconds since the fault began", color=_INK)
        _label_fault(rows[0], arm, span_s)
        return _svg(figure)


def _draw_series(axes: Any, arm: ArmResult, series: Series, top: float) -> None:  # noqa: ANN401  untyped
    axes.axvspan(0.0, arm.outage_s, color=_OUTAGE, linewidth=0, zorder=0)
    values = rates(arm, series)
    if arm.timeline.t_s:
        edges = [*arm.timeline.t_s, arm.timeline.t_s[-1] + arm.timeline.bin_s]
        axes.stairs(values, edges, fill=True, color=series.color, alpha=0.25, linewidth=0, zorder=2)
        axes.stairs(values, edges, color=series.color, linewidth=1.2, zorder=3)
    if series.log:
        axes.set_yscale("symlog", linthresh=1.0, linscale=0.4)
        axes.set_ylim(0.0, max(10.0, top * 2.0))
        decades = [1.0, *(10.0**power for power in range(1, 7) if 10.0**power <= max(10.0, top * 2.0))]
        axes.set_yticks(decades)
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0.0, max(1.0, top * 1.1))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.set_ylabel(series.label, color=series.color)
    axes.grid(visible=True, axis="y", color="#e2e8f0", linewidth=0.6, zorder=1)
    axes.tick_params(colors=_INK, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_FAINT)


def _label_fault(axes: Any, arm: ArmResult, span_s: tuple[float, float]) -> None:  # noqa: ANN401  untyped
    axes.annotate(
        f"fault, {arm.outage_s:.0f} s",
        xy=((max(0.0, span_s[0]) + min(arm.outage_s, span_s[1])) / 2, 1.0),
        xycoords=("data", "axes fraction"),
        ha="center",
        va="bottom",
        color="#b91c1c",
        annotation_clip=False,
    )


def _thousands(value: float, position: int | None) -> str:
    del position
    if value >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def _svg(figure: Any) -> str:  # noqa: ANN401  untyped
    buffer = io.StringIO()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    # Inside HTML only the element counts: no XML declaration, no DOCTYPE.
    return text[text.index("<svg") :]
