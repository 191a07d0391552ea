"""Drive a coroutine step by step, so that one that spins *inside* its body is seen and slowed down."""

from __future__ import annotations

import asyncio
import types
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

T = TypeVar("T")


@types.coroutine
def metered(
    coroutine: Coroutine[Any, Any, T], idle_step: Callable[[], float]
) -> Generator[Any, Any, T]:
    """Run `coroutine` to its end and give its result, as `await coroutine` would.

    `idle_step` is called at each step that did no more than yield (`asyncio.sleep(0)`) or fail (the awaited
    future ended with an exception): the two ways a `while True` spins without ever waiting. It answers how many
    seconds to wait before the next step. Cancellation and exceptions pass in and out unchanged.
    """
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            awaited = coroutine.send(value) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            result: T = stop.value
            return result
        value, error = None, None
        try:
            value = yield awaited
            if awaited is None or _failed(awaited):
                wait_s = idle_step()
                if wait_s > 0:
                    yield from asyncio.sleep(wait_s).__await__()
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as exc:  # noqa: BLE001 - handed on to the coroutine, as `yield from` does
            error = exc


def _failed(awaited: Any) -> bool:  # noqa: ANN401 - whatever a coroutine may yield to its event loop
    return (
        isinstance(awaited, asyncio.Future)
        and awaited.done()
        and not awaited.cancelled()
        and awaited.exception() is not None
    )
