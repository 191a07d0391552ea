"""Tables, as they show themselves through the port of `outlast.extend`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from outlast.extend import Figure, SystemHealth, Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from outlast import Incident
    from outlast.extend import Act, Lag
    from outlast.tables._stores.port import TableStore
    from outlast.tables._writing.line import Line
    from outlast.tables._writing.tally import Tally


class Making(Protocol):
    """The making of tables, as far as it is shown."""

    @property
    def waiting(self) -> int: ...
    @property
    def refused(self) -> int: ...


class ShownTables:
    """Figures of one process. Read from other threads: numbers, and copies."""

    system = "tables"

    def __init__(
        self,
        store: TableStore,
        line: Line,
        tally: Tally,
        catalogue: Sized,
        known: Sized,
        making: Making,
        incident: Incident,
        *,
        is_open: Callable[[], bool],
    ) -> None:
        self.name = store.dependency.name
        self._store = store
        self._line = line
        self._tally = tally
        self._catalogue = catalogue
        self._known = known
        self._making = making
        self._incident = incident
        self._is_open = is_open

    def figures(self) -> list[Figure]:
        """Return its figures."""
        tally = self._tally
        refused = "Points that were refused, by the code of the reason."
        bodies = "Bodies of which nothing was taken, by the code of the reason."
        lost = "Points that were acknowledged before they were durable, as the sender had asked, and then were not stored."
        return [
            Figure.counter("points", "Points by their outcome.", dict(tally.points), labels=("outcome",)),
            Figure.counter("refused_points", refused, dict(tally.refusals), labels=("code",)),
            Figure.counter("refused_bodies", bodies, dict(tally.bodies_refused), labels=("code",)),
            Figure.counter("lost_points", lost, tally.lost),
            Figure.counter("late_points", "Points that were not written by their deadline.", tally.given_up),
            Figure.counter("commits", "Commits of points.", tally.commits),
            Figure.counter("rows", "Rows that were committed: points of one series and time are one.", tally.rows),
            Figure.counter("expired_points", "Points that were deleted for their age.", tally.expired),
            Figure.gauge("line_points", "Points that wait to be written.", self._line.points),
            Figure.gauge("line", "Bytes of them, about.", self._line.size_bytes, unit=Unit.BYTES),
            Figure.gauge("tables", "Tables that are known.", len(self._catalogue)),
            Figure.gauge("series_known", "Series that are remembered.", len(self._known)),
            Figure.gauge("tables_making", "Tables that are being made or changed.", self._making.waiting),
            Figure.gauge("tables_refused", "Tables whose making was refused a moment ago.", self._making.refused),
        ]

    def health(self) -> SystemHealth:
        """Return how it is. A table that cannot be made is its own affair."""
        if down := SystemHealth.waiting_for(self._store.dependency):
            return down
        incident = self._incident
        if incident.is_open:
            return SystemHealth(False, "the writer is failing", incident.first, incident.book.opened_at)
        return SystemHealth(True, "open") if self._is_open() else SystemHealth(None, "not open yet")

    def lag(self) -> Lag | None:
        """Return None: it follows nothing."""
        return None

    def acts(self) -> list[Act]:
        """Return none: what fails is cleared at the procedures."""
        return []
