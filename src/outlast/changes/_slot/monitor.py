"""Watches a replication slot: lag, retained WAL, and how long until the server gives the slot up. Warns before it does."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from psycopg import sql

from outlast import ConfigurationError, Fault, Kind, Scope
from outlast.changes._slot.catalog import settle
from outlast.changes._slot.findings import create_slot
from outlast.changes._slot.watch import MIB, Report, Sample, SlotState, SlotWatch, Thresholds
from outlast.extend import Once, size_text
from outlast.postgres.sessions import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast import Service, Stop
    from outlast.postgres import Postgres

logger = logging.getLogger("outlast.changes")

EVERY_S: Final = 10.0

_SAMPLE: Final = """
SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0')::bigint,
    ((row ->> 'confirmed_flush_lsn')::pg_lsn - '0/0')::bigint,
    ((row ->> 'restart_lsn')::pg_lsn - '0/0')::bigint,
    -- A slot in the making has no status yet.
    CASE WHEN row IS NOT NULL THEN coalesce(row ->> 'wal_status', 'reserved') END,
    (row ->> 'safe_wal_size')::bigint,
    (SELECT CASE WHEN min(setting::bigint) FILTER (WHERE name = 'max_slot_wal_keep_size') >= 0
        THEN max(setting::bigint) * 1048576 END
        FROM pg_settings WHERE name IN ('max_slot_wal_keep_size', 'wal_keep_size')),
    coalesce(row ->> 'invalidation_reason', CASE WHEN (row ->> 'conflicting')::bool THEN 'conflict' END),
    (row ->> 'active_pid')::int, activity.application_name, activity.usename, activity.backend_start,
    CASE WHEN %(key)s::bigint IS NOT NULL THEN (SELECT count(*) FROM pg_locks
        WHERE locktype = 'advisory' AND NOT granted AND objsubid = 1
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND classid = ((%(key)s::bigint >> 32) & 4294967295)::oid AND objid = (%(key)s::bigint & 4294967295)::oid) END,
    CASE WHEN row ->> 'active_pid' IS NULL
        THEN extract(epoch FROM clock_timestamp() - (row ->> 'inactive_since')::timestamptz)::float8 END,
    (SELECT nullif(setting::float8, 0) FROM pg_settings WHERE name = 'idle_replication_slot_timeout')
FROM (SELECT (SELECT to_jsonb(slots) FROM pg_replication_slots AS slots WHERE slot_name = %(slot)s) AS row) AS found
LEFT JOIN pg_stat_activity AS activity ON activity.pid = (row ->> 'active_pid')::int
"""
"""One row, whether the slot exists or not. As JSON, since every version of the server has other columns.

The server keeps the larger of `max_slot_wal_keep_size` and `wal_keep_size`, unless the former is -1: then everything.
"""


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
        """Where the slot stands: UNKNOWN before the first look, and after one that failed."""
        return self._watch.state

    async def sample(self) -> Report:
        """Ask once and judge. Raises `Unavailable` and the driver's errors; the state is UNKNOWN then."""
        try:
            async with self.db.connection() as conn:
                await settle(conn)
                cursor = await conn.execute(_SAMPLE, {"slot": self.slot, "key": self.lock_key})
                row = await cursor.fetchone()
        except BaseException:
            self._watch.missed()
            raise
        assert row is not None, "the query gives one row, with or without a slot"  # noqa: S101 - for the type checker
        *facts, pid, application, user, since, standbys, idle_s, idle_limit_s = row
        wal, confirmed, restart, status, safe, limit, invalidation = facts
        holder = None if pid is None else Session(pid, application or "", user or "", since)
        at = asyncio.get_running_loop().time()
        idle = (idle_s, idle_limit_s)
        sample = Sample(at, wal, confirmed, restart, status, safe, limit, invalidation, holder, standbys, *idle)
        self.report = report = self._watch.take(sample)
        if report.announced is not None:
            self._tell(report)
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

    def _tell(self, report: Report) -> None:
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
    """The state as a fault, for whoever reports or raises it; None while all is well, or nothing is known."""
    reason, name = describe(slot, report), sql.Literal(slot)
    match report.state:
        case SlotState.OK | SlotState.UNKNOWN:
            return None
        case SlotState.LAGGING:
            hint = "look at the sink's speed" if report.sample.holder else "start the consumer, or drop the slot"
            return Fault(Kind.TRANSIENT, "lag", reason, source, Scope.CALL, hint=hint)
        case SlotState.ENDANGERED if report.lost_by_idleness:
            hint = "start the consumer, or: ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf()"
            return Fault(Kind.EXHAUSTED, "idle", reason, source, Scope.CALL, hint=hint)
        case SlotState.ENDANGERED:
            mib = 2 * max(512, (report.sample.limit_bytes or 0) // MIB)
            statement = sql.SQL("ALTER SYSTEM SET max_slot_wal_keep_size = {}").format(sql.Literal(f"{mib}MB"))
            hint = f"speed up the consumer, or: {statement.as_string(None)}; SELECT pg_reload_conf()"
            return Fault(Kind.EXHAUSTED, "wal", reason, source, Scope.CALL, hint=hint)
        case SlotState.LOST:
            drop = sql.SQL("SELECT pg_drop_replication_slot({})").format(name).as_string(None)
            hint = create_slot(slot).as_string(None)
            if report.sample.wal_status is not None:
                hint = f"{drop}; {hint}"
            return Fault(Kind.PERMANENT, "55000", reason, source, Scope.CALL, hint=f"{hint}, and take a new snapshot")


def describe(slot: str, report: Report) -> str:
    """One sentence for people."""
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
            return f"slot {slot} is lost ({sample.invalidation or 'its WAL was removed'}): nothing can be streamed from it"
        case SlotState.ENDANGERED:
            room = f"{size_text(max(0, sample.safe_bytes or 0))} of WAL left at {size_text(report.growth_rate)}/s"
            if report.lost_by_idleness:
                holder = f"used by nobody for {sample.idle_s:.0f} s"
                room = f"the server gives it up after {sample.idle_limit_s:.0f} s unused (idle_replication_slot_timeout)"
            return f"slot {slot} will be lost {loss_text(report)}: {room}, wal_status {sample.wal_status}, {lag}, {holder}"


def loss_text(report: Report) -> str:
    """When the slot will be lost."""
    if report.loss_s is None:
        return "if it goes on like this"
    return "any time now" if report.loss_s < 1 else f"in about {report.loss_s:.0f} s"
