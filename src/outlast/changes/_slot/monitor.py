"""Watches a replication slot: lag, retained WAL, and the time until the server drops what it needs. Warns before it does."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from psycopg.rows import dict_row

from outlast import ConfigurationError
from outlast.changes._slot import troubles
from outlast.changes._slot.catalog import settle
from outlast.changes._slot.findings import keep_more
from outlast.changes._slot.troubles import TROUBLES, Meaning, Names, lost_text
from outlast.changes._slot.watch import Report, Sample, SlotState, SlotWatch, Thresholds
from outlast.extend import Once, size_text
from outlast.postgres.replication import read_slot
from outlast.postgres.sessions import lock_waiters

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast import Fault, Service, Stop
    from outlast.postgres import Postgres

logger = logging.getLogger("outlast.changes")

EVERY_S: Final = 10.0

_SERVER: Final = """
SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0')::bigint AS wal,
    (SELECT CASE WHEN min(setting::bigint) FILTER (WHERE name = 'max_slot_wal_keep_size') >= 0
        THEN max(setting::bigint) * 1048576 END
        FROM pg_settings WHERE name IN ('max_slot_wal_keep_size', 'wal_keep_size')) AS limit_bytes,
    (SELECT nullif(setting::float8, 0) FROM pg_settings WHERE name = 'idle_replication_slot_timeout') AS idle_limit_s
"""
"""The server keeps the larger of `max_slot_wal_keep_size` and `wal_keep_size`, unless the former is -1: then everything."""


class Monitor:
    """Watches one slot.

        monitor = Monitor(db, "shop")
        monitor.attach(service)

    It writes one line when the slot lags, is in danger or is lost, and one when it is well again, however long that
    takes. `on_change` is called with the report of each such change, instead of the line. `lock_key`: the advisory lock that
    standbys wait for, to count them. `told_elsewhere`: of which states somebody else writes a line, just now.
    """

    def __init__(
        self,
        db: Postgres,
        slot: str,
        *,
        thresholds: Thresholds | None = None,
        lock_key: int | None = None,
        on_change: Callable[[Report], None] | None = None,
        told_elsewhere: Callable[[SlotState], bool] = lambda _: False,
    ) -> None:
        """Describe it; nothing is asked yet."""
        self.db = db
        self.slot = slot
        self.lock_key = lock_key
        self.report: Report | None = None
        """The newest one, whatever its age: `state` says whether it still holds."""
        self._watch = SlotWatch(thresholds)
        self._on_change = on_change
        self._told_elsewhere = told_elsewhere
        self._once = Once()
        self._once.news(SlotState.OK)

    @property
    def state(self) -> SlotState:
        """The state of the slot: UNKNOWN before the first look, and after one that failed."""
        return self._watch.state

    async def sample(self) -> Report:
        """Ask once and judge. Raises `Unavailable` and the driver's errors; the state is UNKNOWN then."""
        try:
            async with self.db.connection() as conn:
                await settle(conn)
                slot = await read_slot(conn, self.slot)
                standbys = None if self.lock_key is None else await lock_waiters(conn, self.lock_key)
                server = await (await conn.cursor(row_factory=dict_row).execute(_SERVER)).fetchone()
        except BaseException:
            self._watch.missed()
            raise
        assert server is not None, "the query returns one row"  # noqa: S101 - for the type checker
        sample = Sample(asyncio.get_running_loop().time(), standbys=standbys, **server)
        if slot is not None:
            sample = replace(
                sample,
                confirmed=slot.confirmed_lsn,
                restart=slot.restart_lsn,
                wal_status=slot.wal_status,
                safe_bytes=slot.safe_wal_bytes,
                invalidation=slot.invalidation,
                holder=slot.holder,
                idle_s=slot.inactive_s,
            )
        self.report = report = self._watch.take(sample)
        if report.announced is not None:
            self._log(report)
        return report

    def attach(self, service: Service, *, every_s: float = EVERY_S) -> None:
        """Look every `every_s` seconds for the life of the service, more often where a slot would be lost soon."""
        if every_s <= 0:
            msg = f"monitor of slot {self.slot}: every_s must be above 0 seconds, not {every_s}"
            raise ConfigurationError(msg)

        async def look(stop: Stop) -> None:
            report = await self.sample()
            await stop.sleep(report.look_again_s(every_s))

        service.loop(needs=self.db, name=f"monitor of slot {self.slot}")(look)

    def _log(self, report: Report) -> None:
        if self._on_change is not None:
            self._on_change(report)
            return
        if self._told_elsewhere(report.state):
            # That this is over is no news here either.
            self._once.news(SlotState.OK)
            return
        if not self._once.news(report.state):
            return
        fault = fault_of(self.slot, report, self.db.name)
        if fault is None or (report.announced is SlotState.ENDANGERED and report.state is SlotState.LAGGING):
            logger.info("changes: %s", describe(self.slot, report))
        else:
            logger.log(fault.level, "changes: %s; %s", fault.reason, fault.hint)


