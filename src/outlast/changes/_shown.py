"""A stream of changes, shown to those who run it through the port of `outlast.extend`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlast.changes._slot.monitor import fault_of
from outlast.changes._slot.watch import SlotState
from outlast.extend import Act, Figure, Lag, SystemHealth, Unit
from outlast.postgres.ownership import StandbyState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast.changes._stream import Changes

TROUBLES: Final = frozenset({SlotState.ENDANGERED, SlotState.LOST})
OWNERSHIP: Final = {
    StandbyState.OWNER: SystemHealth(True, "owner"),
    StandbyState.WAITING: SystemHealth(True, "standing by"),
    StandbyState.IDLE: SystemHealth(None, "not connected"),
    StandbyState.LOST: SystemHealth(None, "not connected"),
}


class ShownChanges:
    """One stream to those who run it. What the server says of the slot is the monitor's newest report, shown with its age."""

    system = "changes"

    def __init__(self, changes: Changes) -> None:
        self._changes = changes

    @property
    def name(self) -> str:
        """The name of the stream."""
        return self._changes.name

    # All of it from any thread: each value is one attribute, replaced whole by the event loop's thread.

    def figures(self) -> list[Figure]:
        """Return what this process did, where it stands, and how the slot is doing."""
        return [*self._of_session(), *self._of_ownership(), *self._of_slot()]

    def _of_session(self) -> Iterator[Figure]:
        changes = self._changes
        positions = changes.positions
        yield Figure.counter(
            "received_changes", "Changes given to the sink; after a broken session some twice.", changes.received
        )
        yield Figure.counter("delivered_transactions", "Transactions the sink made durable.", changes.delivered)
        yield Figure.counter(
            "skipped_transactions", "Transactions the sink refused and the quarantine has.", changes.poison.skipped
        )
        yield Figure.gauge("confirmed_lsn", "Everything up to here is durable; a byte position.", positions.confirmable)
        yield Figure.gauge("received_lsn", "The end of the newest transaction that came; a byte position.", positions.received)
        rows = sum(table.rows for table in changes.snapshot)
        yield Figure.gauge("snapshot_rows", "Rows read by the initial snapshot, if this process made one.", rows)

    def _of_ownership(self) -> Iterator[Figure]:
        changes = self._changes
        yield Figure.states("ownership", "Whether this process owns the stream or stands by.", changes.ownership)
        yield Figure.gauge("epoch", "The number under which this process owns the stream, or owned it last.", changes.epoch)

    def _of_slot(self) -> Iterator[Figure]:
        monitor = self._changes.monitor
        report = monitor.report
        yield Figure.states("slot_state", "How the slot is doing: 1 for the present state.", monitor.state)
        if report is not None:
            at = report.sample.at
            text = "WAL that the server keeps for the slot."
            yield Figure.gauge("retained", text, report.retained_bytes, unit=Unit.BYTES, read_at=at)
            if report.sample.safe_bytes is not None:
                text = "WAL that may be written until the slot is lost."
                yield Figure.gauge("room", text, report.sample.safe_bytes, unit=Unit.BYTES, read_at=at)
            if report.sample.standbys is not None:
                text = "Processes that wait to take over."
                yield Figure.gauge("standbys", text, report.sample.standbys, read_at=at)

    def health(self) -> SystemHealth:
        """Return whether it streams or stands by, and otherwise the first cause of why not."""
        return self._trouble() or OWNERSHIP[self._changes.ownership]

    def _trouble(self) -> SystemHealth | None:
        changes, report = self._changes, self._changes.monitor.report
        incident = changes.link.incident
        if changes.over is not None:
            return SystemHealth(False, "over", changes.over)
        if changes.monitor.state in TROUBLES and report is not None:
            return SystemHealth(False, f"slot {report.state.value}", fault_of(changes.slot, report, changes.db.name))
        if waits := SystemHealth.waiting_for(*changes.needs):
            return waits
        if incident.is_open:
            return SystemHealth(False, "failing", incident.first, incident.book.opened_at)
        return None

    def lag(self) -> Lag | None:
        """Return how far the slot's consumer is behind the server; None before this process owned the stream."""
        report = self._changes.monitor.report
        return None if report is None else Lag(report.lag_bytes, report.lag_s, report.sample.at)

    def acts(self) -> list[Act]:
        """Return none: what can be done with a stream ends it (see `outlast changes drop`)."""
        return []
