"""One connection: uvicorn's protocol, with bounds on what the client sends and reads, and an end that the client can see."""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from outlast.http._app import extensions
from outlast.http._app.problem import Problem
from outlast.http._app.request_ids import request_id_of
from outlast.http._server import refusals
from outlast.http._server.pace import Pace
from outlast.http._server.request import Request
from outlast.http._server.screen import wire

if TYPE_CHECKING:
    import asyncio

    from uvicorn._types import ASGI3Application
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from outlast.admission import Refusal
    from outlast.http._server.host import Host
    from outlast.http._server.tally import Seat

FRAMING_MAX: Final = 16
"""A byte of a body in a chunk of its own takes six; many times that is no chunk but an attack."""
SKIPPED_MAX: Final = 65_536
"""A refused request whose body is declared to be no longer is read to its end, and the connection goes on."""


class Input(enum.Enum):
    """The thing that a connection waits for from its client; `_deadline` is until when."""

    IDLE = "idle"
    """A request, or nothing while one is worked at."""
    HEAD = "head"
    """The rest of the headers."""
    BODY = "body"
    """The rest of the body."""
    DEAF = "deaf"
    """Nothing: what the client sends is not read until the answers it still gets are complete."""
    DRAIN = "drain"
    """The end: all answers are written, and what comes is thrown away."""


class Enough(Exception):  # noqa: N818 - it stops the parser, and nobody else sees it
    """Stop the parser: nothing more of this input is wanted."""


