"""The order in which a virtual-time loop with a seed runs what is ready, and what is due, at one instant."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from contextvars import Context

_TASKS: Final = (asyncio.Task, getattr(asyncio.tasks, "_PyTask", asyncio.Task))
"""The task in C, and the one in Python that debuggers and other interpreters use."""
_STEPS: Final = ("__step", "__wakeup", "task_wakeup")
"""Names of a task's own callbacks, in Python and in C; the first step in C has no name."""


class SeededOrder:
    """Draws an order from a seed. The same seed and the same program lead to the same order, in one version of Python."""

    def __init__(self, seed: int) -> None:
        """Begin with `random.Random(seed)`."""
        self._rng = random.Random(seed)
        self._births: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()
        self._born = 0

    def born(self, task: asyncio.Task[Any]) -> None:
        """Record that a task was made now."""
        self._born += 1
        self._births[task] = self._born

    def birth(self, task: asyncio.Task[Any]) -> int:
        """Return the number of a task, in the order in which they were made; one that the loop did not make is numbered now."""
        number = self._births.get(task)
        if number is None:
            self.born(task)
            number = self._born
        return number

    def tie(self) -> float:
        """Return a number that decides between timers that are due at the same time."""
        return self._rng.random()

    def shuffle(self, ready: deque[asyncio.Handle]) -> None:
        """Shuffle the steps of tasks among the places that they hold; everything else keeps its place.

        They are brought into the order of their births first: what woke them may have gone through a set, whose order
        no seed replays. Threads may append meanwhile.
        """
        if len(ready) < 2:
            return
        handles = [ready.popleft() for _ in range(len(ready))]
        steps: list[tuple[int, int, asyncio.Handle]] = []
        for place, handle in enumerate(handles):
            task = _task_of(handle)
            if task is not None:
                steps.append((self.birth(task), place, handle))
        if len(steps) > 1:
            places = [place for _, place, _ in steps]
            # Births differ, but for a step that somebody else scheduled: then the places decide, and never the handles.
            steps.sort()
            self._rng.shuffle(steps)
            for place, (_, _, handle) in zip(places, steps, strict=True):
                handles[place] = handle
        ready.extendleft(reversed(handles))


class SeededTimer(asyncio.TimerHandle):
    """A timer whose `tie` decides when others are due at exactly the same time. asyncio leaves their order undefined."""

    __slots__ = ("_due",)
    _scheduled: bool

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
        tie: float,
    ) -> None:
        """Count as scheduled: whoever makes it puts it into the loop's heap."""
        super().__init__(when, callback, args, loop, context)
        self._due = (when, tie)
        self._scheduled = True

    def __lt__(self, other: object) -> bool:
        if isinstance(other, SeededTimer):
            return self._due < other._due
        return super().__lt__(other)  # type: ignore[operator]


def _task_of(handle: asyncio.Handle) -> asyncio.Task[Any] | None:
    """Return the task whose step this is, or None: `task.cancel`, say, belongs to a task and is no step."""
    callback = getattr(handle, "_callback", None)
    task = getattr(callback, "__self__", None)
    if isinstance(task, _TASKS) and getattr(callback, "__name__", "__step") in _STEPS:
        return task
    return None
