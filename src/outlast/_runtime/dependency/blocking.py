"""The thread face of a dependency: the same health state, waited for without a coroutine."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from outlast._core.faults import Unavailable
from outlast._runtime.dependency import door
from outlast._runtime.dependency.callers import sleep_in_thread
from outlast._runtime.dependency.use import Use, guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from outlast._core.faults import Fault
    from outlast._runtime.dependency.cell import Cell

P = ParamSpec("P")
R = TypeVar("R")


class BlockingDependency:
    """`ready`, `use`, `guard`, `report` and `close` for threads.

    If the dependency belongs to a service's event loop, that loop probes. If it belongs to none, one
    daemon thread of this process runs a loop for all of them, started at the first wait.
    """

    def __init__(self, cell: Cell, close: Callable[[], Coroutine[None, None, None]]) -> None:
        self._cell = cell
        self._close = close

    def ready(self, timeout_s: float | None = None) -> None:
        """Block until the dependency is usable; raise `Unavailable` after `timeout_s` seconds.

        Raises `RuntimeError` on the event loop's own thread, which it would block forever.
        """
        cell = self._cell
        if cell.passable:
            return
        loop = self._loop("ready") or _background_loop()
        turn = door.next_turn(cell)
        future = asyncio.run_coroutine_threadsafe(door.ready(cell, timeout_s, None), loop)
        try:
            future.result()
        except Unavailable:
            # The loop has refused a task that is new each time: whose turn it is, only this thread knows.
            sleep_in_thread(turn)
            raise door.remembered(cell, turn, cell.unavailable()) from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Let go of everything held, and ask no more: for a program without a service, at its end. Bounded as `Dependency.close`.

        Raises `RuntimeError` on the event loop's own thread, which it would block forever.
        """
        loop = self._loop("close")
        if loop is not None:
            asyncio.run_coroutine_threadsafe(self._close(), loop).result()

    def _loop(self, what: str) -> asyncio.AbstractEventLoop | None:
        """Return the running loop that the dependency belongs to, if any; raise `RuntimeError` on that loop's own thread."""
        cell = self._cell
        loop = cell.loop
        if loop is None or not loop.is_running():
            return None
        if threading.get_ident() == cell.thread_id:
            msg = f"{cell.name}.blocking.{what}() would block the event loop: await {cell.name}.{what}()"
            raise RuntimeError(msg)
        return loop

    def use(self, phase: str = "") -> Use:
        """Guard a `with` block as `Dependency.use` does: it is refused while the dependency is down."""
        return Use(self._cell, phase)

    def guard(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function as `Dependency.guard` does."""
        return guarded(self._cell, function)

    def report(self, exc: BaseException, *, phase: str = "") -> Fault:
        """Classify an exception as `Dependency.report` does."""
        return self._cell.report(exc, phase, None)


# Protects the start of the one background loop: of threads that come at once, one starts it.
_starting = threading.Lock()
_background: list[asyncio.AbstractEventLoop] = []


def _background_loop() -> asyncio.AbstractEventLoop:
    """Return the one loop of this process that probes for threads; start it if need be."""
    with _starting:
        if not _background:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="outlast", daemon=True).start()
            _background.append(loop)
        return _background[0]
