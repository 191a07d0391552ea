"""The answers of the node: what every one of them has, and the problem that each error is."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from outlast import Kind, OutlastError, Unavailable
from outlast.http import Problem, problem_of
from outlast.streams._errors import (
    AppendTooLargeError,
    BeyondTailError,
    DamagedError,
    ExpiredError,
    FencedError,
    LimitError,
    OutcomeUnknownError,
    PositionMismatchError,
    SequenceError,
    StreamClosedError,
    StreamError,
    StreamExistsError,
    StreamNotFoundError,
    TrimmedError,
)
from outlast.streams._node import protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from outlast.streams._node.requests import Request

    Headers = list[tuple[bytes, bytes]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

T = TypeVar("T")

SECURITY: Final = ((b"x-content-type-options", b"nosniff"), (b"cross-origin-resource-policy", b"cross-origin"))
"""For browsers: a stream is never taken for a page, and may be fetched from elsewhere."""
NO_STORE: Final = (b"cache-control", b"no-store")
QUOTA_RETRY_S: Final = 60.0
"""A quota ends when somebody trims or deletes: nobody knows when."""
SOON_S: Final = 1.0


class RefusalError(Exception):
    """The end of a request that is answered with a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class BrokenOffError(Exception):
    """The end of an answer that has begun: the connection is cut, so that nobody takes it for a whole one."""

    def __init__(self, error: OutlastError) -> None:
        super().__init__(str(error))
        self.error = error


def refusal(status: int, code: str, detail: str, *, headers: Headers | None = None, **members: object) -> Problem:
    """Return the problem of a request that is its caller's mistake."""
    return Problem(status, code, Kind.REJECTED.value, detail, headers=tuple(headers or ()), members=members)


def bad_request(code: str, detail: str) -> RefusalError:
    """Return what ends a request that is malformed."""
    return RefusalError(refusal(400, code, detail))


async def answer(send: Send, status: int, headers: Headers, body: bytes | None = None, *, head: bool = False) -> None:
    """Send a whole answer. `body` is None where the status has none. `head`: it answers HEAD, and only its length is sent."""
    headers += SECURITY
    if body is None:
        body = b""
    else:
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})


async def settled(storing: Awaitable[T], request: Request) -> T:
    """Return what the store returns. Cancelled meanwhile, as at the end of a drain, answer that the outcome is not known.

    It may be on the disk by then, or come to it later, so nobody is to be told that it is not.
    """
    try:
        return await storing
    except asyncio.CancelledError:
        error = OutcomeUnknownError(request.name, "the node stopped while it was being stored; ask again, it may be there")
        problem = replace(_of_stream(error), close=True)
        with contextlib.suppress(OSError):
            await problem(request.scope, request.receive, request.send)
        raise


def problem_for(error: Exception, free_bytes: Callable[[str], int | None] | None = None) -> Problem | None:
    """Return the answer to an error of a store of streams; None for one that a person has to see: a bug, a newer format.

    `free_bytes` returns the bytes available on the disk of a name.
    """
    if isinstance(error, RefusalError):
        problem = error.problem
    elif isinstance(error, StreamError | AppendTooLargeError):
        problem = _of_stream(error)
    elif isinstance(error, Unavailable):
        problem = problem_of(error)
        if error.fault.kind is Kind.EXHAUSTED:
            free = free_bytes(error.dependency) if free_bytes is not None else None
            problem = replace(problem, status=507, members={"free_bytes": free})
    elif isinstance(error, OutlastError) and (found := problem_of(error)).status != 500:
        problem = found
    else:
        return None
    return replace(problem, headers=(*problem.headers, *SECURITY))


def _of_stream(error: StreamError | AppendTooLargeError) -> Problem:
    headers, members = _said(error)
    status, retry_after_s = _STATUS.get(type(error), (400, None))
    return replace(problem_of(error), status=status, retry_after_s=retry_after_s, headers=headers, members=members)


_STATUS: Final[Mapping[type[Exception], tuple[int, float | None]]] = {
    StreamNotFoundError: (404, None),
    TrimmedError: (410, None),
    BeyondTailError: (400, None),
    StreamClosedError: (409, None),
    StreamExistsError: (409, None),
    PositionMismatchError: (409, None),
    FencedError: (403, None),
    SequenceError: (409, None),
    LimitError: (429, QUOTA_RETRY_S),
    ExpiredError: (503, SOON_S),
    OutcomeUnknownError: (504, SOON_S),
    DamagedError: (500, None),
    AppendTooLargeError: (413, None),
}
"""The status of each error, and the seconds after which it is worth coming back."""


def _said(error: StreamError | AppendTooLargeError) -> tuple[tuple[tuple[bytes, bytes], ...], Mapping[str, object]]:
    """Return the headers and the members that say what the client needs to go on."""
    headers: Headers = []
    members: dict[str, object] = {}
    match error:
        case TrimmedError() | BeyondTailError():
            places = {"position": error.position, "oldest": error.oldest, "tail": error.tail}
            members |= {name: protocol.offset_text(place) for name, place in places.items()}
            headers = [
                (protocol.OLDEST_OFFSET, protocol.offset_value(error.oldest)),
                (protocol.NEXT_OFFSET, protocol.offset_value(error.tail)),
            ]
        case PositionMismatchError():
            members = {"tail": protocol.offset_text(error.tail)}
        case FencedError():
            members = {"epoch": error.newest}
            headers = [(protocol.PRODUCER_EPOCH, b"%d" % error.newest)]
        case SequenceError():
            members = {"expected": error.expected}
            headers = [
                (protocol.PRODUCER_EXPECTED_SEQ, b"%d" % error.expected),
                (protocol.PRODUCER_RECEIVED_SEQ, b"%d" % error.sequence),
            ]
        case DamagedError():
            following = None if error.next is None else protocol.offset_text(error.next)
            members = {"position": protocol.offset_text(error.position), "next": following, "segment": error.segment}
        case AppendTooLargeError():
            members = {"limit": error.limit}
        case _:
            pass
    return tuple(headers), members
