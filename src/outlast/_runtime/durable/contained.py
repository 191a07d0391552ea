"""Exceptions of a handler are kept to its own work, also those that would end the event loop or look like a stop."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from outlast._core.faults import Fault, Kind, OutlastError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from outlast._runtime.service.stop import Stop


class EscapedError(OutlastError):
    """A handler raised what is no error, and would end a thread, a process or the event loop: `SystemExit` and the like.

    Its fault is a `BUG` of the kind of work.
    """

    def __init__(self, exc: BaseException, kind: str) -> None:
        name = type(exc).__name__
        reason = f"the handler raised {name}({', '.join(map(repr, exc.args))}): it concerns this call only, the worker goes on"
        hint = "return from the handler, or raise an error; a service is stopped by its Stop or a signal"
        super().__init__(reason, Fault(Kind.BUG, name, reason, kind, hint=hint))


def escaped(exc: BaseException, kind: str) -> Exception:
    """Return the exception that a thread or a child process passes on in place of what a handler of this kind raised.

    An error is passed on as it is, but for a `StopIteration`, which no future takes.
    """
    if isinstance(exc, Exception) and not isinstance(exc, StopIteration):
        return exc
    error = EscapedError(exc, kind)
    error.__cause__ = exc
    return error


async def contained(body: Awaitable[Any], kind: str, stop: Stop) -> Any:  # noqa: ANN401 - the handler's result
    """Await a handler of this kind, as a task of its own. Raises `EscapedError` in place of what would end the loop.

    Tasks that the handler starts itself are out of reach: asyncio ends the loop before anyone can catch what they raise.
    """
    try:
        return await body
    except SystemExit as exc:
        raise EscapedError(exc, kind) from exc
    except KeyboardInterrupt as exc:
        if _by_signal(stop):
            raise
        raise EscapedError(exc, kind) from exc


def _by_signal(stop: Stop) -> bool:
    """Return whether Python may have raised KeyboardInterrupt in the middle of the handler, for the Ctrl-C of a person.

    `outlast.run` has a handler of its own, which raises nothing; `asyncio.run` has one that raises at the second Ctrl-C only,
    when the first one has fired the stop.
    """
    return stop.requested or signal.getsignal(signal.SIGINT) is signal.default_int_handler
