"""The pictures of a drill: what each arm did over time, drawn as inline SVG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast._drill.lab.result import ArmResult
    from outlast._drill.shown.figures import Series

_WIDTH_IN, _ROW_IN = 10.0, 1.2
_OUTAGE, _INK, _FAINT = "#fbe4e0", "#334155", "#94a3b8"


def rates(arm: ArmResult, series: Series) -> list[float]:
    """Return the counts of one series per second, for each bin."""
    counts: Sequence[float] = getattr(arm.timeline, series.field)
    return [count * series.factor / arm.timeline.bin_s for count in counts]


def tops(arms: Sequence[ArmResult], rows: Sequence[Series]) -> dict[str, float]:
    """Return the largest rate of each series over all arms: every panel has the same scales, so that they can be compared."""
    return {series.field: max((max(rates(arm, series), default=0.0) for arm in arms), default=0.0) for series in rows}


def draw(arm: ArmResult, rows: Sequence[Series], top: dict[str, float], span_s: tuple[float, float], fault: str) -> str:
    """Draw one arm as an SVG element; `top` and `span_s` are the scales shared by all arms."""
    # matplotlib's own types stop at its keyword arguments, so from here on it is untyped.
    untyped: Any = mpl
    style = {"svg.fonttype": "none", "svg.hashsalt": arm.arm, "font.family": "sans-serif", "font.size": 9.0}
    with untyped.rc_context(style):
        figure: Any = Figure(figsize=(_WIDTH_IN, 0.5 + _ROW_IN * len(rows)), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.03, hspace=0.06)
        figure.patch.set_alpha(0.0)
        panels: Sequence[Any] = figure.subplots(len(rows), 1, sharex=True)
        for axes, series in zip(panels, rows, strict=True):
            _draw_series(axes, arm, series, top[series.field], span_s[1])
        panels[-1].set_xlim(*span_s)
        panels[-1].set_xlabel("seconds since the fault began", color=_INK)
        figure.align_ylabels(panels)
        _label_fault(panels[0], f"{fault}, {arm.outage_s:.0f} s", arm, span_s)
        return _svg(figure)


def _draw_series(axes: Any, arm: ArmResult, series: Series, top: float, until_s: float) -> None:  # noqa: ANN401  untyped
    axes.axvspan(0.0, arm.outage_s, color=_OUTAGE, linewidth=0, zorder=0)
    starts_s = [start_s for start_s in arm.timeline.t_s if start_s < until_s]
    if starts_s:
        values = rates(arm, series)[: len(starts_s)]
        edges = [*starts_s, starts_s[-1] + arm.timeline.bin_s]
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


def _label_fault(axes: Any, label: str, arm: ArmResult, span_s: tuple[float, float]) -> None:  # noqa: ANN401  untyped
    axes.annotate(
        label,
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
