"""The fold of one stream, with a net below it: whatever is wrong with the fold, the lines come through."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from outlast.logs.text._stream import HOLD_S, TextFold

if TYPE_CHECKING:
    from collections.abc import Callable


class Safely:
    """A `TextFold` that never raises.

    When the fold fails, `say` gets one line, the bytes it held are returned, and everything after that passes unfolded. What
    it had only counted until then is reported at the end.
    """

    def __init__(self, fold: TextFold, say: Callable[[str], None]) -> None:
        self._fold = fold
        self._say = say
        self.has_failed = False

    def feed(self, data: bytes, now: float) -> bytes:
        """Take what was read; return what is to be shown."""
        return self._tried(lambda: self._fold.feed(data, now), data) if data else b""

    def due(self, now: float) -> bytes:
        """Return what time makes due."""
        return self._tried(lambda: self._fold.due(now))

    def next_due_at(self) -> float | None:
        """Return when `due` is to be called; None while there is nothing to wait for."""
        return None if self.has_failed else self._fold.next_due_at()

    def flush(self, now: float) -> bytes:
        """Return the record that waits for its continuation, as if its time were over."""
        return self._tried(lambda: self._fold.due(now + HOLD_S))

    def end(self, now: float) -> bytes:
        """Return everything that is still held, and a summary of what was only counted."""
        out = self._tried(lambda: self._fold.end(now))
        if not self.has_failed:
            return out
        try:
            return out + self._fold.say_pending(now)
        except Exception as error:  # noqa: BLE001  # as in `_tried`; and that counts are missing is said, too
            self._say(f"what had been folded before cannot be told: {type(error).__name__}: {error}")
            return out

    def _tried(self, act: Callable[[], bytes], data: bytes = b"") -> bytes:
        if self.has_failed:
            return data
        held = self._fold.unsaid()
        try:
            return act()
        except Exception as error:  # noqa: BLE001  # whatever is wrong with the fold, the lines have to come through
            self.has_failed = True
            self._say(f"folding failed, everything is passed on as it comes: {type(error).__name__}: {error}")
            return held + data


def text_folding(say: Callable[[str], None]) -> Safely:
    """Return the fold of `outlast logs fold`, with its defaults."""
    return Safely(TextFold(wall_offset_s=time.time() - time.monotonic()), say)
