"""The three ways to call the body of a job: on the event loop, in a thread of the queue's own, or in a child process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from outlast import ConfigurationError, Phase
from outlast.extend import to_json
from outlast.jobs import _process_child as process_child
from outlast.jobs._importable import check, is_coroutine_function, place_of
from outlast.jobs._processes import ChildProcesses, ChildResult
from outlast.jobs._threads import HandlerThreads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast import Dependency, Service
    from outlast.jobs._decide import Handling
    from outlast.jobs._importable import Home
    from outlast.jobs._model import Job

    Handler = Callable[[Job], Any | Awaitable[Any]]

GRACE_SHARE: Final = 0.01
"""The share of the stop's deadline for idle children to end by themselves, and again for the kernel to end the others."""


def result_json(result: object, bytes_max: int) -> str | None:
    """Return the JSON text of what a body returned; a child process has made it already. Raises `NotJsonError`."""
    if isinstance(result, ChildResult):
        if result.error is not None:
            raise result.error
        return result.json
    return None if result is None else to_json(result, bytes_max)


class Bodies:
    """Calls the handlers of one worker process, each in its way, and knows for which kinds there is room.

    A job's time-out counts from the first step of its body, whatever was waited for before.
    """

    def __init__(
        self,
        handlers: dict[str, tuple[Handler, Handling]],
        *,
        workers: int,
        service: Service,
        result_bytes_max: int,
        freed: Callable[[], None],
    ) -> None:
        """`freed` is called when there may be room again for a kind that had none."""
        self._handlers = handlers
        self._grace_s = GRACE_SHARE * service.deadline_s
        self.threads = HandlerThreads(service.gate, workers, freed)
        self.children = ChildProcesses(self._places, result_bytes_max=result_bytes_max)
        if self._places():
            service.needs(self.children.dependency)
        service.on_start(self._open)
        service.on_stop(self._close, phase=Phase.CLOSE)

    def needs(self) -> dict[str, tuple[Dependency, ...]]:
        """Return what each kind needs, for the kinds of which a job could begin now. Of the others none may be acquired."""
        needs: dict[str, tuple[Dependency, ...]] = {}
        for kind, (handler, handling) in self._handlers.items():
            if handling.process:
                needs[kind] = (*handling.needs, self.children.dependency)
            elif is_coroutine_function(handler) or self.threads.has_room(kind):
                needs[kind] = handling.needs
        return needs

    async def call(self, job: Job) -> Any:  # noqa: ANN401 - the handler's result
        """Run the handler of a job and return its result.

        Raises what the handler raises, and `TimeoutError`. If this is cancelled the body ends; in a thread it goes on unseen.
        """
        handler, handling = self._handlers[job.kind]
        if handling.process:
            return await self.children.run(job, handling.timeout_s)
        if is_coroutine_function(handler):
            async with asyncio.timeout(handling.timeout_s):
                return await handler(job)
        return await self.threads.run(handler, job, handling.timeout_s)

    def _places(self) -> dict[str, Home]:
        return {kind: place_of(kind, handler) for kind, (handler, handling) in self._handlers.items() if handling.process}

    async def _open(self) -> None:
        if process_child.inside():
            msg = (
                "jobs: a service was started in a child process that was to import the handlers only: start it under "
                'if __name__ == "__main__", or with `outlast up`'
            )
            raise ConfigurationError(msg)
        for kind, place in self._places().items():
            check(kind, self._handlers[kind][0], place)
        self.children.open()

    async def _close(self) -> None:
        self.threads.close()
        await self.children.close(self._grace_s)
