"""The last refusal of each task and thread: the memory that the rule of `_core.turns` needs."""

from __future__ import annotations

import asyncio
import threading
import time
from contextvars import ContextVar
from typing import Final
from weakref import WeakKeyDictionary

from outlast._core.once import Once
from outlast._core.turns import Turn, next_turn, refused
from outlast._runtime.dependency.incident import clock
from outlast._runtime.service.progress import current

SPINNERS_MAX: Final = 2
"""The most spinners that an incident names: its lines do not depend on the number of loops, and are six in all with those of an
outage of a minute. Who mends two of them looks for more."""
THREAD_S_MAX: Final = 1.5
"""A thread that sleeps hears neither of the recovery nor of the stop: it sleeps no longer than a prober at its cap."""


class ThreadCaller:
    """Stands for a thread, or for one call that another thread makes in a context of its own (`asyncio.to_thread`).

    So the requests that a pool of threads serves one after the other are not taken for one that spins.
    """

    __slots__ = ("__weakref__", "thread_id")

    def __init__(self, thread_id: int) -> None:
        self.thread_id = thread_id


_place: ContextVar[ThreadCaller | None] = ContextVar("outlast_place", default=None)


class Callers:
    """The last refusals of one dependency, by caller. It knows no more callers than there are tasks and threads: it holds
    them weakly. May be used from any thread.
    """

    def __init__(self) -> None:
        # Protects the map, whose entries also vanish by themselves (the lock is reentrant, since a garbage collection
        # may call back in this very thread), and the names. Nobody is called while it is held.
        self._lock = threading.RLock()
        self._turns: WeakKeyDictionary[asyncio.Task[object] | ThreadCaller, Turn] = WeakKeyDictionary()
        self._once = Once()

    def next_turn(self, now: float, cap_s: float) -> Turn:
        """Return the refusal of this caller, if it has to be refused."""
        with self._lock:
            return next_turn(self._turns.get(_caller()), now, cap_s)

    def refused(self, turn: Turn, now: float) -> str | None:
        """Record the refusal; return the caller's name if it has begun to spin and is to be named."""
        with self._lock:
            self._turns[_caller()] = refused(turn, now)
            if not turn.begins_to_spin or self._once.subjects >= SPINNERS_MAX:
                return None
            name = _name()
            return name if self._once.news(subject=name) else None

    async def take_turn(self, cap_s: float) -> None:
        """Wait before a refusal, if it is this caller's turn to wait."""
        turn = self.next_turn(clock(), cap_s)
        if turn.wait_s:
            await asyncio.sleep(turn.wait_s)
        self.refused(turn, clock())

    def take_turn_in_thread(self, cap_s: float) -> None:
        """Wait as `take_turn` does, for whoever cannot await. On an event loop's thread nobody waits."""
        turn = self.next_turn(clock(), cap_s)
        if turn.wait_s and not on_event_loop():
            sleep_in_thread(turn)
        self.refused(turn, clock())

    def begin(self) -> None:
        """Name everyone again: an incident has begun."""
        with self._lock:
            self._once = Once()


def on_event_loop() -> bool:
    """Return whether this thread runs an event loop now, which a sleep would freeze."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def sleep_in_thread(turn: Turn) -> None:
    """Wait one's turn in a thread, which freezes it: not on an event loop's."""
    time.sleep(min(turn.wait_s, THREAD_S_MAX))


def _task() -> asyncio.Task[object] | None:
    return asyncio.current_task() if on_event_loop() else None


def _caller() -> asyncio.Task[object] | ThreadCaller:
    task = _task()
    if task is not None:
        return task
    place = _place.get()
    if place is None or place.thread_id != threading.get_ident():
        # None yet, or one that came with a copy of another thread's context.
        place = ThreadCaller(threading.get_ident())
        _place.set(place)
    return place


def _name() -> str:
    """Return the loop or the task of the service that the caller works for; otherwise its own name."""
    worker = current.get().name
    if worker:
        return worker
    task = _task()
    return f"task {task.get_name()}" if task is not None else f"thread {threading.current_thread().name}"
