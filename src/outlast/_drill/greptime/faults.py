"""The faults of the greptime drill: a table that cannot be made, and writes to it without end."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from outlast._drill.greptime.datanode import DataNode, Trouble
from outlast._drill.greptime.writers import BAD_TABLE
from outlast._drill.lab.faults import StagedFault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast._drill.greptime.writers import Writers


@dataclass(slots=True)
class TableStage:
    """The data node of one arm, and those who write to the arm."""

    node: DataNode
    writers: Writers


class TableFault(StagedFault[TableStage]):
    """One way in which a table cannot be made. The writes to it begin with the fault, and go on when it is mended."""

    trouble: ClassVar[Trouble] = Trouble.REFUSES
    cleared: ClassVar[bool] = False
    """Whether the arm is told that the cause is gone."""

    def begin(self, stage: TableStage) -> None:
        """Let nobody make the table, and write to it."""
        stage.node.troubles[BAD_TABLE] = self.trouble
        stage.writers.write_to_bad_table()

    def end(self, stage: TableStage) -> None:
        """Let the table be made."""
        stage.node.troubles.pop(BAD_TABLE, None)
        if self.cleared:
            stage.writers.clear(BAD_TABLE)

    def over(self, stage: TableStage) -> bool:
        """Return whether it can be made."""
        return BAD_TABLE not in stage.node.troubles


class Refuses(TableFault):
    """The data node refuses to open a region of it."""

    name = "refused"
    summary = "the data node refuses to open a region of one table, which is written to all the time"


class Cleared(Refuses):
    """The same, and the arm is told once it is mended."""

    name = "cleared"
    summary = "the same, and the arm is told once the cause is gone"
    cleared = True


class Hangs(TableFault):
    """The data node does not answer to that step."""

    name = "hangs"
    summary = "the data node does not answer when one table, which is written to all the time, is to be made"
    trouble = Trouble.HANGS


TABLE_FAULTS: Mapping[str, type[TableFault]] = MappingProxyType({fault.name: fault for fault in (Refuses, Cleared, Hangs)})
