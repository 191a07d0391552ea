"""The guard around a call: what `Dependency.use` and `Dependency.guard` do, made cheap.

While all is well a call pays for two attribute reads, a counter and a `try`. Everything else happens
only when the dependency is down, on trial or recovering.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from outlast._runtime.dependency.door import admit, enter
from outlast._runtime.service.progress import current

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from outlast._runtime.dependency.cell import Cell

P = ParamSpec("P")
R = TypeVar("R")


class Use:
    """A guarded block. See `Dependency.use`. Enter it once; it works with `async with` and with `with`."""

    __slots__ = ("_cell", "_epoch", "_phase", "_place")

    def __init__(self, cell: Cell, phase: str) -> None:
        self._cell = cell
        self._phase = phase
        self._place = False
        self._epoch = 0

    def __enter__(self) -> None:
        """Pass, or raise `Unavailable`."""
        cell = self._cell
        self._place = not cell.passable and enter(cell)
        self._epoch = cell.epoch

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        """Record the outcome as evidence; the exception, if any, passes."""
        cell = self._cell
        if exc is not None:
            cell.failed(exc, self._epoch, self._phase, self._place)
            return
        current.get().count += 1
        if self._place or cell.attentive:
            cell.succeeded(self._epoch, self._place)

    async def __aenter__(self) -> None:
        """Pass, or raise `Unavailable`."""
        cell = self._cell
        self._place = not cell.passable and await admit(cell)
        self._epoch = cell.epoch

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Record the outcome as evidence; the exception, if any, passes."""
        self.__exit__(kind, exc, traceback)


def guarded(cell: Cell, function: Callable[P, R]) -> Callable[P, R]:
    """Wrap `function`, a coroutine function or a plain one, in a `Use` without the object."""
    if inspect.iscoroutinefunction(function):
        wrapped: Any = _guarded_async(cell, cast("Callable[P, Awaitable[Any]]", function))
    else:
        wrapped = _guarded_sync(cell, function)
    return cast("Callable[P, R]", functools.update_wrapper(wrapped, function))


def _guarded_sync(cell: Cell, function: Callable[P, R]) -> Callable[P, R]:
    get_progress = current.get

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        place = not cell.passable and enter(cell)
        epoch = cell.epoch
        try:
            result = function(*args, **kwargs)
        except BaseException as exc:
            cell.failed(exc, epoch, "", place)
            raise
        get_progress().count += 1
        if place or cell.attentive:
            cell.succeeded(epoch, place)
        return result

    return call


def _guarded_async(cell: Cell, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    get_progress = current.get

    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        place = not cell.passable and await admit(cell)
        epoch = cell.epoch
        try:
            result = await function(*args, **kwargs)
        except BaseException as exc:
            cell.failed(exc, epoch, "", place)
            raise
        get_progress().count += 1
        if place or cell.attentive:
            cell.succeeded(epoch, place)
        return result

    return call
