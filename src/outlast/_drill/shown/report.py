"""The report of a drill: one HTML file that needs nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from outlast._drill.shown import charts
from outlast._drill.shown.figures import facts, promise_line, verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from outlast._drill.lab.drills import Drill
    from outlast._drill.lab.result import A, ArmResult, DrillResult

_LOG_LINES_SHOWN = 12


def render_report(drill: Drill[Any, A], result: DrillResult[A]) -> str:
    """Return the report as HTML text."""
    environment = Environment(
        loader=PackageLoader("outlast._drill.shown", "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    top, span_s = charts.tops(result.arms, drill.series), _span(result.arms)
    panels = [
        {
            "arm": arm,
            "words": drill.describe(arm),
            "picture": Markup(charts.draw(arm, drill.series, top, span_s, result.fault)),  # noqa: S704  drawn by us from numbers
            "first": arm.log_first[:_LOG_LINES_SHOWN],
            "last": _last_lines(arm),
        }
        for arm in result.arms
    ]
    return environment.get_template("report.html.j2").render(
        result=result,
        panels=panels,
        columns=drill.columns,
        proven=drill.proven,
        rows=[(arm, [column.cell(arm) for column in drill.columns]) for arm in result.arms],
        logarithmic=", ".join(series.label for series in drill.series if series.log),
        measured=drill.measured,
        facts=list(facts(drill, result)),
        promises=[(promise, promise_line(promise)) for promise in result.promises],
        verdict=verdict(result),
    )


def write_report(drill: Drill[Any, A], result: DrillResult[A], path: Path) -> None:
    """Write the report; the directory must exist."""
    path.write_text(render_report(drill, result), encoding="utf-8")


def _span(arms: Sequence[ArmResult]) -> tuple[float, float]:
    """Return the seconds to show, the same for every arm so that the panels line up: from the start until no more work comes."""
    starts = [arm.timeline.t_s[0] for arm in arms if arm.timeline.t_s]
    # Whole bins only: the last one also has what the request to stop brought about.
    ends = [arm.fed_until_s // arm.timeline.bin_s * arm.timeline.bin_s for arm in arms]
    return min(starts, default=0.0), max(ends, default=1.0)


def _last_lines(arm: ArmResult) -> tuple[str, ...]:
    hidden = arm.lines_total - len(arm.log_first)
    if hidden > 0:
        return arm.log_last[-_LOG_LINES_SHOWN:]
    # Few lines: all of them are in log_first, and what was not shown yet is its rest.
    return arm.log_first[_LOG_LINES_SHOWN:][-_LOG_LINES_SHOWN:]
