"""The port of a snapshot's progress, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast.changes._snapshot.model import SnapshotState

if TYPE_CHECKING:
    from outlast.changes._snapshot.model import RangeState, TableState


class MemoryProgress:
    """The progress of a snapshot, kept for as long as the process lives."""

    def __init__(self) -> None:
        self._states: dict[str, SnapshotState] = {}

    async def load(self, stream: str) -> SnapshotState | None:
        return self._states.get(stream)

    async def replace(self, stream: str, state: SnapshotState) -> None:
        self._states[stream] = state

    async def save(self, stream: str, table: TableState, state: RangeState) -> None:
        kept = self._states[stream]
        tables = tuple(
            each.with_range(state) if (each.schema, each.name) == (table.schema, table.name) else each for each in kept.tables
        )
        self._states[stream] = SnapshotState(kept.origin_lsn, tables)

    async def forget(self, stream: str) -> None:
        self._states.pop(stream, None)
