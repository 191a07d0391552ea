"""The parser of bodies in InfluxDB's line protocol."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from outlast import Fault, Kind, Scope
from outlast.tables._lines.checks import wrong_time
from outlast.tables._lines.line import Body, LineError, head_end, head_of, read_body, read_head
from outlast.tables._lines.plans import Plan, Plans, Tried
from outlast.tables._lines.recent import Recent
from outlast.tables._lines.units import guessed_unit
from outlast.tables._model import TIME_MAX_NS, TIME_MIN_NS, Parsed, PointOutcome, PointRefusal, Rows, Series

if TYPE_CHECKING:
    from outlast.tables._series import KnownSeries

HEADS_KEPT: Final = 200_000
"""Heads (table and tags, as text) whose series is remembered, some 200 bytes each."""
REFUSED_KEPT: Final = 1_000
"""Refusals of one body that are told one by one; of those beyond them only the number is kept."""
TEXT_CHARACTERS_MAX: Final = 200
_UNKNOWN: Final = (Series("", ()), Tried())
_BOM: Final = b"\xef\xbb\xbf"
# One line: a comment ends at its newline; else a backslash takes the next character with it, and a string after "=" in the
# fields may hold newlines. A string that nobody closes goes on to the end of the body, as in InfluxDB.
_LINE: Final = re.compile(
    r"""([ \t]*+(?:\#[^\n]*+
    |[^ \n\\]*+(?:\\.?+[^ \n\\]*+)*+
    (?:[ ][^\n=\\]*+(?:(?:\\.?+|=(?:"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?+\Z))?+)[^\n=\\]*+)*+)?+))(?:\n|\Z)""",
    re.DOTALL | re.VERBOSE,
)


Sink: TypeAlias = tuple[list[list[Any]], list[int]]


class LineParser:
    """Parses bodies of lines; what it has learnt of heads and shapes makes the next ones quick.

    A line goes the fast way where its head is known and one of the patterns of its table fits the rest, and the slow one
    otherwise; both read the same of it.
    """

    def __init__(self, known: KnownSeries) -> None:
        self._known: Final = known
        self._heads: Final = Recent[str, tuple[Series, Tried]](HEADS_KEPT)
        self._plans: Final = Plans()

    def parse(self, body: bytes, *, unit_ns: int | None, untimed_ns: int | None = None) -> Parsed:
        """Parse a body whose times have this unit; None: guessed by size, time by time.

        A line without a time gets `untimed_ns`. Never raises for what a body holds: `refused` has the first 1,000 bad lines with
        line and column, and `points` counts them all. Bytes that are no UTF-8 are refused with their line. May be called by
        several threads at once.
        """
        reading = _Reading(self._known, self._heads, self._plans, unit_ns, untimed_ns)
        return reading.read(body.removeprefix(_BOM).decode("utf-8", "surrogateescape"))


class _Reading:
    """One body while it is read."""

    def __init__(
        self,
        known: KnownSeries,
        heads: Recent[str, tuple[Series, Tried]],
        plans: Plans,
        unit_ns: int | None,
        untimed_ns: int | None,
    ) -> None:
        self._known: Final = known
        self._heads: Final = heads
        self._plans: Final = plans
        self._unit_ns: Final = unit_ns
        self._untimed_ns: Final = untimed_ns
        self._rows: Final[list[Rows]] = []
        self._sinks: Final[dict[Plan, Sink]] = {}
        self._refused: Final[list[PointRefusal]] = []
        self._refused_count = 0

    def read(self, text: str) -> Parsed:
        """Read a whole body."""
        lines = _cut(text.split("\n"), text)
        place = self._read_lines(lines, 0, is_exact='"' not in text and "\\" not in text)
        if place < len(lines):
            self._read_lines(_borders(text, place), place, is_exact=True)
        points = sum(len(rows.rows) for rows in self._rows) + self._refused_count
        return Parsed(self._rows, self._refused, points)

    def _read_lines(self, lines: list[str], place: int, *, is_exact: bool) -> int:
        """Read lines, the first of which follows on line `place`, and return the number of the last one that was read.

        Where a line may be the beginning of a longer one (`is_exact` is false), this ends before the first that has to be read
        slowly and may be open: what the fast way takes is whole.
        """
        heads, sinks, untimed_ns, unit_ns = self._heads, self._sinks, self._untimed_ns, self._unit_ns
        # The guess of a unit never leads out of range, so that for "auto" the bounds are those of nanoseconds.
        first, last = -(-TIME_MIN_NS // (unit_ns or 1)), TIME_MAX_NS // (unit_ns or 1)
        for line in lines:
            place += 1
            head, _, rest = line.partition(" ")
            entry = heads.young.get(head)
            if entry is None:
                if not line:
                    continue
                entry, rest = self._find_head(line, head, rest)
            series, tried = entry
            plan = tried.last
            found = plan.match(rest)
            if found is None:
                plan, found = tried.find(rest)
            row = None
            if found is not None:
                texts = found.groups()
                stamp = texts[-1]
                try:
                    if stamp is None:
                        row = plan.row(series, untimed_ns, texts)
                    elif first <= (time := int(stamp)) <= last:
                        row = plan.row(series, time * (unit_ns or guessed_unit(time)), texts)
                except ValueError:
                    pass  # A float with several points, which the slow way finds again.
            if row is not None:
                sink = sinks.get(plan) or self._sink(plan)
                sink[0].append(row)
                sink[1].append(place)
            elif is_exact or ('"' not in line and "\\" not in line):
                self._read_line(line, place)
            else:
                return place - 1
        return place

    def _find_head(self, line: str, head: str, rest: str) -> tuple[tuple[Series, Tried], str]:
        """Look further for a head: one that holds an escaped space, or that was not used of late."""
        if head[-1:] == "\\" and (end := head_end(line, len(head) + 1)) > 0:
            head, rest = line[:end], line[end + 1 :]
        return self._heads.get(head) or _UNKNOWN, rest

    def _sink(self, plan: Plan) -> Sink:
        """Return what takes rows of a plan, and their places."""
        sink = self._sinks.get(plan.base)
        if sink is None:
            sink = self._sinks[plan.base] = ([], [])
            self._rows.append(Rows(plan.table, plan.names, plan.types, *sink))
        if plan.base is not plan:
            self._sinks[plan] = sink
        return sink

    def _read_line(self, line: str, place: int) -> None:
        """Read one line the slow way, and learn its head and its shape."""
        if line.lstrip(" \t")[:1] in {"", "#"}:
            return
        try:
            series, tried, body, time_ns = self._point_of(line)
        except LineError as wrong:
            self._refuse(line, place, wrong)
            return
        plan = self._plans.of(series.table, body.names, body.kinds)
        self._plans.note(plan, tried)
        rows, places = self._sinks.get(plan) or self._sink(plan)
        rows.append([series, time_ns, *body.values])
        places.append(place)

    def _point_of(self, line: str) -> tuple[Series, Tried, Body, int | None]:
        start, end = head_of(line)
        head = line[start:end]
        known = self._heads.get(head)
        if known is None:
            series = self._known.get(*read_head(head, start))
            known = (series, self._plans.tried(series.table))
            self._heads.put(head, known)
        body = read_body(line, end)
        if body.time is None:
            return *known, body, self._untimed_ns
        time_ns = body.time * (self._unit_ns or guessed_unit(body.time))
        if reason := wrong_time(time_ns):
            raise LineError(body.time_at, reason)
        return *known, body, time_ns

    def _refuse(self, line: str, place: int, wrong: LineError) -> None:
        self._refused_count += 1
        if len(self._refused) < REFUSED_KEPT:
            reason = f"line {place}, column {wrong.column + 1}: {wrong.reason}"
            fault = Fault(Kind.REJECTED, "line", reason, scope=Scope.CALL)
            self._refused.append(PointRefusal(place, PointOutcome.NEVER, fault, _clean(line[:TEXT_CHARACTERS_MAX])))


def _clean(text: str) -> str:
    """Return text that can be encoded: a lone surrogate, which stands for a byte that is no UTF-8, becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _borders(text: str, place: int) -> list[str]:
    """Split a text after its first `place` newlines, each the end of a line, into lines that may hold newlines.

    After one that does stand as many empty ones, so that an index is a number of a line.
    """
    start = sum(len(line) + 1 for line in text.split("\n", place)[:place])
    lines: list[str] = []
    for line in _LINE.findall(text, start):
        lines.append(line)
        if "\n" in line:
            lines += [""] * line.count("\n")
    return _cut(lines, text)


def _cut(lines: list[str], text: str) -> list[str]:
    return [line.removesuffix("\r") for line in lines] if "\r" in text else lines
