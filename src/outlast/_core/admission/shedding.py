"""The log lines of refusals: one when a reason begins to refuse, reminders, one when it is over. Never one a refusal.

How many lines there are depends on how long it lasts, and on how many of the five reasons refuse; never on how often.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from outlast._core.admission.told import AGREED, HINTS, told
from outlast._core.incidents import Line, Reminders
from outlast._core.reaction import INFO, RULES, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast._core.admission.values import Reason, Refusal

QUIET_S: Final = 30.0
"""A reason that has refused nothing for this time no longer refuses: a burst a second is one spell, and not sixty a minute."""


@dataclass(slots=True)
class Shed:
    """One spell in which one reason refuses work."""

    first: Refusal
    opened_at: float
    last_at: float
    """The time of its last refusal."""
    remind_at: float
    interval_s: float
    count: int = 1

    @property
    def next_at(self) -> float:
        """The time at which there may be something to say about it."""
        return min(self.remind_at, self.last_at + QUIET_S)


class Shedding:
    """Counts the refusals of one admission and decides what to log: it takes the time and returns lines, and writes nothing."""

    def __init__(self, subject: str, reminders: Reminders | None = None) -> None:
        self._subject = subject
        self._reminders = reminders or Reminders()
        # By the value of the reason, whose hash is at hand: that of a member of an enumeration is computed in Python each time.
        self._open: dict[str, Shed] = {}

    @property
    def open(self) -> list[Shed]:
        """The spells of the reasons that refuse now, at most five, the first one first. Copied in one step, for other threads."""
        return list(self._open.values())

    def since(self, reason: Reason) -> float | None:
        """Return when the present spell of a reason began; None if it does not refuse now."""
        shed = self._open.get(reason.value)
        return None if shed is None else shed.opened_at

    @property
    def next_at(self) -> float | None:
        """The time at which `due` is to be asked again; None while nothing is refused."""
        return min((shed.next_at for shed in self._open.values()), default=None)

    def refused(self, refusal: Refusal, now: float) -> Line | None:
        """Count a refusal; return a line for the first of a spell."""
        shed = self._open.get(refusal.reason._value_)
        if shed is not None:
            shed.count += 1
            shed.last_at = now
            return None
        interval_s = self._reminders.first_s
        self._open[refusal.reason.value] = shed = Shed(refusal, now, now, now + interval_s, interval_s)
        reason = refusal.reason
        text = f"{self._subject} refuses work by {reason.value}: {told(refusal)} - {HINTS[reason]}"
        return self._line(shed, _level(reason), text, now)

    def due(self, now: float) -> Iterator[Line]:
        """Yield the reminders that are due and the ends of spells. Call it when `next_at` has come."""
        for shed in self.open:
            if now >= shed.last_at + QUIET_S:
                yield self._end(shed, now)
            elif now >= shed.remind_at:
                shed.interval_s = min(self._reminders.cap_s, shed.interval_s * self._reminders.factor)
                shed.remind_at = now + shed.interval_s
                text = (
                    f"{self._subject} still refuses work by {shed.first.reason.value} after {now - shed.opened_at:.0f} s: "
                    f"{shed.count:,} refused"
                )
                yield self._line(shed, _level(shed.first.reason), text, now)

    def end(self, now: float) -> Iterator[Line]:
        """Yield the last line of every spell that is still open: the service ends."""
        for shed in self.open:
            yield self._end(shed, now)

    def _end(self, shed: Shed, now: float) -> Line:
        reason = shed.first.reason.value
        del self._open[reason]
        lasted_s = shed.last_at - shed.opened_at
        text = f"{self._subject} no longer refuses work by {reason}: {shed.count:,} refused in {lasted_s:.1f} s"
        return self._line(shed, INFO, text, now)

    def _line(self, shed: Shed, level: int, text: str, now: float) -> Line:
        fields = {
            "outlast.subject": self._subject,
            "outlast.code": shed.first.reason.value,
            "outlast.count": shed.count,
            "outlast.since_s": round(now - shed.opened_at, 3),
        }
        return Line(level, text, fields)


def _level(reason: Reason) -> int:
    return INFO if reason in AGREED else RULES[Kind.OVERLOADED].level
