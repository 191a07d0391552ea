"""A thread of one's own for what blocks, such as a disk.

The threads of asyncio are few, everybody shares them, and the interpreter waits for them when it ends. There one call that
blocks keeps name look-ups from their work, and the process from its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from concurrent.futures import Executor, Future, InvalidStateError
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")
WAITING_MAX: Final = 16
"""Calls that one thread may have before it: callers wait for each of theirs, so there are few."""


class _Inbox:
    """The calls that a thread has before it. Each number is written by one thread alone, so none needs a lock."""

    def __init__(self) -> None:
        # No Queue: its lock would be taken a second time if this thread's owner were collected while it is held.
        self.calls: SimpleQueue[tuple[Callable[[Any, Exception | None], object], Callable[[], Any]] | None] = SimpleQueue()
        """What is called in the thread, and before that what is told, in the thread, of its result or its error."""
        self.handed_over = 0
        """Written by the event loop's thread."""
        self.made = 0
        """Written by the thread that makes the calls."""


class OwnThread(Executor):
    """One thread that makes the calls it is handed, in that order, and nothing else.

    A daemon: if it blocks forever, the process can end all the same. It starts with the first call, and ends after `close` or
    when nobody holds this object any more. The methods are for the event loop's thread only, so nothing here needs a lock. As
    with every executor, virtual time stands still while a call is made.
    """

    def __init__(self, name: str, *, waiting_max: int = WAITING_MAX) -> None:
        self.name = name
        self.waiting_max = waiting_max
        self._inbox: _Inbox | None = None
        self._ending: Callable[[], object] | None = None

    def start(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Queue a call of `function` in the thread, and return the future of its result.

        To cancel the future ends the waiting, not the work: it is done all the same, in its turn. Raises `RuntimeError` if the
        system has no thread to spare, or `waiting_max` calls have not ended yet.
        """
        return asyncio.get_running_loop().run_in_executor(self, function)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in the thread and return its result. If this is cancelled, the thread calls it all the same."""
        return await self.start(partial(function, *args, **kwargs))

    def call(self, function: Callable[[], T], done: Callable[[T | None, Exception | None], object]) -> None:
        """Queue a call of `function` as `start` does; then `done(result, error)` is called on the event loop, once.

        It takes two thirds of the processor time of a future: for whoever makes thousands of calls a second.
        """
        loop = asyncio.get_running_loop()
        if type(loop).run_in_executor is not asyncio.BaseEventLoop.run_in_executor:
            # A loop that has its own way with threads is to know of this call, as one in virtual time.
            self.start(function).add_done_callback(partial(_tell, done))
            return
        self._hand_over(partial(_tell_loop, loop, done), function)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Hand over a call, as every executor does; see `start`."""
        future: Future[T] = Future()
        self._hand_over(partial(_settle, future), partial(fn, *args, **kwargs))
        return future

    def _hand_over(self, told: Callable[[Any, Exception | None], object], function: Callable[[], Any]) -> None:
        inbox = self._inbox
        if inbox is not None and (count := inbox.handed_over - inbox.made) >= self.waiting_max:
            raise RuntimeError(f"the thread {self.name} has {count} calls to make already (limit {self.waiting_max})")
        inbox = inbox or self._begin()
        inbox.handed_over += 1
        inbox.calls.put((told, function))

    def close(self) -> None:
        """Let the thread end once it has made its calls; this does not wait for it. The next call starts another."""
        if self._ending is not None:
            self._ending()
        self._inbox = self._ending = None

    def _begin(self) -> _Inbox:
        inbox = _Inbox()
        threading.Thread(target=_serve, args=(inbox, self.name), name=self.name, daemon=True).start()
        # The thread holds the inbox and not this object, so that it can be told when this object is gone.
        ending = weakref.finalize(self, inbox.calls.put, None)
        ending.atexit = False
        self._inbox, self._ending = inbox, ending
        return inbox


def _serve(inbox: _Inbox, name: str) -> None:
    """Make calls until there comes None."""
    while (call := inbox.calls.get()) is not None:
        _make(*call, inbox, name)
        # Not kept while waiting for the next one: it holds a job and its context.
        del call


def _make(told: Callable[[Any, Exception | None], object], function: Callable[[], Any], inbox: _Inbox, name: str) -> None:
    result, error = None, None
    try:
        result = function()
    except BaseException as exc:  # noqa: BLE001 - whatever it is, it is the call's and must not end the thread
        error = exc if isinstance(exc, Exception) and not isinstance(exc, StopIteration) else _as_error(exc, name)
    # Before the caller knows that it has ended: it may hand over the next one at once.
    inbox.made += 1
    told(result, error)


def _settle(future: Future[T], result: T, error: Exception | None) -> None:
    """Settle a future. Whoever cancelled it does not wait any more."""
    with contextlib.suppress(InvalidStateError):
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def _tell_loop(
    loop: asyncio.AbstractEventLoop, done: Callable[[T | None, Exception | None], object], result: T, error: Exception | None
) -> None:
    """Call `done` on an event loop, if that is not closed."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(done, result, error)


def _tell(done: Callable[[T | None, Exception | None], object], future: asyncio.Future[T]) -> None:
    """Call `done` for a future that nobody else has."""
    if future.cancelled():
        return
    error = future.exception()
    done(None if error is not None else future.result(), error if error is None or isinstance(error, Exception) else None)


def _as_error(exc: BaseException, name: str) -> Exception:
    """Return an error in place of what no future may carry, or would end the event loop: `SystemExit` and the like."""
    error = RuntimeError(f"a call in the thread {name} raised {type(exc).__name__}: {exc}")
    error.__cause__ = exc
    return error
