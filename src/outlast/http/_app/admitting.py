"""The middleware that asks admission before the application costs anything."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from outlast import OutlastError
from outlast.http._app.asking import ask as default_ask
from outlast.http._app.extensions import TICKET, TOKEN, extensions
from outlast.http._app.parking import end
from outlast.http._app.problem import problem_of

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from outlast import Admission
    from outlast.admission import Ticket
    from outlast.http._app.asking import Asking
    from outlast.http._app.extensions import App, Message, Receive, Scope, Send


class AdmissionMiddleware:
    """Lets requests in as `admission` says, and answers the others: 429 or 503 with Retry-After, 413 for what never comes in.

    A server of ours has decided already, before it made anything of the request: its ticket is taken over. On another server it
    is asked here, and a request may wait in the queue of the admission, within its time bound; it leaves the queue when its
    client leaves. The slot is free again when the application has returned, raised or was cancelled, in the same step; a long
    poll and an event stream let others have it while they wait. The time of an answer 4xx or 5xx, and of a client that has
    left, is no sample of the latency.
    """

    def __init__(self, app: App, admission: Admission, *, ask: Asking = default_ask) -> None:
        """`ask` returns what a request asks for; it has the arguments of `outlast.http.ask`."""
        self.app = app
        self._admission = admission
        self._ask = ask

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        known = extensions(scope)
        ticket: Ticket | None = known.get(TICKET)
        if ticket is None:
            arriving = _Arriving(scope, receive)
            receive = arriving.receive
            try:
                ticket = await arriving.enter(self._entering(scope))
            except OutlastError as refusal:
                await problem_of(refusal)(scope, receive, send)
                return
            if ticket is None:
                return
            known[TICKET] = ticket
        answer = _Outcome(send)
        # Nothing is awaited between the ticket and this block, which frees the slot whatever happens inside.
        with ticket:
            await self.app(scope, receive, answer.send)
            ticket.release(ok=answer.ok)

    def _entering(self, scope: Scope) -> Coroutine[Any, Any, Ticket]:
        client = scope.get("client")
        address = client[0] if client else ""
        asked = self._ask(scope["method"], scope["path"], scope["headers"], address, extensions(scope).get(TOKEN))
        entry = self._admission.enter(
            key=asked.key,
            tenant=asked.tenant,
            cost=asked.cost,
            size_bytes=asked.size_bytes,
            deadline_s=asked.deadline_s,
            criticality=asked.criticality,
        )
        # Not `async with`: only what entering raises is answered as a refusal. The ticket is given back by its own block.
        return entry.__aenter__()  # noqa: PLC2801


class _Arriving:
    """A request that may have to wait in the queue, and its messages that came meanwhile."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        # A client that waits for "100 Continue" would get it by the first look at its messages.
        self._watched = all(name != b"expect" for name, _ in scope["headers"])
        self._receive = receive
        self._came: list[Message] = []

    async def receive(self) -> Message:
        """Return the next message, as the server's `receive` does."""
        return self._came.pop(0) if self._came else await self._receive()

    async def enter(self, entering: Coroutine[Any, Any, Ticket]) -> Ticket | None:
        """Return a ticket, or None if the client has left before there was one. Raises what entering raises."""
        if not self._watched:
            return await entering
        came_in = _begin(entering)
        if came_in.done():
            return came_in.result()
        leaving = asyncio.ensure_future(self._until_gone())
        try:
            await asyncio.wait({came_in, leaving}, return_when=asyncio.FIRST_COMPLETED)
            # A body that goes on arriving says that the client is there; a server holds back more than that first part of it.
            if not came_in.done() and not self._gone:
                await asyncio.wait({came_in})
            await end(leaving)
        except BaseException:
            await _give_back(came_in, leaving)
            raise
        if not self._gone:
            return came_in.result()
        await _give_back(came_in)
        return None

    @property
    def _gone(self) -> bool:
        return bool(self._came) and self._came[-1]["type"] == "http.disconnect"

    async def _until_gone(self) -> None:
        """Keep the messages until the client has left, or more of a body is to come."""
        while not self._came or not (self._gone or self._came[-1].get("more_body", False)):
            self._came.append(await self._receive())


async def _give_back(came_in: asyncio.Task[Ticket], *others: asyncio.Task[None]) -> None:
    """End what enters. A ticket that it got in this very step goes back."""
    try:
        await end(came_in, *others)
    finally:
        if not came_in.cancelled() and came_in.exception() is None:
            came_in.result().release(ok=None)


def _begin(entering: Coroutine[Any, Any, Ticket]) -> asyncio.Task[Ticket]:
    """Return a task that has made its first step already, where Python can do that: most requests need no other."""
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        return asyncio.eager_task_factory(loop, entering)
    return loop.create_task(entering)


class _Outcome:
    """The way of one answer to the server, which shows what came of it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._good = False
        self.ok: bool | None = None
        """True once a whole answer below 400 has gone out; None before, and of any other."""

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self._good = message["status"] < 400
        await self._send(message)
        if self._good and not message.get("more_body", False) and message["type"] == "http.response.body":
            self.ok = True
