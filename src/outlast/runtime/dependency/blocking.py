"""The thread face of a dependency: the same health state, waited for without a coroutine."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast.core.faults import Fault
    from outlast.runtime.dependency.dependency import Dependency
    from outlast.runtime.dependency.use import Use

P = ParamSpec("P")
R = TypeVar("R")


class BlockingDependency:
    """`ready`, `use`, `guard`, `report` and `close` for threads.

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
        loop = self._loop("ready") or _background_loop()
        future = asyncio.run_coroutine_threadsafe(dependency.ready(timeout_s), loop)
        try:
            future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Let go of everything held, and ask no more: for a program without a service, at its end. Bounded as `Dependency.close`.

        Raises `RuntimeError` on the event loop's own thread, which it would block for ever.
        """
        loop = self._loop("close")
        if loop is not None:
            asyncio.run_coroutine_threadsafe(self._dependency.close(), loop).result()

    def _loop(self, what: str) -> asyncio.AbstractEventLoop | None:
        """The running loop that the dependency belongs to, if any; raises on that loop's own thread."""
        dependency = self._dependency
        loop = dependency.loop
        if loop is None or not loop.is_running():
            return None
        if threading.get_ident() == dependency.thread_id:
            msg = f"{dependency.name}.blocking.{what}() would block the event loop: await {dependency.name}.{what}()"
            raise RuntimeError(msg)
        return loop

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
