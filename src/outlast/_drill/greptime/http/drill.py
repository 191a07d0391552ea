"""The greptime drill over HTTP: collectors write to one table that cannot be created, beside twenty that can."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from outlast._drill.greptime.figures import COLUMNS, SERIES, TableArm, describe
from outlast._drill.greptime.http import promises as metrics_promises
from outlast._drill.greptime.http.faults import METRICS_FAULTS, MetricsFault
from outlast._drill.greptime.http.run import MetricsKind, MetricsRun
from outlast._drill.greptime.http.stores import MetricsInPostgres, MetricsInSqlite
from outlast._drill.greptime.http.writers import BODY_POINTS
from outlast._drill.lab.drills import Drill
from outlast._drill.lab.errors import DrillUsageError
from outlast._drill.lab.options import DrillOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast._drill.lab.result import DrillResult

OUTAGE_S = 4.0
WARMUP_S = 4.0
COOLDOWN_S = 12.0
"""The first wait of a table that only a person can mend is up to 10 s, and the second attempt comes after 5 s at the earliest."""

_ARMS = "outlast._drill.greptime.arms."

METRICS_ARMS: Mapping[str, MetricsKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            MetricsKind(
                "naive",
                "a handler that makes tables and remembers nothing",
                _ARMS + "naive_http",
                "uvicorn",
                store=MetricsInSqlite,
            ),
            MetricsKind(
                "naive-postgres",
                "the same on PostgreSQL",
                _ARMS + "naive_http",
                "uvicorn",
                store=MetricsInPostgres,
                is_postgres=True,
            ),
            MetricsKind("outlast", "outlast.tables on SQLite", _ARMS + "outlast_http", "apsw", store=MetricsInSqlite),
            MetricsKind(
                "outlast-postgres",
                "outlast.tables on PostgreSQL",
                _ARMS + "outlast_http",
                "uvicorn",
                store=MetricsInPostgres,
                is_postgres=True,
            ),
        )
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsOptions(DrillOptions):
    """Choices of the person who starts the drill over HTTP."""

    drill: ClassVar[str] = "greptime"
    kinds: ClassVar[Mapping[str, MetricsKind]] = METRICS_ARMS
    faults: ClassVar[Mapping[str, type[MetricsFault]]] = METRICS_FAULTS
    workers: ClassVar[str] = "writes"

    fault: str = "taken"
    loops: int = 500
    """Writes a second to the bad table."""
    outage_s: float = OUTAGE_S
    warmup_s: float = WARMUP_S
    cooldown_s: float = COOLDOWN_S
    arms: tuple[str, ...] = tuple(METRICS_ARMS)

    @property
    def more(self) -> str:
        """The option that chose this drill."""
        return " --over http"

    def validate(self) -> None:
        """Raise DrillUsageError for what cannot be run."""
        DrillOptions.validate(self)
        if METRICS_FAULTS[self.fault].postgres_only and (
            without := [name for name in self.arms if not METRICS_ARMS[name].is_postgres]
        ):
            able = ",".join(name for name, kind in METRICS_ARMS.items() if kind.is_postgres)
            msg = f"fault {self.fault!r} needs permissions, and SQLite of {', '.join(without)} has none; say --arms {able}"
            raise DrillUsageError(msg)


def load(result: DrillResult[TableArm]) -> tuple[str, str]:
    """Return the load of the drill, as (name, value)."""
    return (
        "writes",
        f"{result.loops} a second to the bad table, {BODY_POINTS} points a second to each of 20 others, in each arm",
    )


METRICS: Drill[MetricsOptions, TableArm] = Drill(
    arm_run=lambda options, name, observer, cancel: MetricsRun(options, METRICS_ARMS[name], observer, cancel),
    check=metrics_promises.check,
    stormed=metrics_promises.stormed,
    columns=COLUMNS,
    series=SERIES,
    describe=describe,
    load=load,
    proven=("outlast", "outlast-postgres"),
    measured="its output pipe, the system's accounts, its store, and what its clients were told",
)
