"""An event loop whose time jumps: nobody sleeps, and a test of a day's waits takes a moment.

def test_it() -> None:
    async def main() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 3600
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class DeadlockError(RuntimeError):
    """Nothing is ready, no timer is set and no descriptor is watched: nothing could ever happen again."""


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for time to pass, lets it pass."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            # One descriptor is the loop's own, by which threads wake it.
            if len(self.get_map()) > 1 or self.loop.threads:
                return super().select(None)
            msg = f"deadlock at {self.loop.time():.3f} s: every task waits for something that nothing will do"
            raise DeadlockError(msg)
        self.loop.jump(timeout)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time: when nothing is ready, time jumps to the next deadline.

    Real input and output work, but take no time. `threads` counts work handed to threads, which is waited for in real
    time. After `time_limit_s` virtual seconds it raises `TimeoutError`: a test that would run for ever ends.
    """

    def __init__(self, *, start_s: float = 0.0, time_limit_s: float = 1e9) -> None:
        """Start the clock at `start_s`."""
        self._virtual_s = start_s
        self._limit_s = start_s + time_limit_s
        self.threads = 0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)
        # The real loop takes timers within its clock's resolution as due; here the clock is exact.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """The virtual time, in seconds."""
        return self._virtual_s

    def jump(self, seconds: float) -> None:
        """Let time pass."""
        self._virtual_s += seconds
        if self._virtual_s > self._limit_s:
            msg = f"the virtual time limit is reached at {self._virtual_s:.3f} s"
            raise TimeoutError(msg)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # noqa: ANN401
        """Run in a thread; time stands still until it is done."""
        self.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, future: asyncio.Future[Any]) -> None:
        del future
        self.threads -= 1


def run_virtual(main: Callable[[], Coroutine[Any, Any, T]], *, start_s: float = 0.0, time_limit_s: float = 1e9) -> T:
    """Run `main()` on a `VirtualTimeLoop` to its end and give its result.

    Raises `DeadlockError` where a real loop would hang for ever, and `TimeoutError` after `time_limit_s` virtual seconds.
    """

    def new_loop() -> VirtualTimeLoop:
        return VirtualTimeLoop(start_s=start_s, time_limit_s=time_limit_s)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main())
