"""The faults of the greptime drill over HTTP: something stands in the way of a table in the store itself."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from outlast._drill.greptime.http.points import deny, free_name, permit, take_name
from outlast._drill.greptime.writers import BAD_TABLE
from outlast._drill.lab.faults import StagedFault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast._drill.greptime.http.writers import Writers


@dataclass(slots=True)
class MetricsStage:
    """The store of one arm, and those who write to the arm."""

    place: str
    writers: Writers
    is_broken: bool = False


class MetricsFault(StagedFault[MetricsStage]):
    """One way in which a table cannot be made. The writes to it begin with the fault, and go on when it is mended."""

    postgres_only: ClassVar[bool] = False

    def begin(self, stage: MetricsStage) -> None:
        """Let nobody make the table, and write to it."""
        self.obstruct(stage.place)
        stage.is_broken = True
        stage.writers.write_to_bad_table()

    def end(self, stage: MetricsStage) -> None:
        """Let the table be made."""
        if stage.is_broken:
            self.clear(stage.place)
        stage.is_broken = False

    def over(self, stage: MetricsStage) -> bool:
        """Return whether it can be made."""
        return not stage.is_broken

    def obstruct(self, place: str) -> None:
        """Stand in its way."""
        raise NotImplementedError

    def clear(self, place: str) -> None:
        """Go out of its way."""
        raise NotImplementedError


class Taken(MetricsFault):
    """A view has its name."""

    name = "taken"
    summary = "a view has the name of one table, which is written to all the time"

    def obstruct(self, place: str) -> None:
        """Make the view."""
        take_name(place, BAD_TABLE)

    def clear(self, place: str) -> None:
        """Drop the view."""
        free_name(place, BAD_TABLE)


class Denied(MetricsFault):
    """The server lets nobody make it."""

    name = "denied"
    summary = "PostgreSQL permits nobody to make one table, which is written to all the time"
    postgres_only = True

    def obstruct(self, place: str) -> None:
        """Set a guard before CREATE TABLE."""
        deny(place)

    def clear(self, place: str) -> None:
        """Take the guard away."""
        permit(place)


METRICS_FAULTS: Mapping[str, type[MetricsFault]] = MappingProxyType({fault.name: fault for fault in (Taken, Denied)})
