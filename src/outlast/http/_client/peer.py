"""A server that is asked over HTTP, as a dependency."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from outlast import Classifiers, ConfigurationError, Dependency, Fault, Kind, OutlastError, Scope, State, Stopping, Unavailable
from outlast.admission import Throttler
from outlast.extend import Pacer, Slots, Wires, attach, attached
from outlast.http._client.answers import PROBLEM_BYTES_MAX, Answer, AnswerError
from outlast.http._client.calls import ENCODING, SUCCESS, AnswerStream, Call, beginning, check_encoding, lowered, whole
from outlast.http._client.classify import http_rule, needs_second_look, quotes, was_accepted
from outlast.http._client.settings import below, check, origin, parsed
from outlast.http._client.statuses import PROBE_PASSES
from outlast.http._client.wire import Client, Response, Wire, given_client, own_client, secret

if TYPE_CHECKING:
    import random
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterable, Container, Mapping

    from outlast import HealthPolicy
    from outlast.admission import Throttle

TIMEOUT_HEADER: Final = "x-request-timeout"
"""The seconds that are left of the call's deadline: remaining time travels, since the clocks of two machines differ."""
DIALLING: Final = "connection.connect_tcp.started"
"""The event of httpcore's `trace` extension, which both libraries document."""
CLOSE_S_MAX: Final = 0.3
"""The longest that closing waits for connections to end."""
ASK_S_MAX: Final = 1.0
"""The time in which the peer has to answer a probe, or a failed call counts against it; a good answer holds for the same time."""
ANSWERS_OTHERS: Final = "the peer answers others"


