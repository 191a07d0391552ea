"""The rates of what is new, and the quotas of clients: token buckets of `outlast.Admission`, at no cost to the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlast import Admission, Kind, Stopping, Unavailable
from outlast.admission import Rate, Ticket
from outlast.tables._schema.verdict import RETRY_S, later, never

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outlast import Service
    from outlast.tables._limits import TableLimits
    from outlast.tables._schema.verdict import PointsRefusal

BURST_S: Final = 10.0
"""The quota of a client has a burst of so many seconds' worth."""
PAID_S: Final = 60.0
"""A table that was let in is not counted again for so long, however often it is tried: one that fails does not use up the rate
of others. So with fields."""
FAILED_S: Final = 3_600.0
PAID_MAX: Final = 20_000


class Rates:
    """The rates of new tables and new fields, and of the points of each client."""

    def __init__(self, limits: TableLimits) -> None:
        self._tables = _admission("new tables", rate=_by_minute(limits.tables_per_minute))
        self._fields = _admission("new fields", rate=_by_minute(limits.fields_per_minute))
        per_s = limits.points_per_s
        self._points = None if per_s is None else _admission("points", key_rate=Rate(per_s, max(1.0, per_s * BURST_S)))
        self._limits = limits
        self._paid: dict[tuple[str, str], float] = {}
        """By table and field ("" for the table itself): until when it is paid for."""

    def attach(self, service: Service) -> None:
        """Show the figures of the admissions with `service`."""
        for admission in (self._tables, self._fields, self._points):
            if admission is not None:
                admission.attach(service)

    def points(self, client: str, points: int) -> PointsRefusal | None:
        """Take `points` from the quota of a client.

        Raises `Unavailable`, code "rate", if they have to wait; returns the refusal of what is more than the quota ever lets in.
        """
        if self._points is None or not points:
            return None
        try:
            answer = self._points.try_enter(key=client, cost=float(points))
        except Stopping:
            # What was read may still be written.
            return None
        if isinstance(answer, Ticket):
            answer.release()
            return None
        per_s = self._limits.points_per_s or 0.0
        if answer.retry_after_s is None:
            most = max(1.0, per_s * BURST_S) if per_s else 0.0
            reason = (
                f"{points} points at once are more than client {client!r} may ever send: {most:g} (limit points_per_s, {per_s:g})"
            )
            return never("rate", reason, "send smaller bodies, or raise points_per_s")
        reason = f"client {client!r} sends more than {per_s:g} points a second (limit points_per_s); this body has {points}"
        refusal = later("rate", reason, retry_after_s=answer.retry_after_s, hint="send less often, or raise points_per_s")
        raise Unavailable("tables", refusal.fault, 0.0, answer.retry_after_s)

    def table(self, now: float, table: str) -> PointsRefusal | None:
        """Let one new table in, or return why not."""
        what = f"table {table!r} is new"
        return self._one(now, (table, ""), self._tables, what, "tables_per_minute", self._limits.tables_per_minute)

    def field(self, now: float, table: str, field: str) -> PointsRefusal | None:
        """Let one new field in, or return why not."""
        what = f"field {field!r} of table {table!r} is new"
        return self._one(now, (table, field), self._fields, what, "fields_per_minute", self._limits.fields_per_minute)

    def _one(
        self, now: float, of: tuple[str, str], admission: Admission, what: str, setting: str, per_minute: float
    ) -> PointsRefusal | None:
        if self._paid.get(of, 0.0) > now:
            return None
        try:
            answer = admission.try_enter()
        except Stopping as exc:
            return later("stopping", str(exc), kind=Kind.STOPPING)
        if isinstance(answer, Ticket):
            answer.release()
            self._note(now, of)
            return None
        if answer.retry_after_s is None:
            return never("rate", f"{what}, and {setting} is {per_minute:g}: none is made", f"raise {setting}")
        reason = f"{what}, and more than {per_minute:g} a minute are (limit {setting})"
        return later("rate", reason, retry_after_s=answer.retry_after_s or RETRY_S, hint=f"it is made later; or raise {setting}")

    def failed(self, now: float, table: str, fields: Iterable[str]) -> None:
        """Take note that what was let in has come to nothing: to try it again costs no rate, for long."""
        for field in ("", *fields):
            self._note(now + FAILED_S, (table, field))

    def _note(self, now: float, of: tuple[str, str]) -> None:
        if len(self._paid) >= PAID_MAX:
            self._paid = {each: until for each, until in self._paid.items() if until > now}
            if len(self._paid) >= PAID_MAX:
                self._paid.clear()
        self._paid[of] = now + PAID_S


def _by_minute(per_minute: float) -> Rate:
    """Return the rate with a burst of as many: below one a minute it is one, and no rate above 0 ever becomes 0."""
    return Rate(per_minute / 60.0, max(1.0, per_minute))


def _admission(name: str, *, rate: Rate | None = None, key_rate: Rate | None = None) -> Admission:
    return Admission(f"tables {name}", rate=rate, key_rate=key_rate, concurrency=None, memory=None, queue=None)
