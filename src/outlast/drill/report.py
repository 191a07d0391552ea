"""The report of a drill: one HTML file that needs nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from outlast.drill import charts
from outlast.drill.arm_words import describe
from outlast.drill.figures import COLUMNS, cells, facts, promise_line, verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from outlast.drill.result import ArmResult, DrillResult

_LOG_LINES_SHOWN = 12


def render_report(result: DrillResult) -> str:
    """The report as HTML text."""
    environment = Environment(
        loader=PackageLoader("outlast.drill", "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    top, span_s = charts.tops(result.arms), _span(result.arms)
    panels = [
        {
            "arm": arm,
            "words": describe(arm),
            "picture": Markup(charts.draw(arm, top, span_s)),  # noqa: S704  drawn by us from numbers
            "first": arm.log_first[:_LOG_LINES_SHOWN],
            "last": _last_lines(arm),
        }
        for arm in result.arms
    ]
    return environment.get_template("report.html.j2").render(
        result=result,
        panels=panels,
        columns=COLUMNS,
        rows=[(arm, cells(arm)) for arm in result.arms],
        facts=list(facts(result)),
        promises=[(promise, promise_line(promise)) for promise in result.promises],
        verdict=verdict(result),
    )


def write_report(result: DrillResult, path: Path) -> None:
    """Write the report; the directory must exist."""
    path.write_text(render_report(result), encoding="utf-8")


def _span(arms: Sequence[ArmResult]) -> tuple[float, float]:
    """The seconds to show, the same for every arm so that the panels line up: from the start until the queue runs dry."""
    starts = [arm.timeline.t_s[0] for arm in arms if arm.timeline.t_s]
    return min(starts, default=0.0), max((arm.fed_until_s for arm in arms), default=1.0)


def _last_lines(arm: ArmResult) -> tuple[str, ...]:
    hidden = arm.lines_total - len(arm.log_first)
    if hidden > 0:
        return arm.log_last[-_LOG_LINES_SHOWN:]
    # Few lines: all of them are in log_first, and what was not shown yet is its rest.
    return arm.log_first[_LOG_LINES_SHOWN:][-_LOG_LINES_SHOWN:]
