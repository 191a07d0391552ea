"""The series that a process knows, one object each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlast.tables._model import Series

if TYPE_CHECKING:
    from outlast.tables._model import Tags

SERIES_KEPT: Final = 200_000
"""Series that are remembered, some 300 bytes each. One that is forgotten costs a look into the store when it comes again."""


class KnownSeries:
    """Returns the same object for the same table and tags, as long as it is among the newest `kept`."""

    def __init__(self, kept: int = SERIES_KEPT) -> None:
        self._kept: Final = kept
        self._young: dict[tuple[str, Tags], Series] = {}
        self._old: dict[tuple[str, Tags], Series] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, table: str, tags: Tags) -> Series:
        """Return the series; `tags` are sorted, and none has an empty value."""
        key = (table, tags)
        series = self._young.get(key)
        if series is None:
            # Two generations are a cheap queue by last use: what was not asked for in a whole generation is forgotten.
            series = self._old.pop(key, None) or Series(table, tags)
            self._young[key] = series
            if len(self._young) * 2 >= self._kept:
                self._old, self._young = self._young, {}
        return series