def fault_of(slot: str, report: Report, source: str = "") -> Fault | None:
    """Return the state as a fault, for whoever reports or raises it; None while all is well, or nothing is known."""
    reason = describe(slot, report)
    match report.state:
        case SlotState.OK | SlotState.UNKNOWN:
            return None
        case SlotState.LAGGING:
            return troubles.fault_of(
                Meaning.SLOT_LAGS, reason, (), "look at the sink's speed" if report.sample.holder else None, source
            )
        case SlotState.ENDANGERED if not report.lost_by_idleness:
            more = (each.as_string(None) for each in keep_more(report.sample.limit_bytes))
            return troubles.fault_of(Meaning.SLOT_ENDANGERED, reason, more, source=source)
        case SlotState.ENDANGERED:
            return troubles.fault_of(Meaning.SLOT_IDLE, reason, TROUBLES[Meaning.SLOT_IDLE].sql(Names(slot)), source=source)
        case SlotState.LOST:
            meaning = Meaning.SLOT_MISSING if report.sample.wal_status is None else Meaning.SLOT_LOST
            return troubles.fault_of(meaning, reason, TROUBLES[meaning].sql(Names(slot)), source=source)


def describe(slot: str, report: Report) -> str:
    """Return one sentence for people."""
    sample = report.sample
    lag = f"{size_text(report.lag_bytes)} and {'at least ' if report.lag_s_is_least else ''}{report.lag_s:.0f} s behind"
    holder = f"used by {sample.holder}" if sample.holder else "used by nobody"
    match report.state:
        case SlotState.UNKNOWN:
            return f"how slot {slot} is doing is not known"
        case SlotState.OK:
            before = f", no longer {report.announced.value}" if report.announced else ""
            return f"slot {slot} is well{before}: {lag}"
        case SlotState.LAGGING:
            return f"slot {slot} lags: {lag}, {holder}"
        case SlotState.LOST if sample.wal_status is None:
            return f"slot {slot} does not exist any more"
        case SlotState.LOST:
            return f"{lost_text(slot, sample.invalidation)}: nothing can be streamed from it"
        case SlotState.ENDANGERED:
            room = f"{size_text(max(0, sample.safe_bytes or 0))} of WAL left at {size_text(report.growth_rate)}/s"
            if report.lost_by_idleness:
                holder = f"used by nobody for {sample.idle_s:.0f} s"
                room = f"the server invalidates it after {sample.idle_limit_s:.0f} s unused (idle_replication_slot_timeout)"
            return f"slot {slot} will be lost {loss_text(report)}: {room}, wal_status {sample.wal_status}, {lag}, {holder}"


def loss_text(report: Report) -> str:
    """Return when the slot will be lost, for a sentence."""
    if report.loss_s is None:
        return "if it goes on like this"
    return "any time now" if report.loss_s < 1 else f"in about {report.loss_s:.0f} s"
