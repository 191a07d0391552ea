"""A stand-in for `Tables` that stores in a list, and says what a test wants; and an application on it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from outlast import Fault, Kind
from outlast.tables._http.app import TablesApp
from outlast.tables._model import Parsed, PointOutcome, PointRefusal, Written

if TYPE_CHECKING:
    from collections.abc import Collection

    from outlast.tables._tables import Tables


@dataclass
class Lines:
    """A parser that takes each line for a point, but for those that begin with "bad"."""

    units: list[int | None] = field(default_factory=list[int | None])
    threads: list[bool] = field(default_factory=list[bool])
    """Whether each body was parsed on the thread of the event loop."""

    def parse(self, body: bytes, *, unit_ns: int | None, untimed_ns: int | None = None) -> Parsed:
        self.units.append(unit_ns)
        self.threads.append(threading.current_thread() is threading.main_thread())
        lines = body.decode().splitlines()
        return Parsed(
            refused=[bad_line(number, text) for number, text in enumerate(lines, 1) if text.startswith("bad")], points=len(lines)
        )


@dataclass
class StandIn:
    """Stores nothing. `down` is what `check` raises, `refused` what `write_parsed` refuses beside bad lines."""

    lines: Lines = field(default_factory=Lines)
    down: Exception | None = None
    fails: Exception | None = None
    refused: list[PointRefusal] = field(default_factory=list[PointRefusal])
    retry_after_s: float | None = None
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def check(self) -> None:
        if self.down is not None:
            raise self.down

    def unavailable(self) -> Exception | None:
        return self.down

    async def write_parsed(self, parsed: Parsed, **asked: Any) -> Written:
        self.asked.append(asked)
        if self.fails is not None:
            raise self.fails
        refused = tuple(sorted([*parsed.refused, *self.refused], key=lambda refusal: refusal.place))
        counts = {outcome: sum(each.outcome is outcome for each in refused) for outcome in PointOutcome}
        stored = 0 if refused and asked["whole"] else parsed.points - len(refused)
        return Written(parsed.points, stored, refused, counts, self.retry_after_s)

    def app(self, databases: Collection[str] | None = None, **more: Any) -> TablesApp:
        return TablesApp(cast("Tables", self), databases=databases, **more)


def bad_line(number: int, text: str) -> PointRefusal:
    return PointRefusal(number, PointOutcome.NEVER, Fault(Kind.REJECTED, "line", f"line {number}, column 4: no field"), text)


def refusal(place: int, outcome: PointOutcome, kind: Kind, code: str, reason: str) -> PointRefusal:
    return PointRefusal(place, outcome, Fault(kind, code, reason), "cpu v=1")
