"""An event loop whose time jumps: nobody sleeps, and a test of a day's waits takes a moment.

def test_it() -> None:
    async def main() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 3600
"""

from __future__ import annotations

import asyncio
import heapq
import selectors
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple, Unpack

from outlast._core.faults import OutlastError
from outlast.testing._time.seeded_order import SeededOrder, SeededTimer

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Coroutine, Generator
    from concurrent.futures import Executor
    from contextvars import Context

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STANDSTILL_TURNS_MAX: Final = 1_000_000
"""Turns of the loop without any time passing, some seconds of work, after which it is taken to spin forever."""
THREADS_S_MAX: Final = 60.0
"""Real seconds that the loop waits for threads."""
_TASKS_NAMED_MAX: Final = 10


class DeadlockError(OutlastError):
    """Nothing is ready, no timer is set, and no thread or descriptor is waited for: nothing could ever happen again."""


class SpinError(OutlastError):
    """Something is always ready, so that time cannot pass."""


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for time to pass, lets it pass."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # All that was made ready stands in the loop's queue now, and nothing of it has begun.
        self.loop.put_in_order()
        ready = super().select(0)
        if ready or timeout == 0:
            self.loop.turn_without_time()
            return ready
        if self.loop.threads:
            return self._wait_for_threads()
        if timeout is None:
            # One descriptor is the loop's own, by which threads wake it.
            if len(self.get_map()) > 1:
                return super().select(None)
            msg = f"deadlock at {self.loop.time():g} s: nothing is ready and no timer is set; {self.loop.waiting()}"
            raise DeadlockError(msg)
        self.loop.jump(timeout)
        return []

    def _wait_for_threads(self) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(THREADS_S_MAX)
        if not ready:
            msg = f"deadlock at {self.loop.time():g} s: a thread did not answer in {THREADS_S_MAX:g} s; {self.loop.waiting()}"
            raise DeadlockError(msg)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time: when nothing is ready, time jumps to the next deadline.

    Time stands still while threads work: those of `run_in_executor` and `asyncio.to_thread` by themselves, others inside
    `waiting_for_threads()`. Sockets work, but no time passes for them: a time-out strikes before an answer that is not there yet.
    After `time_limit_s` virtual seconds the loop raises `TimeoutError`; when a million turns pass in no time, `SpinError`.

    With a `seed`, chance decides where asyncio promises nothing: in each turn of the loop the steps of those tasks that are
    ready are shuffled, and so are timers that are due at exactly the same time (tasks that sleep until then included). The
    same seed replays the same order, in one version of Python. `call_soon` stays first come, first served: callbacks that are
    no step of a task keep their places. What descriptors and threads report comes as it comes, and no seed replays it, nor
    the order of a set of objects, nor `random` that was not seeded.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, *, start_s: float = 0.0, time_limit_s: float = 1e9, seed: int | None = None) -> None:
        """Start the clock at `start_s`. Without a `seed`, what is ready runs first come, first served."""
        self.seed = seed
        self._order = None if seed is None else SeededOrder(seed)
        self._virtual_s = start_s
        self._limit_s = start_s + time_limit_s
        self._turns = 0
        self.threads = 0
        """Threads that are waited for."""
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._virtual_s

    def jump(self, seconds: float) -> None:
        """Let that many seconds pass. Raises `TimeoutError` beyond the limit."""
        self._turns = 0
        self._virtual_s += seconds
        if self._virtual_s > self._limit_s:
            msg = f"the virtual time limit is reached at {self._virtual_s:g} s; {self.waiting()}"
            raise TimeoutError(msg)

    def turn_without_time(self) -> None:
        """Count a turn of the loop in which no time passed."""
        self._turns += 1
        if self._turns > STANDSTILL_TURNS_MAX:
            self._turns = 0
            msg = (
                f"{STANDSTILL_TURNS_MAX} turns of the loop at {self._virtual_s:g} s: something is always ready; {self.waiting()}"
            )
            raise SpinError(msg)

    def put_in_order(self) -> None:
        """Shuffle the tasks that are ready, if there is a seed."""
        if self._order is not None:
            self._order.shuffle(self._ready)

    def create_task(self, coro: Generator[Any, None, T] | Coroutine[Any, Any, T], **options: Any) -> asyncio.Task[T]:  # noqa: ANN401  whatever this Python's loop takes
        """Make a task, and remember the order in which they were made."""
        task = super().create_task(coro, **options)
        if self._order is not None:
            self._order.born(task)
        return task

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call back at a time; with a seed, chance decides between those that are due at exactly the same time."""
        if self._order is None or self.is_closed():
            return super().call_at(when, callback, *args, context=context)
        timer = SeededTimer(when, callback, args, self, context, self._order.tie())
        heapq.heappush(self._scheduled, timer)
        return timer

    def cancel_tasks(self) -> None:
        """Cancel the tasks that are left, and run until they have ended.

        It is what `asyncio.Runner` does too, in an order of object addresses. With a seed it is the order of their births.
        """
        tasks = asyncio.all_tasks(self)
        if not tasks or self._order is None:
            return
        ordered = sorted(tasks, key=self._order.birth)
        for task in ordered:
            task.cancel()
        self.run_until_complete(asyncio.gather(*ordered, return_exceptions=True))
        for task in ordered:
            if not task.cancelled() and (exc := task.exception()) is not None:
                told = {"message": "unhandled exception while run_virtual() ended", "exception": exc, "task": task}
                self.call_exception_handler(told)

    def waiting(self) -> str:
        """Describe what the tasks wait for."""
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: task.get_name())
        lines = [f"{task.get_name()} at {_place(task)}" for task in tasks[:_TASKS_NAMED_MAX]]
        if len(tasks) > len(lines):
            lines.append(f"and {len(tasks) - len(lines)} more")
        return f"waiting: {', '.join(lines)}" if lines else "no task is left"

    @contextmanager
    def waiting_for_threads(self) -> Generator[None]:
        """Guard a block in which time stands still when nothing is ready, because a thread is about to call in."""
        self.threads += 1
        try:
            yield
        finally:
            self.threads -= 1

    def run_in_executor(self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        """Run in a thread; time stands still until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self.threads += 1
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  asyncio's name
        """Wait, in real time, until the threads have ended."""
        del timeout
        with self.waiting_for_threads():
            await super().shutdown_default_executor()

    def _thread_done(self, future: asyncio.Future[Any]) -> None:
        del future
        self.threads -= 1


