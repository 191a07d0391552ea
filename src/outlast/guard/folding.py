"""The fold of one stream, with a net below it: whatever is wrong with the fold, the lines come through."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from outlast.logs.text.stream import HOLD_S, TextFold

if TYPE_CHECKING:
    from collections.abc import Callable


class Folding:
    """A `Folder` (see `outlast.guard.streams`) that never raises.

    When the fold fails, `say` is given one line, what it held comes out, and everything after that passes unfolded. What
    it had only counted until then stays a count that nobody says.
    """

    def __init__(self, fold: TextFold, say: Callable[[str], None]) -> None:
        """Fold with `fold`."""
        self._fold: TextFold | None = fold
        self._say = say

    def feed(self, data: bytes, now: float) -> bytes:
        """Take what was read; give what is to be shown."""
        return self._tried(lambda fold: fold.feed(data, now), data)

    def due(self, now: float) -> bytes:
        """Give what time makes due."""
        return self._tried(lambda fold: fold.due(now))

    def next_due_at(self) -> float | None:
        """When `due` wants to be called."""
        return None if self._fold is None else self._fold.next_due_at()

    def flush(self, now: float) -> bytes:
        """Give the record that waits for its continuation, as if its time were over."""
        return self._tried(lambda fold: fold.due(now + HOLD_S))

    def end(self, now: float) -> bytes:
        """Give everything that is still held."""
        return self._tried(lambda fold: fold.end(now))

    def _tried(self, act: Callable[[TextFold], bytes], data: bytes = b"") -> bytes:
        if self._fold is None:
            return data
        held = self._fold.unsaid()
        try:
            return act(self._fold)
        except Exception as error:  # noqa: BLE001 - see the class
            self._fold = None
            self._say(f"folding failed, everything is passed on as it comes: {type(error).__name__}: {error}")
            return held + data


def text_folding(say: Callable[[str], None]) -> Folding:
    """The fold of `outlast logs fold`, with its defaults."""
    return Folding(TextFold(wall_offset_s=time.time() - time.monotonic()), say)
