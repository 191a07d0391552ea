"""Requests as they are carried out: attempt after attempt, as the rule has it. One of them for each client."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from outlast import Classifiers, Kind, Scope, Stopping, Unavailable
from outlast.extend import attached
from outlast.http import Answer, AnswerError, AnswerTooLargeError, http_rule
from outlast.streams._client.decisions.failures import failure_of
from outlast.streams._client.decisions.retrying import Attempts, Certainty, End, Rule, end

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Container, Mapping
    from contextlib import AbstractAsyncContextManager

    from outlast import Fault
    from outlast.admission import Throttler
    from outlast.extend import BackoffState
    from outlast.http import AnswerStream, HttpPeer
    from outlast.streams._client.decisions.failures import Asked
    from outlast.streams._client.decisions.retrying import Failure

SUCCESS: Final = range(200, 300)
TIMEOUT: Final = "timeout"
WAIT_S: Final = 3600.0
"""A reader that follows waits for its server in pieces of this length."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it is sent at each attempt, with what its errors say of it."""

    asked: Asked
    method: str
    path: str
    params: Mapping[str, str] | None = None
    headers: Mapping[str, str] | None = None
    content: bytes | None = None
    json: Any = None
    accept: Container[int] = SUCCESS
    by_pieces: bool = False
    """Whether the limit of an attempt is for each piece of the answer: one that is large, or comes slowly, is not broken off."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request. `unsure`: nobody knows whether an earlier attempt of it was carried out as well."""

    answer: Answer
    unsure: bool


