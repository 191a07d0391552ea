"""The lifespan of an ASGI application: one task of it that is told when the server starts and when it ends."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

from outlast import OutlastError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Message = dict[str, Any]
    App = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]

logger = logging.getLogger("outlast.http")


class LifespanError(OutlastError):
    """The application said that its start or its end has failed."""


class Lifespan:
    """Starts and ends the lifespan of `app`. `state` is what the application keeps for its requests.

    An application that knows no lifespan (it raises at once, or returns) is served without one, as the specification of ASGI
    wants it.
    """

    def __init__(self, app: App) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._task: asyncio.Task[None] | None = None
        self._inbox: asyncio.Queue[Message] = asyncio.Queue(2)
        self._answers: dict[str, asyncio.Future[Message]] = {}

    async def start(self) -> None:
        """Return when the application has started. Raises `LifespanError` with its message if it says that it cannot."""
        self._task = asyncio.create_task(self._run(), name="the lifespan of the application")
        try:
            await self._ask("startup", "did not start")
        except BaseException:
            self._task.cancel()
            raise

    async def end(self) -> None:
        """Return when the application has ended what it had started. Raises `LifespanError` if it says that it could not."""
        try:
            await self._ask("shutdown", "did not end well")
        finally:
            cast("asyncio.Task[None]", self._task).cancel()

    async def _ask(self, what: str, failure: str) -> None:
        """Send one message, and wait for the answer, or for the end of an application that has none to give."""
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._answers[what] = answer
        self._inbox.put_nowait({"type": f"lifespan.{what}"})
        waited: set[asyncio.Future[Any]] = {cast("asyncio.Task[None]", self._task), answer}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if answer.done() and answer.result()["type"] == f"lifespan.{what}.failed":
            raise LifespanError(f"the application {failure}: {answer.result().get('message') or 'it named no reason'}")

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._inbox.get, self._send)
        except Exception:
            logger.debug("the application has no lifespan, or ended it by raising", exc_info=True)

    async def _send(self, message: Message) -> None:
        answer = self._answers[message["type"].split(".")[1]]
        if not answer.done():
            answer.set_result(message)
