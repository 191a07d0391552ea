"""An event loop in a thread of its own, for those that cannot wait on one."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from outlast import Stopping

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Iterator

T = TypeVar("T")
CLOSED: Final = "the client is closed"
END: Final = object()
CLOSE_S_MAX: Final = 5.0
"""The longest that closing waits for what is under way to end."""


class LoopThread:
    """An event loop in a thread of its own, a daemon: a process that ends does not wait for it."""

    def __init__(self, name: str) -> None:
        """Start it."""
        self._loop = asyncio.new_event_loop()
        self._is_closed = False
        # Protects `_is_closed`: after it is set nothing more is handed to the loop.
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there, and return its result. Interrupted, by Ctrl-C for one, it cancels it.

        Raises `Stopping` when the loop has been closed, and `RuntimeError` on an event loop's own thread, which it would freeze.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            coroutine.close()
            raise RuntimeError("a BlockingClient would freeze the event loop of this thread: use Client there")
        with self._lock:
            if self._is_closed:
                coroutine.close()
                raise Stopping(CLOSED)
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise Stopping(CLOSED) from None
        except BaseException:
            future.cancel()
            raise

    def close(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run a last coroutine, and end the loop and its thread. A second time does nothing."""
        with self._lock:
            if self._is_closed:
                coroutine.close()
                return
            self._is_closed = True
            ending = asyncio.run_coroutine_threadsafe(self._end(coroutine), self._loop)
        ending.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._loop.stop))
        self._thread.join(CLOSE_S_MAX)

    async def _end(self, coroutine: Coroutine[Any, Any, object]) -> None:
        await coroutine
        # Whoever waits in another thread is told.
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=1.0) if tasks else None

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def each(self, source: AsyncGenerator[T]) -> Iterator[T]:
        """Yield what an asynchronous generator yields. It is closed with this one."""
        try:
            while (item := self.call(_next(source))) is not END:
                yield cast("T", item)
        finally:
            if not self._is_closed:
                self.call(source.aclose())


async def _next(source: AsyncGenerator[T]) -> T | object:
    return await anext(source, END)
