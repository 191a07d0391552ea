"""The series that a process knows, one object each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlast.tables._lines.recent import Recent
from outlast.tables._model import Series

if TYPE_CHECKING:
    from outlast.tables._model import Tags

SERIES_KEPT: Final = 200_000
"""Series that are remembered, some 300 bytes each. One that is forgotten costs a look into the store when it comes again."""


class KnownSeries:
    """Returns the same object for the same table and tags, as long as it is among the newest of `kept`."""

    def __init__(self, kept: int = SERIES_KEPT) -> None:
        self._recent: Final = Recent[tuple[str, "Tags"], Series](kept)

    def __len__(self) -> int:
        return len(self._recent)

    def get(self, table: str, tags: Tags) -> Series:
        """Return the series; `tags` are sorted, and none has an empty value."""
        key = (table, tags)
        series = self._recent.get(key)
        if series is None:
            series = Series(table, tags)
            self._recent.put(key, series)
        return series
