"""Drive a coroutine step by step, so that one that spins *inside* its body is seen and slowed down."""

from __future__ import annotations

import asyncio
import types
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

T = TypeVar("T")


@types.coroutine
def metered(coroutine: Coroutine[Any, Any, T], idle_step: Callable[[], float]) -> Generator[Any, Any, T]:
    """Run `coroutine` to its end and return its result, as `await coroutine` would.

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
        wait_s = 0.0
        try:
            value = yield awaited
            if awaited is None:
                wait_s = idle_step()
        except GeneratorExit:
            coroutine.close()
            raise
        except asyncio.CancelledError as exc:
            error = exc
        except BaseException as exc:  # noqa: BLE001 - handed on to the coroutine, as `yield from` does
            error = exc
            wait_s = idle_step()
        if wait_s > 0:
            try:
                yield from asyncio.sleep(wait_s).__await__()
            except asyncio.CancelledError as exc:
                error = exc
