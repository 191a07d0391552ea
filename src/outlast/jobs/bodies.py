"""How the body of a job is called: on the event loop, or in a thread of the queue's own."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, TypeGuard

from outlast.jobs.threads import HandlerThreads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast import Gate
    from outlast.jobs.decide import Handling
    from outlast.jobs.model import Job

    Handler = Callable[[Job], Any | Awaitable[Any]]


def is_coroutine_function(handler: object) -> TypeGuard[Callable[[Job], Awaitable[Any]]]:
    """Whether calling it gives a coroutine: an `async def`, a partial of one, or an object whose `__call__` is one."""
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(type(handler), "__call__", None))


class Bodies:
    """Calls the handlers of one worker process, each in its way, and knows for which kinds there is room.

    A job's time-out counts from the first step of its body, whatever was waited for before.
    """

    def __init__(
        self, handlers: dict[str, tuple[Handler, Handling]], *, workers: int, gate: Gate, freed: Callable[[], None]
    ) -> None:
        """Belong to a service's `gate`; `freed` is called when there may be room again for a kind that had none."""
        self._handlers = handlers
        self.threads = HandlerThreads(gate, workers, freed)

    def has_room(self, kind: str) -> bool:
        """Whether a job of this kind could begin now: if not, none is to be acquired."""
        return is_coroutine_function(self._handlers[kind][0]) or self.threads.has_room

    async def call(self, job: Job) -> Any:  # noqa: ANN401 - the handler's result
        """Run the handler of a job and give its result.

        Raises what the handler raises, and `TimeoutError`. If it is cancelled the body ends; in a thread it goes on unseen.
        """
        handler, handling = self._handlers[job.kind]
        if is_coroutine_function(handler):
            async with asyncio.timeout(handling.timeout_s):
                return await handler(job)
        return await self.threads.run(handler, job, handling.timeout_s)

    async def close(self) -> None:
        """Let go of the threads."""
        self.threads.close()
