"""The greptime drill: writes to one table that cannot be made, beside others that can."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from outlast._drill.greptime import promises as greptime_promises
from outlast._drill.greptime.faults import TABLE_FAULTS, TableFault
from outlast._drill.greptime.figures import COLUMNS, SERIES, TableArm, describe, load
from outlast._drill.greptime.run import TableKind, TableRun
from outlast._drill.greptime.stores import (
    EtcdStore,
    ProceduresInEtcd,
    jobs_of_procrastinate,
    procedures_in_postgres,
    workflows_of_dbos,
)
from outlast._drill.lab.drills import Drill
from outlast._drill.lab.options import DrillOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

OUTAGE_S = 8.0
WARMUP_S = 3.0
COOLDOWN_S = 9.0
"""After 8 s of failures the longest wait of a key is 8 s, and one of the earlier ones has begun by then."""
START_S = 6.0

_ARMS = "outlast._drill.greptime.arms."

TABLE_ARMS: Mapping[str, TableKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            TableKind("naive", "each write records one more task in etcd", _ARMS + "naive", "httpx2", store=EtcdStore),
            TableKind("capped", "after the fix: at most 128 tasks at a time", _ARMS + "capped", "httpx2", store=EtcdStore),
            TableKind(
                "procrastinate",
                "a job a table, deduplicated by its lock in the queue",
                _ARMS + "procrastinate_tables",
                "procrastinate",
                store=jobs_of_procrastinate,
            ),
            TableKind(
                "dbos", "a workflow a table, deduplicated by its id", _ARMS + "dbos_tables", "dbos", store=workflows_of_dbos
            ),
            TableKind("outlast", "outlast.procedures on etcd", _ARMS + "outlast_etcd", "httpx2", store=ProceduresInEtcd),
            TableKind(
                "outlast-postgres", "outlast.procedures on PostgreSQL", _ARMS + "outlast_postgres", store=procedures_in_postgres
            ),
        )
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GreptimeOptions(DrillOptions):
    """Choices of the person who starts the drill."""

    drill: ClassVar[str] = "greptime"
    kinds: ClassVar[Mapping[str, TableKind]] = TABLE_ARMS
    faults: ClassVar[Mapping[str, type[TableFault]]] = TABLE_FAULTS
    workers: ClassVar[str] = "writes"

    fault: str = "refused"
    loops: int = 500
    """Writes a second to the bad table."""
    outage_s: float = OUTAGE_S
    warmup_s: float = WARMUP_S
    cooldown_s: float = COOLDOWN_S
    arms: tuple[str, ...] = tuple(TABLE_ARMS)
    quota_mib: int = 16
    """The quota of each etcd: small, so that a storm of some seconds is enough."""

    @property
    def more(self) -> str:
        """The options that the command has in this drill only."""
        return f" --quota {self.quota_mib}"

    @property
    def setup_s(self) -> float:
        """Seconds that an arm takes besides."""
        return START_S


GREPTIME: Drill[GreptimeOptions, TableArm] = Drill(
    arm_run=lambda options, name, observer, cancel: TableRun(options, TABLE_ARMS[name], observer, cancel),
    check=greptime_promises.check,
    stormed=greptime_promises.stormed,
    columns=COLUMNS,
    series=SERIES,
    describe=describe,
    load=load,
    proven=("outlast", "outlast-postgres"),
    measured="its output pipe, the system's accounts, its store, the data node that it works on, and what its clients were told",
)
