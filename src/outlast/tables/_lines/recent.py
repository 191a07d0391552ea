"""A bounded map that keeps what was used of late."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keeps at least the `kept // 2` entries that were used last, and at most `kept`.

    Two generations are a cheap queue by last use: what was not asked for in a whole generation is forgotten. `young` is the
    newer; a look into it by its owner, without `get`, is allowed and costs no call. Any thread may use it: a race costs an entry.
    """

    __slots__ = ("_half", "_old", "young")

    def __init__(self, kept: int) -> None:
        self._half: Final = max(1, kept // 2)
        self.young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    def get(self, key: K) -> V | None:
        """Return the entry, which is among the youngest then; None if there is none."""
        value = self.young.get(key)
        if value is None and (value := self._old.pop(key, None)) is not None:
            self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Keep an entry."""
        self.young[key] = value
        if len(self.young) >= self._half:
            self._old, self.young = self.young, {}
