"""The log lines of procedures that fail: folded, one incident for all attempts and one for each cause."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from outlast import Incident
from outlast.extend import Quiet, cut
from outlast.procedures._decisions.causes import CauseNews

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outlast import Fault
    from outlast.procedures._decisions.cause import Cause
    from outlast.procedures._decisions.causes import CauseEvent
    from outlast.procedures._model import ProcedureRecord

KEY_CHARS_MAX: Final = 100
"""Of a key in a line."""


class Failures:
    """Incidents, however many keys fail and are submitted: a line for the first of each fault, reminders, exact counts.

    On the event loop's thread only.
    """

    def __init__(self) -> None:
        self.steps = Incident("procedures", verb="are failing")
        self.undos = Incident("procedures undo", verb="is failing")
        self.changed = Incident("procedures", verb="have other steps than those recorded")
        self._causes: dict[Cause, Incident] = {}
        self._quiet = Quiet(self.steps, self.undos, self.changed)

    def step(self, record: ProcedureRecord, step: str, fault: Fault, exc: BaseException | None) -> None:
        """Count a failed attempt at a step."""
        self.steps.fault(_placed(fault, record, f"step {step}"), exc)

    def undo(self, record: ProcedureRecord, step: str, fault: Fault, exc: BaseException | None) -> None:
        """Count a failed attempt at an undo."""
        self.undos.fault(_placed(fault, record, f"undo of step {step}"), exc)

    def unreadable(self, record: ProcedureRecord, fault: Fault) -> None:
        """Count a record whose steps are not those of this code."""
        self.changed.fault(_placed(fault, record, "nothing is run"))

    def of_causes(self, events: Iterable[CauseEvent]) -> None:
        """Write what has happened to causes."""
        for what, cause, fault in events:
            match what:
                case CauseNews.OPENED:
                    incident = Incident(
                        f"procedures {cause.kind}", verb=f"wait for a cause in step {cause.step} that is not theirs"
                    )
                    self._causes[cause] = incident
                    incident.fault(fault)
                case CauseNews.FAILED | CauseNews.BACK:
                    if cause in self._causes:
                        self._causes[cause].fault(fault)
                case CauseNews.GONE | CauseNews.TOLD:
                    if cause in self._causes:
                        self._causes[cause].better()
                case CauseNews.OVER:
                    incident_over = self._causes.pop(cause, None)
                    if incident_over is not None:
                        incident_over.resolve()

    @property
    def causes(self) -> list[Incident]:
        """The incidents of the causes that are open."""
        return list(self._causes.values())

    def look(self, now: float) -> None:
        """Close those that have been quiet."""
        self._quiet.look(now)

    def end(self) -> None:
        """Cancel all reminders: the service ends."""
        self._quiet.end()
        for incident in self._causes.values():
            incident.forget_timer()


def _placed(fault: Fault, record: ProcedureRecord, where: str) -> Fault:
    return replace(fault, reason=f"{cut(record.key, KEY_CHARS_MAX)}, {where}: {fault.reason}")
