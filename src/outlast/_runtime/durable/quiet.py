"""The end of incidents whose work fails one by one, so that the success of another piece does not end them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from outlast._runtime.dependency.incident import Incident

QUIET_S: Final = 900.0
"""An incident ends after this time without a fault: no sooner than its reminder would come, so that folding still folds."""


class Quiet:
    """Close incidents in which nothing has happened for `QUIET_S`. Called with the time, on the event loop's thread."""

    def __init__(self, *incidents: Incident) -> None:
        self._seen: dict[Incident, tuple[int, float]] = dict.fromkeys(incidents, (0, 0.0))

    def look(self, now: float) -> None:
        """Close those that have been quiet."""
        for incident, (count, since) in self._seen.items():
            faults = incident.book.faults
            if not incident.is_open or faults != count:
                self._seen[incident] = (faults, now)
            elif now - since >= QUIET_S:
                incident.resolve()

    def end(self) -> None:
        """Cancel all reminders: the service ends."""
        for incident in self._seen:
            incident.forget_timer()
