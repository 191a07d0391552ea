"""One request at work: a task that calls the application, between it and the connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

from outlast.admission import Ticket, Waiting
from outlast.http._app.admitting import outcome
from outlast.http._app.extensions import REQUEST_ID, TICKET
from outlast.http._server import refusals

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from outlast.http._app.extensions import Message
    from outlast.http._app.problem import Problem
    from outlast.http._server.connection import Connection
    from outlast.http._server.host import Host

DROPPED_MAX: Final = 1_000
"""The parts of an answer that are dropped for a client that is gone, before the application is told by an error."""


class UnansweredError(RuntimeError):
    """The application has returned, and its client has no whole answer."""


class Request:
    """A request whose turn it is. `run` is the body of its task; `ended` is called when that has ended, begun or not."""

    __slots__ = (
        "_connection",
        "_dropped",
        "_extensions",
        "_given_all",
        "_half_closed",
        "_host",
        "_plain",
        "_status",
        "_told_gone",
        "_waiting",
        "closes",
        "cycle",
    )

    def __init__(self, host: Host, connection: Connection, cycle: RequestResponseCycle) -> None:
        self._host = host
        self._connection = connection
        self.cycle = cycle
        self._extensions = cast("dict[str, Any]", cycle.scope.get("extensions"))
        self.closes = False
        """Whether the connection ends with the answer; known when the answer has begun."""
        self._plain = cycle.scope["http_version"] == "1.0"
        """Whether the client knows no chunks: the end of the connection is the end of a body without a length."""
        self._given_all = False
        """Whether the application was given all of the body."""
        self._half_closed = False
        self._told_gone = False
        self._dropped = 0
        self._status = 0
        self._waiting: Waiting | None = None
        """Its place in the queue of admission, until something has come of it."""

    @property
    def request_id(self) -> str:
        """The id of the request."""
        return str(self._extensions[REQUEST_ID])

    def begin(self) -> None:
        """Start its task; if it has to wait to be let in, when it is: one that is refused then has cost none."""
        waiting = self._extensions.get(TICKET)
        if isinstance(waiting, Waiting):
            self._waiting = waiting
            waiting.on_outcome(self._decided)
        else:
            self._start()

    def _start(self) -> None:
        task = self._host.loop.create_task(self.run())
        self._connection.tasks.add(task)
        task.add_done_callback(self.ended)

    def _decided(self) -> None:
        """Go on with what has come of its place."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        got = waiting.outcome()
        if isinstance(got, Ticket):
            self._extensions[TICKET] = got
            self._start()
            return
        del self._extensions[TICKET]
        if got is None:
            self._break_off(refusals.STOPPING)
        else:
            self._connection.refuse_active(self, got)

    def part(self) -> None:
        """Let go of the connection: that and the cycle hold each other through this callback."""
        self.cycle.on_response = _nothing

    def _leave(self) -> bool:
        """Leave the queue of admission; return whether it was in it."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return False
        del self._extensions[TICKET]
        waiting.release(ok=None)
        return True

    async def run(self) -> None:
        """Call the application, which answers for what it raises; see to it that there is an answer."""
        cycle = self.cycle
        self._host.tally.requests += 1
        try:
            await self._host.app(cycle.scope, self.receive, self.send)  # type: ignore[arg-type]
        except Exception as exc:  # noqa: BLE001 - it answers for what it raises; this is what it could not answer for
            self._break(exc)
        except asyncio.CancelledError:
            self._break_off(refusals.STOPPING if self._host.stopping else refusals.BROKEN)
            raise
        else:
            if self._told_gone and not cycle.response_complete:
                # It gave up an answer that may be waited for after all; the client sees the end of the stream.
                self._connection.abort()
            elif not (cycle.response_complete or cycle.disconnected):
                what = "did not end its answer" if cycle.response_started else "made no answer"
                self._break(UnansweredError(f"the application has returned and {what}"))
        finally:
            self._release()
            self.part()

    def _break(self, exc: Exception) -> None:
        scope = self.cycle.scope
        self._host.broke(exc, scope["method"], scope["raw_path"], self.request_id)
        self._break_off(refusals.BROKEN)

    def _break_off(self, problem: Problem) -> None:
        """Answer in the place of the application; once it has begun, the client sees that the answer is not whole."""
        if self._connection.active is not self:
            return
        if self.cycle.response_started:
            self._connection.abort()
        else:
            self._connection.answer_for(self, problem)

    def ended(self, task: asyncio.Task[None]) -> None:
        """Return what the request holds, however its task has ended."""
        self._connection.tasks.discard(task)
        if not task.cancelled():
            task.exception()
        self._release()
        # One that was cancelled before its first step has answered nobody.
        self._break_off(refusals.STOPPING)

    def _release(self) -> None:
        """Return the ticket of admission, if there is one: in the step in which the application has ended."""
        ticket = self._extensions.pop(TICKET, None)
        if ticket is not None:
            whole = self.cycle.response_complete and not self.cycle.disconnected
            ticket.release(ok=outcome(self._status, self._extensions) if whole else None)

    # From the connection.

    def lost(self) -> None:
        """Note that nobody waits for the answer any more: what is sent goes nowhere, and `receive` says so."""
        self._leave()
        self.cycle.disconnected = True
        self.cycle.message_event.set()

    def half_closed(self) -> None:
        """Note that the client has closed its side: who asks is told that it is gone, and what is sent is still written.

        Of one that waits to be let in nobody knows whether it is gone, and whoever is gone must not be let in.
        """
        if self._leave():
            self._connection.abort()
            return
        self._half_closed = True
        self.cycle.message_event.set()

    # From the application.

    async def receive(self) -> Message:
        """Return the next part of the body, or that the client is gone."""
        had_all = self._given_all
        if not (had_all and self._half_closed):
            message: Message = await self.cycle.receive()  # type: ignore[assignment]
            if not (had_all and self._half_closed):
                self._given_all = not message.get("more_body", False)
                return message
        self._told_gone = True
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send a part of the answer. Waits while the client does not read what it was sent.

        Once the client is gone what is sent goes nowhere, as the specification of ASGI wants it; of one that sends on and on all
        the same this raises `ConnectionResetError` in the end.
        """
        cycle = self.cycle
        if cycle.disconnected or self._connection.transport.is_closing():
            await self._drop()
            return
        if not cycle.response_started:
            if message["type"] == "http.response.start":
                await self._begin(message)
                return
        elif not cycle.response_complete:
            count = len(message.get("body", b""))
            self._connection.written += count
            if self._plain and cycle.scope["method"] != "HEAD":
                cycle.expected_content_length = count
        await cycle.send(message)  # type: ignore[arg-type]

    async def _drop(self) -> None:
        # The transport learns of a reset before the connection does: it would log a warning for each part.
        self.lost()
        self._dropped += 1
        if self._dropped > DROPPED_MAX:
            raise ConnectionResetError(f"the client is gone, and {DROPPED_MAX} parts of the answer went nowhere")
        # An application that waits for nothing else lets the others go on here, and is cancelled here.
        await asyncio.sleep(0)

    async def _begin(self, message: Message) -> None:
        cycle = self.cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            # Whether this is the last answer is decided when it is written, not before that wait.
            await cycle.flow.drain()
        # A client that waits for "100 Continue" and gets this instead may or may not send its body.
        undecided = cycle.waiting_for_100_continue and cycle.more_body
        cycle.keep_alive = cycle.keep_alive and not undecided and not self._connection.closes
        if self._plain:
            cycle.chunked_encoding = False
        self._status = message["status"]
        await cycle.send(message)  # type: ignore[arg-type]
        self.closes = not cycle.keep_alive
        # uvicorn would close at once; the connection ends itself, so that the client can read all of it.
        cycle.keep_alive = True


def _nothing() -> None:
    """Stand in for the callback of a cycle that is over."""
