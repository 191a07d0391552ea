"""Queries as they are worked on: read with bounds, and what was read made into the answer of OpenTSDB."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from outlast import Fault, Kind, Unavailable
from outlast.tables._model import TIME_MAX_NS, Range
from outlast.tables._query.aggregators import NONE, Missing
from outlast.tables._query.bounds import QueryLimits, Steps, check_points, check_series
from outlast.tables._query.downsample import Fill
from outlast.tables._query.filters import literals_of
from outlast.tables._query.merge import merged
from outlast.tables._query.metrics import metric_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast.tables._model import Tags
    from outlast.tables._query.aggregators import Number, Series
    from outlast.tables._query.ask import Part, Query
    from outlast.tables._tables import Tables

MS_NS: Final = 1_000_000
HOUR_MS: Final = 3_600_000
BUSY_RETRY_S: Final = 1.0
TURN_POINTS: Final = 2_000


class QueryDeadlineError(Exception):
    """A query that took longer than it may."""


@dataclass(slots=True)
class Line:
    """The points of one series."""

    tags: Tags
    points: Series = field(default_factory=list[tuple[int, "Number"]])


class Queries:
    """Answers queries, a bounded number at a time, each with a deadline."""

    def __init__(self, tables: Tables, limits: QueryLimits) -> None:
        self._tables: Final = tables
        self.limits: Final = limits
        self._turns: Final = asyncio.Semaphore(limits.queries_max)

    async def answer(self, query: Query) -> bytes:
        """Return the answer as JSON. Raises `InvalidQueryError`, `QueryDeadlineError`, `Unavailable`."""
        deadline_s = self.limits.deadline_s
        has_turn = False
        try:
            async with asyncio.timeout(deadline_s):
                async with self._turns:
                    has_turn = True
                    return await self._worked_on(query)
        except TimeoutError:
            if has_turn:
                msg = f"the query took more than {deadline_s:g} s; ask for a shorter time, name tags, or downsample (1m-avg)"
                raise QueryDeadlineError(msg) from None
            reason = f"{self.limits.queries_max} queries are worked on already, and none ended within {deadline_s:g} s"
            raise Unavailable("queries", Fault(Kind.OVERLOADED, "queries", reason, "queries"), 0.0, BUSY_RETRY_S) from None

    async def _worked_on(self, query: Query) -> bytes:
        read = 0
        lines: list[list[Line]] = []
        for part in query.parts:
            found = await self._read(part, query, read, sum(map(len, lines)))
            read += sum(len(line.points) for line in found)
            lines.append(found)
        # Some hundred thousand values are merged and written: the event loop has other things to do meanwhile.
        return await asyncio.to_thread(_answer, query, lines, self.limits)

    async def _read(self, part: Part, query: Query, read: int, series: int) -> list[Line]:
        """Return the series of one part that its filters let in, with their points."""
        metric = await metric_of(self._tables, part.metric)
        first_ms, last_ms = reach_ms(part, query)
        each_makes = 0
        if part.downsample is not None:
            each_makes = part.downsample.count(first_ms, last_ms)
            first_ms, last_ms = part.downsample.stretch(first_ms, last_ms)
        if first_ms > last_ms:
            return []
        last_ns = min((last_ms + 1) * MS_NS - 1, TIME_MAX_NS)
        ask = Range(metric.table, (metric.field,), literals_of(part.filters), first_ms * MS_NS, last_ns)
        lines: list[Line] = []
        tags: Tags | None = None
        line: Line | None = None
        async for point in self._tables.read(ask):
            if point.tags != tags:
                tags = point.tags
                line = Line(tags) if _lets_in(part, dict(tags)) else None
                if line is not None:
                    lines.append(line)
                    check_series(series + len(lines), self.limits)
                    check_points(each_makes * (series + len(lines)), self.limits)
            read += 1
            check_points(read, self.limits)
            if read % TURN_POINTS == 0:
                # A page has more points than the event loop should go through in one turn.
                await asyncio.sleep(0)
            if line is not None:
                _add(line.points, point.time_ns // MS_NS, point.fields[metric.field])
        return lines


def reach_ms(part: Part, query: Query) -> tuple[int, int]:
    """Return the first and the last millisecond that matter to a part: whole hours, where its edges need their neighbours.

    A rate needs the point before, and a series that is merged the points on both sides of a time. OpenTSDB looks for them in the
    rows of its store, which begin with each hour: what it finds there, and no more, is found here.
    """
    start_ms, end_ms = query.start_ms, query.end_ms
    each = part.downsample
    is_filled = each is not None and (each.fill is not Fill.NONE or each.interval_ms is None)
    is_merged = part.aggregator is not NONE and part.aggregator.missing is not Missing.LEFT_OUT and not is_filled
    if part.rate is None and not is_merged:
        return start_ms, end_ms
    if each is not None:
        if each.interval_ms is None:
            return start_ms, end_ms
        start_ms -= start_ms % each.interval_ms
        end_ms += each.interval_ms - end_ms % each.interval_ms - 1
    return start_ms - start_ms % HOUR_MS, end_ms - end_ms % HOUR_MS + HOUR_MS - 1


def _add(points: Series, at_ms: int, value: Any) -> None:  # noqa: ANN401 - a number, by the type of its field
    """Add a point. Of several in one millisecond, the finest time of a query, the last one stands."""
    if points and points[-1][0] == at_ms:
        points[-1] = (at_ms, value)
    else:
        points.append((at_ms, value))


def _lets_in(part: Part, tags: Mapping[str, str]) -> bool:
    if part.explicit_tags and set(tags) != {each.tag for each in part.filters}:
        return False
    return all(each.matches(tags) for each in part.filters)


def _answer(query: Query, lines: list[list[Line]], limits: QueryLimits) -> bytes:
    steps = Steps(limits)
    answers = [
        made
        for place, (part, found) in enumerate(zip(query.parts, lines, strict=True))
        for group in _groups(part, found)
        if (made := _made(query, part, group, place, steps)) is not None
    ]
    return json.dumps(answers, separators=(",", ":")).encode()


def _groups(part: Part, lines: list[Line]) -> list[list[Line]]:
    """Return the series that become one each: by the values of the tags of filters that make groups."""
    if part.aggregator is NONE:
        return [[line] for line in lines]
    names = sorted({each.tag for each in part.filters if each.group_by})
    groups: dict[tuple[str | None, ...], list[Line]] = {}
    for line in lines:
        tags = dict(line.tags)
        groups.setdefault(tuple(tags.get(name) for name in names), []).append(line)
    return list(groups.values())


def _made(query: Query, part: Part, group: list[Line], place: int, steps: Steps) -> dict[str, Any] | None:
    """Return one series of the answer; None if it has no points, as those of OpenTSDB that are left out."""
    each = [line.points for line in group]
    first_ms, last_ms = reach_ms(part, query)
    if part.downsample is not None:
        each = [part.downsample(points, first_ms, last_ms) for points in each]
    if part.rate is not None:
        each = [part.rate(points) for points in each]
    if part.aggregator is NONE:
        points = each[0]
    else:
        points = merged(each, part.aggregator, steps, missing=None if part.rate is None else Missing.PREVIOUS)
    points = [point for point in points if query.start_ms <= point[0] <= query.end_ms]
    if not points:
        return None
    tags, apart = _common_tags([line.tags for line in group])
    answer: dict[str, Any] = {"metric": part.metric, "tags": tags, "aggregateTags": apart}
    if query.show_query:
        answer["query"] = {**part.shown, "index": place}
    shown = [(at_ms if query.in_ms else at_ms // 1_000, _shown(value, part)) for at_ms, value in points]
    answer["dps"] = shown if query.as_arrays else {str(at): value for at, value in shown}
    return answer


def _shown(value: Number, part: Part) -> Number | str | None:
    """Return a value as JSON has it: NaN is null where the query says so, else a text, as in OpenTSDB."""
    if isinstance(value, int) or math.isfinite(value):
        return value
    if math.isnan(value):
        return None if part.downsample is not None and part.downsample.fill.value == "null" else "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _common_tags(all_tags: list[Tags]) -> tuple[dict[str, str], list[str]]:
    """Return the tags that all series share with their value, and the names of the other tags, sorted."""
    shared = set(all_tags[0]).intersection(*all_tags[1:])
    names = {name for tags in all_tags for name, _ in tags}
    return dict(sorted(shared)), sorted(names - {name for name, _ in shared})