class HttpPeer(Dependency):
    """A server that is asked over HTTP.

        peer = HttpPeer("https://orders.internal/v1", headers={"authorization": f"Bearer {token}"})
        answer = await peer.post("/orders", json={"item": 17}, deadline_s=2.0)

    A call raises `Unavailable` at once while the peer is down, `AnswerError` for a status that is not in `accept`,
    `AnswerTooLargeError` for a body larger than `body_bytes_max`, `TimeoutError` past its deadline, and what the library raises
    when a connection fails. **One call is one request**: nothing is tried again here. A job that fails by it is tried again by
    its queue, at the time for which the peer has asked.

    The probe is HEAD (`probe_method`) of the URL, or of `probe_path` from the root of its host; any answer below 500 passes, but
    for 401, 407, 408, 425 and 429. A call that failed in a way that leaves that open (a deadline, a broken connection, most of
    5xx) counts against the peer only if that does not pass a probe within another second; else against the call alone.

    At most `connections_max` calls are under way, never more than eight connections are dialled in 100 ms, and the idle ones are
    given up when the peer goes down. The deadline travels in the header `x-request-timeout`, in seconds that are left.
    Neither the user and password of the URL nor headers nor queries are in any line, error or `repr`.

    With `throttle` calls are refused here, by `Unavailable`, when the peer has refused too many of late: see
    `outlast.admission.Throttler`.

    `client` is an `httpx2.AsyncClient` or `httpx.AsyncClient` of the user's, who closes it; both log each call at INFO, and the
    query is masked in that. It should allow two connections more than `connections_max`, for probes.
    Without, a transport of httpx2 is used, which reads nothing from the environment, keeps no cookies and logs nothing.
    Redirects are never followed: a peer that has moved needs another URL.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "",
        client: Client | None = None,
        headers: Mapping[str, str] | None = None,
        probe_path: str = "",
        probe_method: str = "HEAD",
        deadline_s: float = 10.0,
        connect_timeout_s: float = 5.0,
        connections_max: int = 20,
        body_bytes_max: int = 10 * 2**20,
        throttle: Throttle | None = None,
        tls: ssl.SSLContext | None = None,
        policy: HealthPolicy | None = None,
        classifiers: Classifiers | None = None,
        rng: random.Random | None = None,
        waiters_max: int = 10_000,
    ) -> None:
        """Nothing is dialled before the first use. Raises `ConfigurationError` for a URL or a number that cannot work.

        `name` is the host and the port of the URL, unless it is given.
        """
        self._url, found, authorization = parsed(url)
        rules = (classifiers or Classifiers()).also(Classifiers([http_rule]))
        super().__init__(
            name or found,
            classifiers=rules,
            policy=policy,
            rng=rng,
            waiters_max=waiters_max,
            probe_timeout_s=connect_timeout_s,
        )
        check(self.name, (connections_max, body_bytes_max), (deadline_s, connect_timeout_s))
        self.deadline_s = deadline_s
        self.connect_timeout_s = connect_timeout_s
        self.connections_max = connections_max
        self.body_bytes_max = body_bytes_max
        self._probe_call = Call(probe_method, probe_path, PROBE_PASSES)
        self._probe_url = below(origin(self._url), probe_path) if probe_path else self._url
        self._probe_timeout_s = connect_timeout_s
        try:
            asked = lowered(headers, self.name)
        except OutlastError as error:
            raise ConfigurationError(str(error)) from None
        # The answer is not to be unpacked into more than was allowed.
        self._headers = {"accept": "*/*", "user-agent": "outlast", ENCODING: "identity", **authorization, **asked}
        new_client = own_client(self.name, tls, connections_max) if client is None else given_client(self.name, client)
        self._wires: Wires[Client] = Wires(new_client, is_own=client is None)
        self._throttler = None if throttle is None else Throttler(self.name, throttle, rng=self.rng)
        self._pacer = Pacer()
        self._slots = Slots(self.name, connections_max, waiters_max)
        self.subscribe(self._on_change)

    # Calls.

    async def request(
        self,
        method: str,
        path: str = "",
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | str | AsyncIterable[bytes] | None = None,
        json: object = None,
        deadline_s: float | None = None,
        accept: Container[int] = SUCCESS,
    ) -> Answer:
        """Ask, and return the answer with its whole body.

        `path` is appended to the URL. `deadline_s` covers all of it, the wait for a connection too; None: that of the peer.
        `accept` are the statuses that are returned; others raise `AnswerError`. Cancelled, or past its deadline, it ends the
        connection, by which the server sees that nobody waits any more.
        """
        call = Call(method, path, accept, params, lowered(headers, self.name), content, json)
        limit_s = self.deadline_s if deadline_s is None else deadline_s
        async with (
            self.use("request"),
            self._judging(call, limit_s),
            self._place(limit_s) as (wire, left_s),
            wire.limit(left_s),
        ):
            response = await self._send(wire, call, left_s)
            async with contextlib.aclosing(response):
                check_encoding(response, call, self._asked(call))
                return await whole(response, self._asked(call), self.body_bytes_max)

    async def get(
        self,
        path: str = "",
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        deadline_s: float | None = None,
        accept: Container[int] = SUCCESS,
    ) -> Answer:
        """Ask by GET. See `request`."""
        return await self.request("GET", path, params=params, headers=headers, deadline_s=deadline_s, accept=accept)

    async def post(
        self,
        path: str = "",
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | str | AsyncIterable[bytes] | None = None,
        json: object = None,
        deadline_s: float | None = None,
        accept: Container[int] = SUCCESS,
    ) -> Answer:
        """Ask by POST. See `request`."""
        return await self.request(
            "POST", path, params=params, headers=headers, content=content, json=json, deadline_s=deadline_s, accept=accept
        )

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str = "",
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | str | AsyncIterable[bytes] | None = None,
        json: object = None,
        deadline_s: float | None = None,
        accept: Container[int] = SUCCESS,
    ) -> AsyncGenerator[AnswerStream]:
        """Ask, and lend the answer for a block, in which its body is read piece by piece, however long it is.

        `deadline_s` is for the head of the answer, and then for each piece. It keeps its place among `connections_max` for the
        block, and lasts when the peer goes down, as long as its own connection does.
        """
        call = Call(method, path, accept, params, lowered(headers, self.name), content, json)
        limit_s = self.deadline_s if deadline_s is None else deadline_s
        async with contextlib.AsyncExitStack() as stack:
            async with self.use("request"), self._judging(call, limit_s):
                wire, left_s = await stack.enter_async_context(self._place(limit_s))
                epoch = self.epoch
                async with wire.limit(left_s):
                    response = await self._send(wire, call, left_s)
                stack.push_async_callback(response.aclose)
                check_encoding(response, call, self._asked(call))

            async def failed(exc: Exception) -> Exception:
                error = self._wires.closed() if wire.is_cut else await self._judged(exc, call, limit_s)
                self.report(error, phase="request", epoch=epoch)
                return error

            yield AnswerStream(response, wire, epoch, limit_s, failed)

    # What the runtime calls.

    async def probe(self) -> None:
        """Ask as the probe does, on a connection beside those of calls. Raises `AnswerError`, and what the library raises."""
        wire = self._wires.current()
        wire.enter()
        try:
            async with wire.limit(self._probe_timeout_s):
                response = await self._send(wire, self._probe_call, self._probe_timeout_s, is_probe=True)
                async with contextlib.aclosing(response):
                    await beginning(response, PROBLEM_BYTES_MAX)
        except Exception as exc:
            error = self._readable(exc, self._probe_call, self._probe_timeout_s)
            if error is exc:
                raise
            raise error from None
        finally:
            wire.leave()

    async def close(self) -> None:
        """End every call and every connection; a peer that stands still is not waited for. A client of the user's stays open."""
        self._slots.refuse(self._wires.closed)
        await self._wires.cut(CLOSE_S_MAX)
        await super().close()

    # Inside.

    @contextlib.asynccontextmanager
    async def _place(self, deadline_s: float) -> AsyncGenerator[tuple[Wire, float]]:
        """Take a place among the calls; yields the wire, and the seconds that are left."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        if not deadline_s > 0:
            # It can only be late: nothing is sent, and nobody is asked why.
            text = f"{self.name}: the deadline of the call, {deadline_s:g} s, was over before it was sent"
            raise OutlastError(text, Fault(Kind.TRANSIENT, "deadline over", text, self.name, Scope.CALL))
        await self._slots.take(deadline_s)
        try:
            if not self.passable:
                raise self.unavailable()
            # Asked as late as this, since a call that found no connection is none that the peer has not accepted.
            if self._throttler is not None and (refusal := self._throttler.refusal()) is not None:
                raise refusal
            with self._wires.lent() as wire:
                yield wire, deadline_s - (loop.time() - began_at)
        finally:
            self._slots.give_back()

    async def _send(self, wire: Wire, call: Call, left_s: float, *, is_probe: bool = False) -> Response:
        """Send the request; return its answer, the body unread, or raise `AnswerError`."""
        request = wire.client.build_request(
            call.method,
            self._probe_url if is_probe else below(self._url, call.path),
            content=call.content,
            json=call.json,
            params=call.params,
            headers={**self._headers, TIMEOUT_HEADER: f"{max(0.001, left_s):.3f}", **call.headers},
            # The deadline is ours, and bounds all of it; a dial that hangs is known for one before.
            timeout=(self.connect_timeout_s, None, None, None),
            extensions={"trace": self._pace_probe if is_probe else self._pace},
        )
        request.url = secret(request.url)
        response = await wire.client.send(request, stream=True, follow_redirects=False)
        if response.status_code in call.accept:
            return response
        async with contextlib.aclosing(response):
            raise AnswerError(self._asked(call), await beginning(response, PROBLEM_BYTES_MAX))

    async def _pace(self, event: str, _info: object) -> None:
        """Wait for this call's turn to dial, and do not when the peer has gone down."""
        if event == DIALLING:
            await self._pacer.turn()
            if not self.passable:
                raise self.unavailable()

    async def _pace_probe(self, event: str, _info: object) -> None:
        if event == DIALLING:
            await self._pacer.turn()

    @contextlib.asynccontextmanager
    async def _judging(self, call: Call, deadline_s: float) -> AsyncGenerator[None]:
        """Attach the fault to what leaves the block, after a second look where it is needed, and feed the throttle."""
        throttler = self._throttler
        try:
            yield
        except Stopping:
            raise
        except Unavailable as refusal:
            if throttler is not None and refusal.owner is None:
                # The throttle's, not this dependency's own: whoever comes back at once waits, without a connection.
                await throttler.take_turn()
            raise
        except Exception as exc:
            error = await self._judged(exc, call, deadline_s)
            fault = attached(error)
            if throttler is not None and fault is not None and (accepted := was_accepted(fault)) is not None:
                throttler.record(accepted=accepted)
            if error is exc:
                raise
            raise error from None
        if throttler is not None:
            throttler.record(accepted=True)

    async def _judged(self, exc: Exception, call: Call, deadline_s: float) -> Exception:
        error = self._readable(exc, call, deadline_s)
        if attached(error) is not None:
            return error
        fault = self.classifiers.classify(error, source=self.name, phase="request")
        own = http_rule(error, "request")
        is_ours = fault.scope is Scope.DEPENDENCY or own == replace(fault, source="")
        if isinstance(error, AnswerError) and error.status == 401 and "authorization" in call.headers:
            fault = replace(fault, scope=Scope.CALL)
        elif needs_second_look(error) and is_ours and self.passable and not self.is_stopping:
            closings = self._wires.closings
            answers = await self.answers(ASK_S_MAX)
            if closings != self._wires.closings:
                # The probe was ended by our own close, so it says nothing.
                return self._wires.closed()
            hint = fault.hint or (ANSWERS_OTHERS if answers else "")
            fault = replace(fault, scope=Scope.CALL if answers else Scope.DEPENDENCY, hint=hint)
        attach(error, fault)
        return error

    def _readable(self, exc: Exception, call: Call, deadline_s: float) -> Exception:
        """Return the error to raise: it says what was asked, and quotes nothing that is to be kept secret."""
        if type(exc) is TimeoutError:
            return TimeoutError(f"{self._asked(call)}: no answer within {deadline_s:g} s")
        if quotes(exc):
            fault = self.classifiers.classify(exc, source=self.name)
            return OutlastError(f"{self._asked(call)}: {fault.reason}: {fault.hint}", fault)
        return exc

    def _asked(self, call: Call) -> str:
        return f"{self.name}: {call}"

    def _on_change(self, state: State, _fault: Fault | None) -> None:
        if state is not State.DOWN:
            return
        self._slots.refuse(self.unavailable)
        self._wires.retire()
