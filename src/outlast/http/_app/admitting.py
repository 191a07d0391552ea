"""The middleware that asks admission before the application costs anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast import OutlastError
from outlast.http._app.asking import ask as default_ask
from outlast.http._app.extensions import TICKET, TOKEN, extensions
from outlast.http._app.problem import problem_of

if TYPE_CHECKING:
    from outlast.admission import Admission, Ticket
    from outlast.http._app.asking import Asking
    from outlast.http._app.extensions import App, Message, Receive, Scope, Send


class AdmissionMiddleware:
    """Lets requests in as `admission` says, and answers the others: 429 or 503 with Retry-After, 413 for what never comes in.

    A server of ours has decided already, before it made anything of the request: its ticket is taken over. On another server it
    is asked here, and a request waits in the queue of the admission, within its time bound. The slot is free again when the
    application has returned, raised or was cancelled, in the same step; a long poll and an event stream give it back while they
    wait. The time of an answer 4xx or 5xx, and of a client that has left, is no sample of the latency.
    """

    def __init__(self, app: App, admission: Admission, *, ask: Asking = default_ask) -> None:
        """`ask` says what a request asks for; see `ask`."""
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
            try:
                ticket = await self._enter(scope)
            except OutlastError as refusal:
                await problem_of(refusal)(scope, receive, send)
                return
            known[TICKET] = ticket
        answer = _Outcome(send)
        # Nothing is awaited between the ticket and this block, which frees the slot whatever happens inside.
        with ticket:
            await self.app(scope, receive, answer.send)
            ticket.release(ok=answer.ok)

    async def _enter(self, scope: Scope) -> Ticket:
        client = scope.get("client")
        asked = self._ask(
            scope["method"], scope["path"], scope["headers"], client[0] if client else "", extensions(scope).get(TOKEN)
        )
        entry = self._admission.enter(
            key=asked.key,
            tenant=asked.tenant,
            cost=asked.cost,
            size_bytes=asked.size_bytes,
            deadline_s=asked.deadline_s,
            criticality=asked.criticality,
        )
        # Not `async with`: only what entering raises is answered here. The ticket is given back by its own block.
        return await entry.__aenter__()


class _Outcome:
    """The way of one answer to the server, which shows what came of it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.ok: bool | None = None
        """True once a whole answer below 400 has gone out."""
        self._good = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._good = message["status"] < 400
        await self._send(message)
        if self._good and message["type"] == "http.response.body" and not message.get("more_body", False):
            self.ok = True
