"""The way in of a connection: what its client sends is parsed by uvicorn, within bounds, and let in or refused."""

from __future__ import annotations

import abc
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
from outlast.http._server.screen import path_of, wire

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from outlast.admission import Refusal
    from outlast.http._server.host import Host
    from outlast.http._server.request import Request

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


HEAD: Final = Input.HEAD
BODY: Final = Input.BODY
READ: Final = frozenset({b"content-length", b"expect", b"transfer-encoding", b"x-request-id"})
"""The headers that a connection itself looks at."""


class Enough(Exception):  # noqa: N818 - it stops the parser, and nobody else sees it
    """Stop the parser: nothing more of this input is wanted."""


class Incoming(HttpToolsProtocol, abc.ABC):
    """The half of a connection that hears: parsing, its bounds, and whether a request comes in."""

    def __init__(self, host: Host) -> None:
        super().__init__(host.config, host.state, host.app_state, host.loop)
        self.access_log = False
        limits = host.limits
        self._host = host
        self._limits = limits
        # uvicorn forgets its own when the connection is lost.
        self._parser: httptools.HttpRequestParser = self.parser  # pyright: ignore[reportAttributeAccessIssue] - it is there now
        self._address = ""
        self._input = Input.IDLE
        self._deadline = math.inf
        self._body_pace = Pace(limits.body_s, limits.body_bytes_per_s_min)
        self.active: Request | None = None
        """The request that is worked at; others wait in the pipeline."""
        self._current: RequestResponseCycle | None = None
        """The cycle of the message that is being parsed; None before its headers are complete, and for one that was refused."""
        self._request_id = ""
        self._messages = 0
        self._heard = 0
        """Messages that had begun before the present piece of input."""
        self._now = 0.0
        """The time at which the present piece of input came."""
        self._exact = False
        """Whether that piece is so large that its headers have to be counted one by one."""
        self._chunked = False
        self._head_bytes = 0
        self._head_fed = 0
        self._body_bytes = 0
        self._body_fed = 0
        self._skipping = False
        """Whether the message that is being parsed was refused, and its body, which is short, is read to its end."""
        self._drained = 0
        self._answered = False
        """Whether the last thing that was written may be lost with a reset."""

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
        self._now = self.loop.time()
        self._exact = self._head_fed + len(data) > self._limits.headers_bytes_max
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

    # From the parser. What these raise stops it; it comes out of `feed_data` as an HttpParserError.

    def on_message_begin(self) -> None:
        """Begin a request. Its scope is made when it is let in: a refusal needs none."""
        if self.transport.is_closing():
            # The client is gone: asyncio would log a warning for each answer to what it has sent before.
            self._input = Input.DRAIN
            raise Enough
        ahead = self._messages - self._heard
        if len(self.pipeline) >= self._limits.pipelined_max or (self.flow.write_paused and ahead > self._limits.pipelined_max):
            self._host.tally.count(refusals.PIPELINED)
            self._hear_no_more()
            raise Enough
        self._input = HEAD
        self._deadline = self._now + self._limits.headers_s
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
        if self._input is HEAD:
            # What comes after a chunked body is no header of the request, which is being worked at.
            self.headers.append((name.lower(), value))
        if self._exact:
            self._head_bytes += len(name) + len(value) + 4
            if self._head_bytes > self._limits.headers_bytes_max:
                self._stop(refusals.HEADERS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """Let the request in, or refuse it."""
        self._input = BODY
        self._body_pace.start(self._now)
        self._body_bytes = self._body_fed = 0
        length = 0
        self._chunked = False
        sent_id: tuple[tuple[bytes, bytes], ...] = ()
        for header in self.headers:
            name = header[0]
            if name not in READ:
                continue
            if name == b"content-length":
                length = int(header[1])
            elif name == b"transfer-encoding":
                self._chunked = True
            elif name == b"x-request-id":
                sent_id = sent_id or (header,)
            else:
                self.expect_100_continue = header[1].lower() == b"100-continue"
        self._request_id = request_id_of(sent_id, self._host.rng)
        if len(self.headers) > self._limits.headers_max:
            self._stop(refusals.HEADERS_TOO_LARGE)
        if self._limits.body_bytes_max is not None and length > self._limits.body_bytes_max:
            self._stop(refusals.BODY_TOO_LARGE)
        known: dict[str, Any] = {}
        if self.active is None:
            if self._host.stopping:
                self._stop(refusals.STOPPING)
            if self._host.screen is not None:
                method = self._parser.get_method().decode("ascii")
                seen = self._host.screen.look(method, path_of(self.url), self.headers, self._address, self.url)
                if not isinstance(seen, dict):
                    self._refuse(seen, length)
                    return
                known = seen
        self._let_in(known)

    def _refuse(self, refused: Problem | Refusal, length: int) -> None:
        """Answer a request that does not come in. Without a body, or with a short one, the connection goes on."""
        parser, host = self._parser, self._host
        kept = parser.should_keep_alive() and parser.get_http_version() == "1.1"
        close = not kept or self._chunked or length > SKIPPED_MAX or self.expect_100_continue
        host.tally.refused += 1
        self.transport.write(wire(refused, self._request_id, head=self._is_head, close=close, more=host.date_line))
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
        self._deadline = math.inf if self.active is not None else self._now + self._limits.keep_alive_s

    # Its ends.

    def _stop(self, problem: Problem) -> None:
        """Refuse what is being parsed, and stop the parser."""
        self._give_up(problem)
        raise Enough

    @property
    def _is_head(self) -> bool:
        """Whether what is being parsed is a HEAD, as far as it was."""
        return self._parser.get_method() == b"HEAD"

    @abc.abstractmethod
    def _give_up(self, problem: Problem) -> None:
        """Refuse what is being parsed: answer it, if no other answer is under way or due before."""

    @abc.abstractmethod
    def _hear_no_more(self) -> None:
        """Read nothing more; the answers that are due are written, and then the connection ends."""

    @abc.abstractmethod
    def _end(self) -> None:
        """End the connection so that the client can read what was written: a reset would overtake it."""

    @abc.abstractmethod
    def abort(self) -> None:
        """End the connection now: what is not written yet is lost."""
