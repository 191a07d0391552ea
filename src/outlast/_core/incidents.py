"""The book of one incident: few lines, exact counts, nothing distinct hidden.

It writes a line when it opens, one for each *new* distinct fault, reminders at growing intervals, one
when things look better and one when it is resolved. How many lines that makes depends on the time it
lasts and on how many different things went wrong, never on how often.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from outlast._core.once import Once
from outlast._core.reaction import INFO, WARNING, Kind, Reaction
from outlast._core.redact import clean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast._core.faults import Fault


@dataclass(frozen=True, slots=True)
class Line:
    """One log line to be written: stdlib level number, text, and fields for structured logs."""

    level: int
    text: str
    fields: Mapping[str, object] = field(default_factory=dict[str, object])
    with_traceback: bool = False
    """Whether the writer should add the traceback of the exception at hand."""


@dataclass(frozen=True, slots=True)
class Reminders:
    """The times at which an open incident reminds: first after `first_s`, then at intervals that grow by `factor`.

    The defaults remind at 30 s, 1.5 min, 3.5 min, 7.5 min, 15.5 min and then every 15 min: one line for an outage of a
    minute, six in half an hour.
    """

    first_s: float = 30.0
    factor: float = 2.0
    cap_s: float = 900.0


@dataclass(slots=True)
class Distinct:
    """One distinct fault of an incident: how often it happened, and when first."""

    fault: Fault
    first_at: float
    count: int = 0


@dataclass(slots=True)
class IncidentBook:
    """Counts the faults of one subject (a dependency or a loop) and says what to log.

    Methods take the time and return a `Line` or None; they never log. There is no lock here: the caller has one. At
    most `distinct_max` different faults are kept by name; those beyond are counted exactly, in `others`.
    """

    subject: str
    verb: str = "is down"
    """The state of the subject while the incident is open: "is down", "is failing"."""
    reminders: Reminders = field(default_factory=Reminders)
    distinct_max: int = 32
    opened_at: float | None = None
    first: Fault | None = None
    faults: int = 0
    others: int = 0
    refused: int = 0
    """Callers who were turned away, or sent to wait, without costing the dependency anything."""
    relapses: int = 0
    distinct: dict[tuple[str, Kind, str], Distinct] = field(default_factory=dict[tuple[str, Kind, str], Distinct])
    better_at: float | None = None
    remind_at: float | None = None
    interval_s: float = 0.0
    incidents: int = 0
    """The number of incidents that this book has opened."""
    told_better: Once = field(default_factory=Once)
    """Said once an incident, by its number."""

    @property
    def is_open(self) -> bool:
        """Whether an incident is open."""
        return self.opened_at is not None

    def fault(self, fault: Fault, now: float) -> Line | None:
        """Count a fault; return a line for the first of the incident, for each new distinct one, and for each FATAL one."""
        if self.opened_at is None:
            return self._open(fault, now)
        self.faults += 1
        known = self.distinct.get(fault.key)
        if known is not None:
            known.count += 1
            # Rule 3: CRITICAL is never folded away.
            return None if fault.is_folded else self._line(fault, f"{self.subject}: {tell(fault)}")
        if len(self.distinct) < self.distinct_max:
            self.distinct[fault.key] = Distinct(fault, now, 1)
            return self._line(fault, f"{self.subject}: also {tell(fault)}")
        self.others += 1
        if not fault.is_folded:
            return self._line(fault, f"{self.subject}: {tell(fault)}")
        if self.others == 1:
            text = f"{self.subject}: more than {self.distinct_max} different faults; others are only counted"
            return Line(WARNING, text, self._fields(now))
        return None

    def _open(self, fault: Fault, now: float) -> Line:
        self.incidents += 1
        self.opened_at, self.first, self.better_at = now, fault, None
        self.faults, self.others, self.refused, self.relapses = 1, 0, 0, 0
        self.distinct = {fault.key: Distinct(fault, now, 1)}
        self.interval_s = self.reminders.first_s
        self.remind_at = now + self.interval_s
        return self._line(fault, f"{self.subject} {self.verb}: {tell(fault)}")

    def better(self, now: float) -> Line | None:
        """Note that things look better: said once an incident, since it may be wrong."""
        if self.opened_at is None or self.better_at is not None:
            return None
        self.better_at = now
        if not self.told_better.news(self.incidents):
            return None
        text = f"{self.subject} is back after {now - self.opened_at:.1f} s ({self._counts()}); watching it"
        return Line(INFO, text, self._fields(now))

    def worse(self) -> None:
        """Note a relapse. It is counted, and part of the next reminder."""
        if self.better_at is not None:
            self.better_at = None
            self.relapses += 1

    def remind(self, now: float) -> Line | None:
        """Return the reminder if one is due. Call it when `remind_at` has come."""
        if self.opened_at is None or self.remind_at is None or now < self.remind_at:
            return None
        self.interval_s = min(self.reminders.cap_s, self.interval_s * self.reminders.factor)
        self.remind_at = now + self.interval_s
        if self.first is None or (self.better_at is not None and not self.relapses):
            return None
        text = (
            f"{self.subject} still {self.verb.removeprefix('is ')} after {now - self.opened_at:.0f} s "
            f"({self._counts()}); first cause {tell(self.first, hint=False)}"
        )
        return Line(WARNING, text, self._fields(now))

    def resolve(self, now: float) -> Line | None:
        """Close the incident after sustained health."""
        if self.opened_at is None or self.first is None:
            return None
        ended = now if self.better_at is None else self.better_at
        text = (
            f"{self.subject} resolved: out for {ended - self.opened_at:.1f} s ({self._counts()}), "
            f"healthy for {now - ended:.0f} s; first cause {tell(self.first, hint=False)}"
        )
        line = Line(INFO, text, self._fields(now))
        self.opened_at = self.first = self.remind_at = self.better_at = None
        return line

    def summary(self, now: float) -> str | None:
        """Return half a sentence about what is still open, for the last line of a service; None when all is well."""
        if self.opened_at is None:
            return None
        state = "recovering" if self.better_at is not None else self.verb.removeprefix("is ")
        return f"{self.subject} {state} since {now - self.opened_at:.1f} s ({self._counts()})"

    def _counts(self) -> str:
        parts = [f"{self.faults} fault{'s' * (self.faults != 1)}"]
        if len(self.distinct) > 1:
            codes = ", ".join(f"{seen.fault.code} x{seen.count}" for seen in list(self.distinct.values())[:6])
            parts.append(codes + (f", {len(self.distinct) - 6} more" if len(self.distinct) > 6 else ""))
        if self.others:
            parts.append(f"others x{self.others}")
        if self.refused:
            parts.append(f"{self.refused} waited or refused")
        if self.relapses:
            parts.append(f"{self.relapses} relapse{'s' * (self.relapses != 1)}")
        return ", ".join(parts)

    def _line(self, fault: Fault, text: str) -> Line:
        fields = {"outlast.kind": fault.kind.value, "outlast.code": fault.code, "outlast.source": fault.source}
        return Line(fault.level, text, fields, with_traceback=fault.reaction is Reaction.RESTART)

    def _fields(self, now: float) -> dict[str, object]:
        since_s = 0.0 if self.opened_at is None else now - self.opened_at
        return {
            "outlast.subject": self.subject,
            "outlast.count": self.faults,
            "outlast.since_s": round(since_s, 3),
            "outlast.refused": self.refused,
        }


def tell(fault: Fault, *, hint: bool = True) -> str:
    """Return the fault as a phrase: kind, code, reason and, unless `hint` is false, the hint for the operator."""
    reason = clean(fault.reason)
    said = reason if fault.code in reason else f"{fault.code} {reason}"
    text = f"{fault.kind.name} {said}"
    return f"{text} - {clean(fault.hint)}" if hint and fault.hint else text
