"""One connection: what its client reads and how long it may take, its requests, and an end that the client can see."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

from outlast.http._app.request_ids import request_id_of
from outlast.http._server import refusals
from outlast.http._server.incoming import Incoming, Input
from outlast.http._server.pace import Pace
from outlast.http._server.request import Request
from outlast.http._server.screen import wire

if TYPE_CHECKING:
    import asyncio

    from uvicorn._types import ASGI3Application
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from outlast.admission import Refusal
    from outlast.http._app.problem import Problem
    from outlast.http._server.host import Host
    from outlast.http._server.tally import Seat


class Connection(Incoming):
    """A client's connection. `overdue` is called now and then with the time: it ends what has lasted too long.

    Everything here is called on the event loop's thread. uvicorn parses, makes the scope and writes what the application sends;
    requests run as a `Request`.
    """

    def __init__(self, host: Host, seat: Seat) -> None:
        super().__init__(host)
        self.seat = seat
        self.made = False
        """Whether there is a transport."""
        self.written = 0
        """The bytes of bodies that were handed to the transport."""
        self._write_pace = Pace(host.limits.write_s, host.limits.write_bytes_per_s_min)
        self._read_by_client = 0
        self._body_paced = 0
        self._half_closed = False
        self._eof_due = False
        """Whether our side is to end when all is written."""

    # From the transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request; or say that there is no room."""
        super().connection_made(transport)
        self.made = True
        self._address = self.client[0] if self.client else ""
        transport.set_write_buffer_limits(high=self._limits.write_bytes_max)
        self._deadline = self.loop.time() + self._limits.headers_s
        if self.seat.refused:
            self._reply(self.seat.refused)
        elif self._host.stopping:
            self._reply(refusals.STOPPING)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the client of these requests is gone."""
        self.seat.leave()
        self.pipeline.clear()
        if self.active is not None:
            self.active.lost()
            self.active = None
        super().connection_lost(exc)
        # The parser holds this object, and so do the scopes of its requests. Only the collector would free all that, and what
        # was read of a request, and it counts objects and not their bytes.
        self.parser = self._parser = self.cycle = self._current = self.scope = None  # type: ignore[assignment] # nothing is called any more
        self.headers = []

    def eof_received(self) -> bool:  # type: ignore[override]
        """Note that the client has closed its side: return whether the connection stays, for an answer that is due."""
        if self.active is None or self._input is not Input.IDLE or self.scheme == "https":
            return False
        self._half_closed = True
        self._input = Input.DEAF
        self._deadline = self.loop.time() + self._limits.half_closed_s
        self.active.half_closed()
        return True

    def pause_writing(self) -> None:
        """Wait for a client that does not read: with answers that no application waits with, nothing more is read of it."""
        super().pause_writing()
        if self.active is None:
            self.flow.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        if self.active is None:
            self.flow.resume_reading()
        if self._eof_due:
            self.loop.call_soon(self._write_eof)

    # Requests.

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:  # noqa: ARG002 - it is the host's
        """Start a request, whose turn it is."""
        self.active = request = Request(self._host, self, cycle)
        request.begin()

    @property
    def closes(self) -> bool:
        """Whether the answer that begins now is the last one of this connection."""
        last = not self.pipeline and self._input in {Input.DEAF, Input.DRAIN}
        unread = self.active is not None and self.active.cycle is self._current and self._input is Input.BODY
        return last or unread or self._host.stopping

    def on_response_complete(self) -> None:
        """Go on with the next request, or end the connection."""
        request, self.active = self.active, None
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        # Nothing more is heard of a client that has closed its side, or sent nonsense, while this answer was under way.
        heard_out = self._input is Input.DEAF and not self.pipeline
        if request is None or request.closes or heard_out or self._host.stopping:
            self._answered = True
            self._end()
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self._input is Input.IDLE:
            self._deadline = self.loop.time() + self._limits.keep_alive_s

    def refuse_active(self, request: Request, refusal: Refusal) -> None:
        """Answer the active request, which has waited for its turn in vain. The connection goes on if all of it was read."""
        cycle, host = request.cycle, self._host
        request.closes = self.closes or not cycle.keep_alive
        request.part()
        cycle.response_started = cycle.response_complete = True
        host.tally.refused += 1
        head = cycle.scope["method"] == "HEAD"
        self.transport.write(wire(refusal, request.request_id, head=head, close=request.closes, more=host.date_line))
        self.on_response_complete()

    # Ends.

    def _hear_no_more(self) -> None:
        """Read nothing more; the answers that are due are written, and then the connection ends."""
        self._input = Input.DEAF
        self._deadline = math.inf
        self._body_pace.end()
        self.flow.pause_reading()
        if self.active is None:
            self._end()

    def _give_up(self, problem: Problem) -> None:
        """Refuse what is being parsed: answer it, if no other answer is under way or due before."""
        active, current = self.active, self._current
        self._current = None
        if self._skipping:
            # It has its answer; what is wrong is the rest of it.
            self._host.tally.count(problem.code)
            self._input = Input.DEAF
            self._end()
        elif active is None:
            self._reply(problem)
        elif active.cycle is not current:
            # Answers to earlier requests come first, and then the connection ends.
            self._host.tally.count(problem.code)
            if self.pipeline and self.pipeline[0][0] is current:
                self.pipeline.popleft()
            self._hear_no_more()
        else:
            self.pipeline.clear()
            self.active = None
            active.lost()
            if active.cycle.response_started:
                self._host.tally.count(problem.code)
                self.abort()
            else:
                self._reply(problem)

    def _reply(self, problem: Problem) -> None:
        """Write an answer of the server's own to what is being parsed, the last of this connection."""
        self._write(problem, self._request_id or request_id_of((), self._host.rng), head=self._is_head)

    def answer_for(self, request: Request, problem: Problem) -> None:
        """Write the answer to the active request, which the application did not answer."""
        self.active = None
        request.lost()
        self._write(problem, request.request_id, head=request.cycle.scope["method"] == "HEAD")

    def _write(self, problem: Problem, request_id: str, *, head: bool) -> None:
        self.pipeline.clear()
        self._answered = True
        # Nobody knows what the client still sends.
        self._input = Input.DEAF
        self._host.tally.count(problem.code)
        self.transport.write(self._host.wire(problem, request_id, head=head))
        self._end()

    def _end(self) -> None:
        """End the connection so that the client can read what was written: a reset would overtake it."""
        if self.transport.is_closing():
            return
        read_all = self._half_closed or (self._input is Input.IDLE and not self.pipeline)
        self.pipeline.clear()
        self._input = Input.DRAIN
        self._body_pace.end()
        if read_all:
            self.transport.close()
            return
        self._deadline = self.loop.time() + self._limits.drain_s
        if self.transport.can_write_eof():
            # Not with something to write: the transport would then end its side in a callback of its own, where what that
            # raises is an ERROR. Below a limit of 0 it calls `resume_writing` when all is written.
            self._eof_due = True
            self.transport.set_write_buffer_limits(high=0)
            if not self.unsent:
                self._write_eof()
        self.flow.resume_reading()

    def _write_eof(self) -> None:
        if self._eof_due and not self.transport.is_closing():
            self._eof_due = False
            # A client that has closed its socket answers what was written with a reset. It shows where we read.
            with contextlib.suppress(OSError):
                self.transport.write_eof()

    def abort(self) -> None:
        """End the connection now: what is not written yet is lost."""
        self._input = Input.DRAIN
        if self.active is not None:
            self.active.lost()
            self.active = None
        self.transport.abort()

    def shutdown(self) -> None:
        """End it if it waits for a request, else after the answer: the server stops."""
        now = self.loop.time()
        for pace in (self._body_pace, self._write_pace):
            pace.hurry(now, self._host.patience_s)
        self.pipeline.clear()
        if self.active is not None or self._input is Input.DRAIN:
            return
        if self._input is Input.IDLE:
            # A request may be on its way: it finds the end of the stream, and no reset. TLS has no half of an end.
            self._input = Input.IDLE if self.scheme == "https" else Input.DEAF
            self._end()
        else:
            self._give_up(refusals.STOPPING)

    @property
    def pending(self) -> bool:
        """Whether the client has something to read that is not sent, or an answer that it may not have read."""
        return self.unsent > 0 or (self._input is Input.DRAIN and self._answered)

    @property
    def unsent(self) -> int:
        """The bytes that the client has not taken yet, as far as the transport knows."""
        return self.transport.get_write_buffer_size()

    # The time.

    def overdue(self, now: float, since_s: float) -> None:
        """End what has lasted too long; the last look was `since_s` seconds ago."""
        self._look_at_writing(now)
        if self._input in {Input.HEAD, Input.BODY}:
            self._look_at_reading(now, since_s)
        elif now >= self._deadline:
            self._deadline = math.inf
            if self._input is Input.IDLE:
                self._host.tally.count(refusals.IDLE)
                self.transport.close()
            elif self._input is Input.DEAF:
                self._host.tally.count(refusals.HALF_CLOSED)
                self.abort()
            else:
                self.transport.close()

    def _look_at_reading(self, now: float, since_s: float) -> None:
        if self.flow.read_paused:
            # The application does not read, or has earlier requests to answer: that is not the client's fault.
            self._deadline += since_s
            self._body_pace.idle(since_s)
            return
        # A body that has begun since the last look counts from nothing.
        moved = self._body_bytes - self._body_paced if self._body_bytes >= self._body_paced else self._body_bytes
        self._body_pace.moved(now, moved)
        self._body_paced = self._body_bytes
        if now >= min(self._deadline, self._body_pace.deadline):
            self._give_up(refusals.HEADERS_TOO_SLOW if self._input is Input.HEAD else refusals.BODY_TOO_SLOW)

    def _look_at_writing(self, now: float) -> None:
        unsent = self.transport.get_write_buffer_size()
        taken = self.written - unsent
        if not unsent:
            self._write_pace.end()
        elif self._write_pace.deadline == math.inf:
            self._write_pace.start(now)
        else:
            self._write_pace.moved(now, max(0, taken - self._read_by_client))
            if now >= self._write_pace.deadline:
                self._host.tally.count(refusals.READER_TOO_SLOW)
                self.abort()
        self._read_by_client = taken
