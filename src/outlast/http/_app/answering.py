"""The middleware that answers for an application that raises, and logs what has to be logged."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Final

from outlast import Classifiers, Fault, Incident, Kind
from outlast.http._app.extensions import ABORT, REQUEST_ID, extensions
from outlast.http._app.problem import problem_of, refusal_in
from outlast.http._app.request_ids import HEADER, request_id_of

if TYPE_CHECKING:
    from outlast.http._app.extensions import App, Message, Receive, Scope, Send

BETTER_S: Final = 10.0
"""The seconds without a failure after which things look better, and then the seconds until the incident is resolved."""
RESOLVED_S: Final = 30.0
HELD_BYTES_MAX: Final = 64 * 1024
"""The most of an answer 500 that is held back."""
_CALLERS: Final = frozenset({Kind.REJECTED, Kind.STOPPING})
"""The kinds that are the caller's affair, or our own stop's: they write no line."""
_GONE: Final = "starlette.requests.ClientDisconnect"


class ProblemMiddleware:
    """Answers what `app` raises as problem+json, names each request, and logs each failure once.

    A refusal (`Unavailable`, admission's, `Stopping`) and a request that is wrong write no line. What is known to a dependency is
    told by its incident. Everything else that answers 5xx is folded into one incident of this middleware: a bug is one ERROR with
    its traceback, and then counted. An application that answers 500 by itself and then raises, as starlette does, is answered for
    as well: an answer 500 is held back until the application has returned. Once an answer has begun, a failure closes the
    connection: by the server's extension, otherwise the exception is raised to the server. A client that leaves is no failure.
    Each answer has the header `x-request-id`: that of the request if it is a fit one, otherwise a new one.
    """

    def __init__(self, app: App, *, classifiers: Classifiers | None = None, name: str = "http") -> None:
        """`classifiers` know the exceptions of the application; `name` is how the log calls it."""
        self.app = app
        self.incident = Incident(name, verb="is failing")
        self._classifiers = classifiers or Classifiers()
        self._rng = random.Random()
        self._failed_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        known = extensions(scope)
        name = known.get(REQUEST_ID)
        if name is None:
            name = known[REQUEST_ID] = request_id_of(scope["headers"], self._rng)
        answer = _Answer(send, name)
        try:
            await self.app(scope, receive, answer.send)
        except Exception as exc:
            if answer.failed_by(exc):
                return
            self._log(exc)
            if not answer.begun:
                await self._answer(exc, scope, receive, answer)
            elif ABORT in known:
                known[ABORT]()
            else:
                raise
        else:
            await answer.let_go()

    async def _answer(self, exc: Exception, scope: Scope, receive: Receive, answer: _Answer) -> None:
        # A server may say so when the client does not wait for it.
        with contextlib.suppress(OSError):
            await problem_of(exc, self._classifiers)(scope, receive, answer.forward)

    def _log(self, exc: Exception) -> None:
        if refusal_in(exc) is not None:
            return
        fault = self._classifiers.classify(exc)
        if fault.kind in _CALLERS or _told_elsewhere(fault):
            return
        loop = asyncio.get_running_loop()
        self._failed_at = loop.time()
        self.incident.fault(fault, exc)
        if self._timer is None:
            self._timer = loop.call_later(BETTER_S, self._look)

    def _look(self) -> None:
        """See whether there was no failure for a while: at most one timer runs, however many failures there are."""
        loop = asyncio.get_running_loop()
        quiet_s = loop.time() - self._failed_at
        self._timer = None
        if quiet_s >= BETTER_S + RESOLVED_S:
            self.incident.resolve()
            return
        if quiet_s >= BETTER_S:
            self.incident.better()
        due_s = BETTER_S if quiet_s < BETTER_S else BETTER_S + RESOLVED_S
        self._timer = loop.call_later(due_s - quiet_s, self._look)


def _told_elsewhere(fault: Fault) -> bool:
    """Return whether the incident of a dependency tells about it."""
    return fault.is_evidence and bool(fault.source)


class _Answer:
    """The way of one answer to the server: with the id of the request, and an answer 500 held back."""

    def __init__(self, send: Send, request_id: str) -> None:
        self.begun = False
        self._send = send
        self._header = (HEADER, request_id.encode())
        self._held: list[Message] = []
        self._error: BaseException | None = None
        """What the server's `send` raised: its client has left."""

    async def send(self, message: Message) -> None:
        if (message["type"] == "http.response.start" and message["status"] == 500) or (
            self._held and not message.get("more_body", False) and len(message.get("body", b"")) <= HELD_BYTES_MAX
        ):
            self._held.append(message)
        else:
            await self.let_go()
            await self.forward(message)

    async def let_go(self) -> None:
        """Send what was held back."""
        held, self._held = self._held, []
        for message in held:
            await self.forward(message)

    def failed_by(self, exc: BaseException) -> bool:
        """Return whether `exc` only says that the client has left."""
        names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(exc).__mro__)
        return exc is self._error or _GONE in names

    async def forward(self, message: Message) -> None:
        """Send it now, whatever is held back."""
        if message["type"] == "http.response.start":
            # The application may pass on an answer with an id of its own.
            others = [header for header in message.get("headers", ()) if header[0].lower() != HEADER]
            message = {**message, "headers": [*others, self._header]}
            self.begun = True
        try:
            await self._send(message)
        except OSError as exc:
            self._error = exc
            raise