class Connection(HttpToolsProtocol):
    """A client's connection. `overdue` is called now and then with the time: it ends what has lasted too long.

    Everything here is called on the event loop's thread. uvicorn parses, makes the scope and writes what the application sends;
    requests run as a `Request`.
    """

    def __init__(self, host: Host, seat: Seat) -> None:
        super().__init__(host.config, host.state, host.app_state, host.loop)
        limits = host.limits
        self._host = host
        # uvicorn forgets its own when the connection is lost.
        self._parser: httptools.HttpRequestParser = self.parser  # pyright: ignore[reportAttributeAccessIssue] - it is there now
        self._address = ""
        self.made = False
        """Whether there is a transport."""
        self.access_log = False
        self.seat = seat
        self._limits = limits
        self._input = Input.IDLE
        self._deadline = math.inf
        self._body_pace = Pace(limits.body_s, limits.body_bytes_per_s_min)
        self._write_pace = Pace(limits.write_s, limits.write_bytes_per_s_min)
        self.active: Request | None = None
        """The request that is worked at; others wait in the pipeline."""
        self.written = 0
        """The bytes of bodies that were handed to the transport."""
        self._read_by_client = 0
        self._current: RequestResponseCycle | None = None
        """The cycle of the message that is being parsed; None before its headers are complete, and for one that was refused."""
        self._request_id = ""
        self._messages = 0
        self._heard = 0
        """Messages that had begun before the present piece of input."""
        self._head_bytes = 0
        self._head_fed = 0
        self._body_bytes = 0
        self._body_fed = 0
        self._body_paced = 0
        self._skipping = False
        self._drained = 0
        self._half_closed = False
        self._answered = False
        """Whether the last thing that was written may be lost with a reset."""

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

    def eof_received(self) -> bool:  # type: ignore[override]
        """Note that the client has closed its side: return whether the connection stays, for an answer that is due."""
        if self.active is None or self._input is not Input.IDLE or self.scheme == "https":
            return False
        self._half_closed = True
        self._input = Input.DEAF
        self._deadline = self.loop.time() + self._limits.half_closed_s
        self.active.half_closed()
        return True

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._input is Input.DRAIN:
            self._drained += len(data)
            if self._drained > self._limits.drain_bytes_max:
                self.transport.close()
            return
        if self._input is Input.DEAF:
            return
        was_idle, messages = self._input is Input.IDLE, self._messages
        self._heard = messages
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # We speak HTTP/1.1 only. The request is answered as one, and what follows it in another protocol is not read.
            self._hear_no_more()
        except httptools.HttpParserError:
            if self._input not in {Input.DEAF, Input.DRAIN}:
                self._give_up(refusals.MALFORMED)
        else:
            self._count(len(data), whole=self._messages == messages + was_idle)

    def _count(self, count: int, *, whole: bool) -> None:
        """Count bytes that the parser has taken and may be keeping: a header that never ends, or what surrounds chunks.

        `whole`: they belong to one message alone.
        """
        if self._input is Input.HEAD:
            self._head_fed += count if whole else 0
            if self._head_fed > self._limits.headers_bytes_max:
                self._give_up(refusals.HEADERS_TOO_LARGE)
        elif self._input is Input.BODY:
            self._body_fed += count if whole else 0
            if self._body_fed > FRAMING_MAX * self._body_bytes + SKIPPED_MAX + self._limits.headers_bytes_max:
                self._give_up(refusals.BODY_TOO_LARGE)

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

    # From the parser. What these raise stops it; it comes out of `feed_data` as an HttpParserError.

    def on_message_begin(self) -> None:
        """Begin a request. Its scope is made when it is let in: a refusal needs none."""
        ahead = self._messages - self._heard
        if len(self.pipeline) >= self._limits.pipelined_max or (self.flow.write_paused and ahead > self._limits.pipelined_max):
            self._host.tally.count(refusals.PIPELINED)
            self._hear_no_more()
            raise Enough
        self._input = Input.HEAD
        self._deadline = self.loop.time() + self._limits.headers_s
        self._current = None
        self._head_bytes = self._head_fed = 0
        self._request_id = ""
        self._messages += 1
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_url(self, url: bytes) -> None:
        """Add a part of the target."""
        self.url += url
        if len(self.url) > self._limits.url_bytes_max:
            self._stop(refusals.URL_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header."""
        if self._input is Input.HEAD:
            # What comes after a chunked body is no header of the request, which is being worked at.
            self.headers.append((name.lower(), value))
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._limits.headers_bytes_max or len(self.headers) > self._limits.headers_max:
            self._stop(refusals.HEADERS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """Let the request in, or refuse it."""
        now = self.loop.time()
        self._input = Input.BODY
        self._deadline = math.inf
        self._body_pace.start(now)
        self._body_bytes = self._body_fed = self._body_paced = 0
        self._request_id = request_id_of(self.headers, self._host.rng)
        length = 0
        for name, value in self.headers:
            if name == b"content-length":
                length = int(value)
            elif name == b"expect":
                self.expect_100_continue = value.lower() == b"100-continue"
        if self._limits.body_bytes_max is not None and length > self._limits.body_bytes_max:
            self._stop(refusals.BODY_TOO_LARGE)
        known: dict[str, Any] = {}
        if self.active is None:
            if self._host.stopping:
                self._stop(refusals.STOPPING)
            screen = self._host.screen
            if screen is not None:
                seen = screen.look(self._parser.get_method().decode("ascii"), self.url, self.headers, self._address)
                if not isinstance(seen, dict):
                    self._refuse(seen, length)
                    return
                known = seen
        self._let_in(known)

    def _refuse(self, refused: Problem | Refusal, length: int) -> None:
        """Answer a request that does not come in. Without a body, or with a short one, the connection goes on."""
        parser = self._parser
        chunked = any(name == b"transfer-encoding" for name, _ in self.headers)
        kept = parser.should_keep_alive() and parser.get_http_version() == "1.1"
        close = not kept or chunked or length > SKIPPED_MAX or self.expect_100_continue
        more = self._host.date_line
        self._host.tally.refused += 1
        self.transport.write(wire(refused, self._request_id, head=self._is_head, close=close, more=more))
        if close or (isinstance(refused, Problem) and refused.close):
            self._answered = True
            self._input = Input.DEAF
            self._end()
            raise Enough
        self._skipping = True

    def _let_in(self, known: dict[str, Any]) -> None:
        """Make the scope, and start the request or put it in line."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expects
        self.scope["headers"] = headers
        known[extensions.REQUEST_ID] = self._request_id
        known[extensions.STOP] = self._host.stop
        known[extensions.ABORT] = self.abort
        self.scope["extensions"] = known
        super().on_headers_complete()
        self._current = self.cycle

    def on_body(self, body: bytes) -> None:
        """Count a part of the body, and hand it to the request."""
        self._body_bytes += len(body)
        if self._skipping:
            return
        limit = self._limits.body_bytes_max
        if limit is not None and self._body_bytes > limit:
            self._stop(refusals.BODY_TOO_LARGE)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the next request, if there is none to answer."""
        self._body_pace.end()
        self._input = Input.IDLE
        if self._skipping:
            self._skipping = False
        else:
            super().on_message_complete()
        self._deadline = math.inf if self.active is not None else self.loop.time() + self._limits.keep_alive_s

    # Requests.

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:  # noqa: ARG002 - it is the host's
        """Start a request, whose turn it is."""
        request = Request(self._host, self, cycle)
        self.active = request
        task = self.loop.create_task(request.run())
        self.tasks.add(task)
        task.add_done_callback(request.ended)
        task.add_done_callback(self.tasks.discard)

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
        if request is None or request.closes or self._host.stopping:
            self._answered = True
            self._end()
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self._input is Input.IDLE:
            self._deadline = self.loop.time() + self._limits.keep_alive_s

    # Ends.

    def _hear_no_more(self) -> None:
        """Read nothing more; the answers that are due are written, and then the connection ends."""
        self._input = Input.DEAF
        self._deadline = math.inf
        self._body_pace.end()
        self.flow.pause_reading()
        if self.active is None:
            self._end()

    def _stop(self, problem: Problem) -> None:
        """Refuse what is being parsed, and stop the parser."""
        self._give_up(problem)
        raise Enough

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

    @property
    def _is_head(self) -> bool:
        """Whether what is being parsed is a HEAD, as far as it was."""
        return self._parser.get_method() == b"HEAD"

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
        read_all = self._input is Input.IDLE or self._half_closed
        self._input = Input.DRAIN
        self._body_pace.end()
        if read_all:
            self.transport.close()
            return
        self._deadline = self.loop.time() + self._limits.drain_s
        self.flow.resume_reading()
        if self.transport.can_write_eof():
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
            # A request may be on its way: it finds the end of the stream, and no reset.
            self._input = Input.DEAF
            self._end()
        else:
            self._reply(refusals.STOPPING)

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
        self._body_pace.moved(now, self._body_bytes - self._body_paced)
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