def run_virtual(
    main: Callable[[], Coroutine[Any, Any, T]] | Coroutine[Any, Any, T],
    *,
    start_s: float = 0.0,
    time_limit_s: float = 1e9,
    seed: int | None = None,
) -> T:
    """Run `main()`, or a coroutine, on a `VirtualTimeLoop` to its end and return its result.

    With a `seed`, tasks that are ready at the same instant run in an order that the seed decides (see `VirtualTimeLoop`), and
    an exception that leaves carries the note `replay with seed=…`.

    Raises `DeadlockError` where a real loop would hang forever, `TimeoutError` after `time_limit_s` virtual seconds, and
    `SpinError` when something spins; the tasks that are left are cancelled first.
    """
    loop = VirtualTimeLoop(start_s=start_s, time_limit_s=time_limit_s, seed=seed)
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            try:
                return runner.run(main() if callable(main) else main)
            finally:
                loop.cancel_tasks()
    except BaseException as exc:
        _note_seed(exc, seed)
        raise


def _note_seed(exc: BaseException, seed: int | None) -> None:
    """Add a note that says how to replay it; once, also when a test keeps one exception and raises it again and again."""
    note = f"replay with seed={seed}"
    if seed is not None and note not in getattr(exc, "__notes__", ()):
        exc.add_note(note)


def _place(task: asyncio.Task[Any]) -> str:
    """Return where a task is suspended."""
    frames = task.get_stack(limit=1)
    if not frames:
        return "its start"
    frame = traceback.extract_stack(frames[-1], limit=1)[0]
    return f"{frame.name} ({frame.filename.rpartition('/')[2]}:{frame.lineno})"
