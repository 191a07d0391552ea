"""Threads of the queue's own, in which plain functions do jobs (see `OwnThread` for why they are not those of asyncio)."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from outlast import Fault, Kind, Unavailable
from outlast.extend import Once, OwnThread, escaped

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast import Gate
    from outlast.jobs._model import Job

LEFT_BEHIND_MIN: Final = 4
"""Threads that may be left behind in any case: with one worker too, a single handler that hangs does not end all work."""
NAMED_MAX: Final = 5
NO_THREAD_S: Final = 1.0
"""The `retry_after_s` of a refusal when the system starts no thread: there is no better estimate."""
logger = logging.getLogger("outlast.jobs")


class HandlerThreads:
    """Threads in which the plain functions among the handlers run: one for each job that is under way, so none waits for another.

    A thread cannot be cancelled. When its job has timed out or was cancelled, it is *left behind*: it is still counted,
    stands in the service's gate under the name of its job, and another thread takes its place. When a kind has left `left_max`
    behind, there is no room for it, and none of its jobs is acquired until one of them ends; that stops no other kind. So a kind
    never has more threads than `left_max` and `workers` together. Used on the event loop's thread only.
    """

    def __init__(self, gate: Gate, workers: int, freed: Callable[[], None]) -> None:
        """`gate` is the service's; `freed` is called when a thread that was left behind has ended its job."""
        self.workers = workers
        self.left_max = max(LEFT_BEHIND_MIN, workers)
        self._gate = gate
        self._freed = freed
        self._idle: deque[OwnThread] = deque()
        self._left: dict[ThreadBody, OwnThread] = {}
        self._made = 0
        self._no_room = Once()
        """The kinds of which it was said that there is no room."""

    def has_room(self, kind: str) -> bool:
        """Return whether jobs of this kind may be acquired."""
        return len(self._left) < self.left_max or len(self._left_by(kind)) < self.left_max

    @property
    def left(self) -> tuple[str, ...]:
        """The names of those left behind, the longest first."""
        return tuple(body.name for body in self._left)

    async def run(self, function: Callable[[Job], Any], job: Job, timeout_s: float | None) -> Any:  # noqa: ANN401
        """Call `function(job)` in a thread, with the context variables of the caller, and return its result.

        Raises `TimeoutError` when it has run for `timeout_s` seconds, counted from its first step, `Stopping` if it
        has not begun when the service stops, and `Unavailable` if the system starts no thread.
        """
        body = ThreadBody(function, job, self._gate)
        thread = self._take()
        try:
            call = thread.start(body)
        except RuntimeError as exc:
            fault = Fault(Kind.EXHAUSTED, "no thread", str(exc), "threads", hint="look at the limit of processes and threads")
            raise Unavailable("threads", fault, 0.0, NO_THREAD_S) from exc
        try:
            await _within(call, body, timeout_s)
        except (TimeoutError, asyncio.CancelledError):
            if not call.done():
                self._leave_behind(body, thread, call)
                raise
            # It has come to its end in the step in which it was cancelled.
        self._idle.append(thread)
        return call.result()

    def close(self) -> None:
        """End the threads that are idle now, and the others once they have ended their jobs."""
        for thread in (*self._idle, *self._left.values()):
            thread.close()
        self._idle.clear()

    def _take(self) -> OwnThread:
        if self._idle:
            return self._idle.pop()
        self._made += 1
        return OwnThread(f"jobs thread {self._made}", waiting_max=1)

    def _leave_behind(self, body: ThreadBody, thread: OwnThread, call: asyncio.Future[Any]) -> None:
        self._left[body] = thread
        call.add_done_callback(partial(self._came_back, body))
        if self.has_room(body.kind) or not self._no_room.news(subject=body.kind):
            return
        left = self._left_by(body.kind)
        logger.warning(
            "jobs: %d handlers of %s that were given up still hold their threads (limit %d): %s; no job of this kind is acquired "
            "until one ends. Give what they wait for a time-out of its own, or use process=True",
            len(left),
            body.kind,
            self.left_max,
            ", ".join([f"{each.name} for {each.ran_s():.0f} s" for each in left][:NAMED_MAX]),
        )

    def _came_back(self, body: ThreadBody, call: asyncio.Future[Any]) -> None:
        """Take back a thread that was left behind; nobody waits for what came of its job."""
        if not call.cancelled():
            call.exception()
        thread = self._left.pop(body)
        if len(self._idle) < self.workers:
            self._idle.append(thread)
        else:
            thread.close()
        left = len(self._left_by(body.kind))
        if left <= self.left_max // 2 and self._no_room.clear(body.kind):
            logger.info("jobs: only %d handlers of %s that were given up still hold their threads", left, body.kind)
        self._freed()

    def _left_by(self, kind: str) -> list[ThreadBody]:
        return [body for body in self._left if body.kind == kind]


class ThreadBody:
    """One call of a handler in a thread: its context, its name, and when it began."""

    def __init__(self, function: Callable[[Job], Any], job: Job, gate: Gate) -> None:
        """Take the context of the caller along: its progress counter, and what its log lines carry."""
        self.name = f"jobs {job.kind} {job.id}"
        self.kind = job.kind
        self._function = function
        self._job = job
        self._gate = gate
        self._context = copy_context()
        self._began_at: float | None = None
        """On the monotonic clock. Set once, by the thread; read by the event loop's."""

    def __call__(self) -> Any:  # noqa: ANN401 - the handler's result
        """Run it, in the thread: inside the gate, so that a stop waits for it and names it."""
        thread = threading.current_thread()
        own_name, thread.name = thread.name, self.name
        try:
            with self._gate.enter(self.name):
                self._began_at = time.monotonic()
                return self._context.run(self._function, self._job)
        except BaseException as exc:
            error = escaped(exc, self._job.kind)
            if error is exc:
                raise
            raise error from exc
        finally:
            thread.name = own_name

    def ran_s(self) -> float:
        """Return for how many seconds it has run; 0 before its first step."""
        return 0.0 if self._began_at is None else time.monotonic() - self._began_at


async def _within(call: asyncio.Future[Any], body: ThreadBody, timeout_s: float | None) -> None:
    """Return when the call has ended; raises `TimeoutError` once its body has run for `timeout_s` seconds."""
    left_s = timeout_s
    while not call.done():
        await asyncio.wait({call}, timeout=left_s)
        if timeout_s is None or call.done():
            continue
        left_s = timeout_s - body.ran_s()
        if left_s <= 0:
            msg = f"{body.name} did not end within {timeout_s:g} s; its thread goes on, since a thread cannot be cancelled"
            raise TimeoutError(msg)
