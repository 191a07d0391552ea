"""The listeners to changes of a dependency: called for each change, in order, outside of every lock."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast._core.faults import Fault
    from outlast._core.health import State

    Listener = Callable[[State, Fault | None], None]

CHANGES_MAX: Final = 64
"""Changes that may wait for an event loop that does not turn; of more, the oldest are forgotten."""
logger = logging.getLogger("outlast")


class Listeners:
    """Keeps changes and calls the listeners. `note` is called under the lock of the state that changes, from any thread;
    `deliver` on the event loop's thread, without that lock: a listener may take any lock of its own.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        # Added to and taken from by any thread, in one step each; `deliver` calls those of a copy.
        self._listeners: list[Listener] = []
        self._changes: deque[tuple[State, Fault | None]] = deque(maxlen=CHANGES_MAX)
        self._delivering = False

    def add(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` from now on; return the function that ends that."""
        self._listeners.append(listener)

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return end

    def note(self, state: State, first: Fault | None) -> None:
        """Keep a change for the next `deliver`."""
        self._changes.append((state, first))

    def forget(self) -> None:
        """Drop what happened so far: nobody is called for it."""
        self._changes.clear()

    def deliver(self) -> None:
        """Call every listener with every change. A change that a listener brings about comes after this one, for all."""
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._changes:
                state, first = self._changes.popleft()
                for listener in tuple(self._listeners):
                    self._tell(listener, state, first)
        finally:
            self._delivering = False

    def _tell(self, listener: Listener, state: State, first: Fault | None) -> None:
        try:
            listener(state, first)
        except Exception:
            logger.exception("a listener of %s failed; the others go on", self._name)