class ReadBrokenError(Exception):
    """A read that may go on later. It never leaves the client."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure.error))
        self.failure = failure


def node_rule(exc: BaseException, phase: str) -> Fault | None:
    """Classify what a node says of one stream: it concerns this call, since others may be on other disks. Its stop concerns
    all.
    """
    if not isinstance(exc, AnswerError) or exc.problem is None or exc.problem.kind is Kind.STOPPING or phase != "request":
        return None
    fault = http_rule(exc, phase)
    return None if fault is None else replace(fault, scope=Scope.CALL)


class Asking:
    """Sends requests until they succeed, are refused for good, or their deadline is over."""

    def __init__(self, peer: HttpPeer, rule: Rule, throttler: Throttler, *, deadline_s: float, attempt_s: float) -> None:
        """`deadline_s` is for a request with all its attempts, `attempt_s` the longest that one of them waits."""
        self.peer = peer
        self.rule = rule
        self.throttler = throttler
        self.deadline_s = deadline_s
        self.attempt_s = attempt_s

    async def ask(
        self, request: Request, deadline_s: float | None = None, *, waits_for_room: bool = False, attempt_s: float | None = None
    ) -> Reply:
        """Return the answer. Raises what `failure_of` and `Rule` say.

        Cancelled, it ends the attempt under way, of which nobody knows then whether it was carried out.
        """
        loop = asyncio.get_running_loop()
        deadline_at = loop.time() + (self.deadline_s if deadline_s is None else deadline_s)
        self.rule.budget.call()
        attempts, asked = Attempts(), request.asked
        while True:
            left_s = deadline_at - loop.time()
            try:
                answer = await self._attempt(request, min(left_s, attempt_s or self.attempt_s), left_s)
            except Stopping:
                raise
            except Exception as exc:
                failure = failure_of(exc, asked, self.peer.name)
                attempts, step = self.rule.after(
                    failure,
                    attempts,
                    stream=asked.stream,
                    effect=asked.effect,
                    now=loop.time(),
                    deadline_at=deadline_at,
                    waits_for_room=waits_for_room,
                )
                if isinstance(step, End):
                    if step.error is exc:
                        raise
                    raise step.error from step.error.__cause__ or exc
            else:
                return Reply(answer, attempts.doubt is not None)
            await self._wait(step.wait_s, deadline_at)
            if loop.time() >= deadline_at:
                raise end(failure, attempts, asked.stream, asked.effect)

    async def once(self, request: Request, limit_s: float) -> Answer:
        """Ask once, for whoever follows. Raises `ReadBrokenError` for what may pass: the caller goes on after a pause."""
        try:
            return await self._attempt(request, limit_s)
        except Exception as exc:
            error = self._broken(exc, request.asked)
            if error is exc:
                raise
            raise error from error.__cause__ or exc

    @contextlib.asynccontextmanager
    async def streamed(self, request: Request, limit_s: float) -> AsyncGenerator[AnswerStream]:
        """Lend an answer that is read piece by piece, each within `limit_s`. Raises as `once`, also while it is read."""
        began = False
        try:
            self._pass_throttle()
            async with self._stream(request, limit_s) as answer:
                began = True
                self.throttler.record(accepted=True)
                yield answer
        except Exception as exc:
            if not began:
                self._record(exc)
            error = self._broken(exc, request.asked)
            if error is exc:
                raise
            raise error from error.__cause__ or exc

    async def pause(self, failure: Failure, backoff: BackoffState) -> BackoffState:
        """Wait until it is worth asking again, without a limit, and return the state of the backoff."""
        now = asyncio.get_running_loop().time()
        backoff, wait_s = self.rule.backoff.next_always(backoff, now, self.rule.rng, failure.fault.retry_after_s)
        if failure.certainty is not Certainty.NOT_SENT and not self.rule.budget.take(now):
            wait_s += self.rule.backoff.cap_s
        await self._wait(wait_s, now + WAIT_S)
        return backoff

    def _broken(self, exc: Exception, asked: Asked) -> Exception:
        if isinstance(exc, Stopping):
            return exc
        failure = failure_of(exc, asked, self.peer.name)
        return ReadBrokenError(failure) if failure.passes else failure.error

    async def _attempt(self, request: Request, limit_s: float, left_s: float | None = None) -> Answer:
        self._pass_throttle()
        try:
            answer = await (self._collected(request, limit_s, left_s) if request.by_pieces else self._asked(request, limit_s))
        except Exception as exc:
            self._record(exc)
            raise
        self.throttler.record(accepted=True)
        return answer

    async def _asked(self, request: Request, limit_s: float) -> Answer:
        return await self.peer.request(
            request.method,
            request.path,
            params=request.params,
            headers=request.headers,
            content=request.content,
            json=request.json,
            deadline_s=limit_s,
            accept=request.accept,
        )

    async def _collected(self, request: Request, limit_s: float, left_s: float | None) -> Answer:
        """Return an answer each piece of which came within `limit_s`, and all of it within `left_s`."""
        body = bytearray()
        async with asyncio.timeout(left_s), self._stream(request, limit_s) as answer:
            async for piece in answer:
                body += piece
                if len(body) > self.peer.body_bytes_max:
                    asked = f"{self.peer.name}: {request.method} {request.path}"
                    raise AnswerTooLargeError(asked, answer.status, self.peer.body_bytes_max)
        return Answer(answer.status, answer.headers, bytes(body))

    def _stream(self, request: Request, limit_s: float) -> AbstractAsyncContextManager[AnswerStream]:
        return self.peer.stream(
            request.method,
            request.path,
            params=request.params,
            headers=request.headers,
            deadline_s=limit_s,
            accept=request.accept,
        )

    def _pass_throttle(self) -> None:
        refusal = self.throttler.refusal()
        if refusal is not None:
            raise refusal

    def _record(self, exc: Exception) -> None:
        """Count what the server said. A full disk is no overload: the server refuses at no cost, and its other streams go on."""
        fault = attached(exc)
        if fault is not None and not isinstance(exc, Unavailable):
            self.throttler.record(accepted=fault.kind is not Kind.OVERLOADED and fault.code != TIMEOUT)

    async def _wait(self, wait_s: float, deadline_at: float) -> None:
        """Wait for the next attempt: for the server, while it is away, and else for the wait that was drawn."""
        if self.peer.passable:
            await asyncio.sleep(wait_s)
            return
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        with contextlib.suppress(Unavailable):
            await self.peer.ready(timeout_s=deadline_at - began_at)
            return
        # Refused at once, since too many wait already.
        await asyncio.sleep(max(0.0, began_at + wait_s - loop.time()))


def own_classifiers() -> Classifiers:
    """Return the rules for the peer of a client."""
    return Classifiers([node_rule])
