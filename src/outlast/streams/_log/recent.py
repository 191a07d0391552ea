"""The values that were used last, up to a bound; for any thread."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A map that forgets what was not asked for longest when its values weigh more than `weight_max` together.

    The value that came last stays, however heavy it is.
    """

    __slots__ = ("_lock", "_values", "_weight", "_weight_max")

    def __init__(self, weight_max: int) -> None:
        """Hold nothing yet."""
        self._weight_max = weight_max
        self._weight = 0
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        # Held for a few steps of a dictionary, never while anything blocks.
        self._lock = threading.Lock()

    def put(self, key: K, value: V, weight: int = 1) -> None:
        """Remember a value."""
        with self._lock:
            self._drop(key)
            self._values[key] = value, weight
            self._weight += weight
            while self._weight > self._weight_max and len(self._values) > 1:
                self._drop(next(iter(self._values)))

    def get(self, key: K) -> V | None:
        """Return the value, or None."""
        with self._lock:
            if (found := self._values.get(key)) is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def pop(self, key: K) -> V | None:
        """Return the value and forget it."""
        with self._lock:
            return self._drop(key)

    def _drop(self, key: K) -> V | None:
        if (found := self._values.pop(key, None)) is None:
            return None
        self._weight -= found[1]
        return found[0]
