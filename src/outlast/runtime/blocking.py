"""The thread face of a dependency: the same health state, waited for without a coroutine."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast.core.faults import Fault
    from outlast.runtime.dependency import Dependency
    from outlast.runtime.guard import Use

P = ParamSpec("P")
R = TypeVar("R")


class BlockingDependency:
    """`ready`, `use`, `guard` and `report` for threads.

    If the dependency belongs to a service's event loop, that loop probes. If it belongs to none, one
    daemon thread of this process runs a loop for all of them, started at the first wait.
    """

    def __init__(self, dependency: Dependency) -> None:
        """Face one dependency."""
        self._dependency = dependency

    def ready(self, timeout_s: float | None = None) -> None:
        """Block until the dependency is usable; raise `Unavailable` after `timeout_s` seconds.

        Raises `RuntimeError` on the event loop's own thread, which it would block for ever.
        """
        dependency = self._dependency
        if dependency.passable:
            return
        loop = dependency.loop
        if loop is None or not loop.is_running():
            loop = _background_loop()
        elif threading.get_ident() == dependency.thread_id:
            msg = f"{dependency.name}.blocking.ready() would block the event loop: await {dependency.name}.ready()"
            raise RuntimeError(msg)
        future = asyncio.run_coroutine_threadsafe(dependency.ready(timeout_s), loop)
        try:
            future.result()
        except BaseException:
            future.cancel()
            raise

    def use(self, phase: str = "") -> Use:
        """As `Dependency.use`: a `with` block that is refused at once while the dependency is down."""
        return self._dependency.use(phase)

    def guard(self, function: Callable[P, R]) -> Callable[P, R]:
        """As `Dependency.guard`."""
        return self._dependency.guard(function)

    def report(self, exc: BaseException, *, phase: str = "") -> Fault:
        """As `Dependency.report`."""
        return self._dependency.report(exc, phase=phase)


_starting = threading.Lock()
_background: list[asyncio.AbstractEventLoop] = []


def _background_loop() -> asyncio.AbstractEventLoop:
    """Give the one loop of this process that probes for threads; start it if need be."""
    with _starting:
        if not _background:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="outlast", daemon=True).start()
            _background.append(loop)
        return _background[0]
