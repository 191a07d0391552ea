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
        self.open: dict[Reason, Shed] = {}
        """The reasons that refuse now; at most five."""

    @property
    def next_at(self) -> float | None:
        """The time at which `due` is to be asked again; None while nothing is refused."""
        return min((shed.next_at for shed in self.open.values()), default=None)

    def refused(self, refusal: Refusal, now: float) -> Line | None:
        """Count a refusal; return a line for the first of a spell."""
        shed = self.open.get(refusal.reason)
        if shed is not None:
            shed.count += 1
            shed.last_at = now
            return None
        interval_s = self._reminders.first_s
        self.open[refusal.reason] = shed = Shed(refusal, now, now, now + interval_s, interval_s)
        reason = refusal.reason
        text = f"{self._subject} refuses work by {reason.value}: {told(refusal)} - {HINTS[reason]}"
        return Line(_level(reason), text, self._fields(reason, shed, now))

    def due(self, now: float) -> Iterator[Line]:
        """Yield the reminders that are due and the ends of spells. Call it when `next_at` has come."""
        for reason, shed in list(self.open.items()):
            if now >= shed.last_at + QUIET_S:
                yield self._end(reason, now)
            elif now >= shed.remind_at:
                shed.interval_s = min(self._reminders.cap_s, shed.interval_s * self._reminders.factor)
                shed.remind_at = now + shed.interval_s
                text = (
                    f"{self._subject} still refuses work by {reason.value} after {now - shed.opened_at:.0f} s: "
                    f"{shed.count:,} refused"
                )
                yield Line(_level(reason), text, self._fields(reason, shed, now))

    def end(self, now: float) -> Iterator[Line]:
        """Yield the last line of every spell that is still open: the service ends."""
        for reason in list(self.open):
            yield self._end(reason, now)

    def _end(self, reason: Reason, now: float) -> Line:
        shed = self.open.pop(reason)
        lasted_s = shed.last_at - shed.opened_at
        text = f"{self._subject} no longer refuses work by {reason.value}: {shed.count:,} refused in {lasted_s:.1f} s"
        return Line(INFO, text, self._fields(reason, shed, now))

    def _fields(self, reason: Reason, shed: Shed, now: float) -> dict[str, object]:
        return {
            "outlast.subject": self._subject,
            "outlast.code": reason.value,
            "outlast.count": shed.count,
            "outlast.since_s": round(now - shed.opened_at, 3),
        }


def _level(reason: Reason) -> int:
    return INFO if reason in AGREED else RULES[Kind.OVERLOADED].level
