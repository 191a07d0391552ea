"""The middleware that asks admission before the application costs anything."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from outlast import OutlastError
from outlast.admission import Refusal, Ticket, Waiting
from outlast.http._app.asking import BODY_BYTES_MAX
from outlast.http._app.asking import ask as default_ask
from outlast.http._app.extensions import PARKED, TICKET, TOKEN, extensions
from outlast.http._app.parking import end
from outlast.http._app.problem import problem_of

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from outlast import Admission
    from outlast.http._app.asking import Asking
    from outlast.http._app.extensions import App, Message, Receive, Scope, Send


class AdmissionMiddleware:
    """Lets requests in as `admission` says, and answers the others: 429 or 503 with Retry-After, 413 for what never comes in.

    A server of ours has asked already, before it made anything of the request: what it got is taken over. On another server it
    is asked here. A request may wait in the queue of the admission, within its time bound, and leaves it when its client
    leaves. The slot is free again when the application has returned, raised or was cancelled, in the same step; a long
    poll and an event stream let others have it while they wait. Their time, that of an answer 4xx, and that of a client that
    has left is no sample of the latency; an answer 5xx would have taken at least as long as it did.
    """

    def __init__(
        self,
        app: App,
        admission: Admission,
        *,
        ask: Asking = default_ask,
        body_bytes_max: int | None = BODY_BYTES_MAX,
        releases: bool = True,
    ) -> None:
        """`ask` returns what a request asks for; it has the arguments of `outlast.http.ask`.

        `body_bytes_max` is the largest body that the server lets through, which a request without a length announces as its
        size; None: there is no bound, and it announces nothing. `releases` False is for a server of ours, which itself releases
        the ticket in the scope when the application has ended: that saves what would have to look at the answer here.
        """
        self.app = app
        self._admission = admission
        self._ask = ask
        self._unknown_bytes = body_bytes_max or 0
        self._releases = releases

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        # Not async itself: a coroutine more costs each request that was let in already a microsecond.
        if scope["type"] != "http" or (not self._releases and type(extensions(scope).get(TICKET)) is Ticket):
            return self.app(scope, receive, send)
        return self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = extensions(scope)
        try:
            ticket: Ticket | Waiting | None = known.get(TICKET) or self._arrive(scope)
            if isinstance(ticket, Waiting):
                queued = _Queued(ticket, scope, receive)
                receive = queued.receive
                ticket = await queued.enter()
        except OutlastError as refusal:
            await problem_of(refusal)(scope, receive, send)
            return
        if ticket is None:
            return
        known[TICKET] = ticket
        if not self._releases:
            await self.app(scope, receive, send)
            return
        answer = _Outcome(send)
        # Nothing is awaited between the ticket and this block, which frees the slot whatever happens inside.
        with ticket:
            await self.app(scope, receive, answer.send)
            ticket.release(ok=outcome(answer.status, known) if answer.status else None)

    def _arrive(self, scope: Scope) -> Ticket | Waiting:
        """Ask the admission. Raises its refusal."""
        client = scope.get("client")
        address = client[0] if client else ""
        asked = self._ask(scope["method"], scope["path"], scope["headers"], address, extensions(scope).get(TOKEN))
        got = self._admission.arrive(
            key=asked.key,
            tenant=asked.tenant,
            cost=asked.cost,
            size_bytes=self._unknown_bytes if asked.size_bytes is None else asked.size_bytes,
            deadline_s=asked.deadline_s,
            criticality=asked.criticality,
        )
        if isinstance(got, Refusal):
            raise self._admission.error(got)
        return got


class _Queued:
    """A request that waits in the queue, and its messages that came meanwhile."""

    def __init__(self, waiting: Waiting, scope: Scope, receive: Receive) -> None:
        self._waiting = waiting
        # A client that waits for "100 Continue" would get it by the first look at its messages.
        self._watched = all(name != b"expect" for name, _ in scope["headers"])
        self._receive = receive
        self._came: list[Message] = []

    async def receive(self) -> Message:
        """Return the next message, as the server's `receive` does."""
        return self._came.pop(0) if self._came else await self._receive()

    async def enter(self) -> Ticket | None:
        """Return a ticket, or None if the client has left before there was one. Raises the refusal."""
        ticket = None
        try:
            ticket = await (self._watch() if self._watched else self._waiting.ticket())
        finally:
            if ticket is None:
                # It leaves the queue; a ticket that came in the step in which this was cancelled goes back.
                self._waiting.release(ok=None)
        return ticket

    async def _watch(self) -> Ticket | None:
        entering = asyncio.ensure_future(self._waiting.ticket())
        leaving = asyncio.ensure_future(self._until_gone())
        try:
            await asyncio.wait({entering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            # A body that goes on arriving says that the client is there; a server holds back more than that first part of it.
            if not self._gone:
                await asyncio.wait({entering})
        finally:
            await end(entering, leaving)
        return None if self._gone else entering.result()

    @property
    def _gone(self) -> bool:
        return bool(self._came) and self._came[-1]["type"] == "http.disconnect"

    async def _until_gone(self) -> None:
        """Keep the messages until the client has left, or more of a body is to come."""
        while not self._came or not (self._gone or self._came[-1].get("more_body", False)):
            self._came.append(await self._receive())


def outcome(status: int, known: dict[str, Any]) -> bool | None:
    """Return what a whole answer with this status says about how long the work takes, as `Ticket.release` has it.

    True: it was done. False, for 5xx: it failed, and would have taken at least so long. None: the request was wrong, or has
    waited as a long poll or an event stream.
    """
    if status < 400:
        return None if PARKED in known else True
    return None if status < 500 or PARKED in known else False


class _Outcome:
    """The way of one answer to the server, which shows what came of it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._status = 0
        self.status = 0
        """The status of a whole answer that has gone out; 0 before."""

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.status = self._status
