"""Lines of ours that hold counts, as records of stdlib logging: whatever the user's factory, filters and formatters do, they
are written.
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from outlast.logs._last_words import bounded, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import CodeType, TracebackType

    ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]

LOGGING: Final = logging.addLevelName.__code__.co_filename
"""The file of logging's own code; found as logging does, by a function that nobody replaces."""
PLAIN: Final = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
"""Writes a line where the handler's own formatter raises."""


class Origin(NamedTuple):
    """The logger, level and line of code that a line is written as from, and the fields that a formatter may expect."""

    logger: logging.Logger
    level: int
    path: str
    line: int
    function: str
    extra: Mapping[str, object]


def deliver(origin: Origin, text: str, fields: Mapping[str, object], exc: BaseException | None = None) -> None:
    """Hand a line to the handlers of its logger, with `fields` as `record.outlast`, and with the traceback of `exc`."""
    if not origin.logger.isEnabledFor(origin.level):
        return
    record = _record(origin, text, dict(fields), None if exc is None else (type(exc), exc, exc.__traceback__))
    if is_own(type(origin.logger).handle) and is_own(type(origin.logger).callHandlers):
        _handle(origin.logger, record)
    else:
        origin.logger.handle(record)


def _record(origin: Origin, text: str, fields: dict[str, object], exc_info: ExcInfo | None) -> logging.LogRecord:
    where = (origin.path, origin.line, "%s", (text,), exc_info, origin.function)
    try:
        # A formatter that shows a field of the first record finds it here as well.
        extra = {**origin.extra, "outlast": fields}
        return origin.logger.makeRecord(origin.logger.name, origin.level, *where, extra)
    except Exception as failed:  # noqa: BLE001  # whatever a factory raises, or a name that a record has already
        report(failed)
    record = logging.LogRecord(origin.logger.name, origin.level, *where)
    record.__dict__["outlast"] = fields
    return record


def _handle(logger: logging.Logger, record: logging.LogRecord) -> None:
    """Do what `Logger.handle` does, one handler after the other: none that raises keeps the record from the others."""
    if logger.disabled:
        return
    try:
        passed: Any = logger.filter(record)
    except Exception as failed:  # noqa: BLE001  # whatever a filter raises
        report(failed)
        passed = True
    if not passed:
        return
    if isinstance(passed, logging.LogRecord):
        record = passed
    found = list(_handlers_of(logger)) or ([logging.lastResort] if logging.lastResort is not None else [])
    for handler in found:
        if record.levelno >= handler.level:
            _emit(handler, record)


def _handlers_of(logger: logging.Logger) -> Iterator[logging.Handler]:
    """Yield the handlers that a record of this logger goes to, as `Logger.callHandlers` finds them."""
    above: logging.Logger | None = logger
    while above is not None:
        yield from above.handlers
        above = above.parent if above.propagate else None


def _emit(handler: logging.Handler, record: logging.LogRecord) -> None:
    """Let `handler` write the record: with its own formatter, where that raises with ours, or else without the handler."""
    failed = _tried(handler, lambda: handler.handle(record))
    if failed is None:
        return
    if isinstance(failed, OSError):
        # The place cannot be written, whatever the format.
        report(failed)
    elif _tried(handler, lambda: handler.emit(record), PLAIN) is None:
        return
    say(f"{PLAIN.format(record)} [{type(handler).__name__} failed: {type(failed).__name__}]")


def _tried(handler: Any, act: Callable[[], object], formatter: logging.Formatter | None = None) -> Exception | None:  # noqa: ANN401
    """Call `act`, and return what it raised or passed to `handleError`, or None.

    The handler is changed meanwhile, under the lock in which it writes: no other record is affected.
    """
    failures: list[Exception] = []
    own: dict[str, Any] = {}

    def note(_record: logging.LogRecord) -> None:
        raised = sys.exception()
        failures.append(raised if isinstance(raised, Exception) else RuntimeError("handleError was called"))

    changes: dict[str, Any] = {"handleError": note} | ({} if formatter is None else {"formatter": formatter})
    handler.acquire()
    try:
        own = {name: handler.__dict__[name] for name in changes if name in handler.__dict__}
        handler.__dict__.update(changes)
        act()
    except Exception as raised:  # noqa: BLE001  # whatever a handler raises
        failures.append(raised)
    finally:
        for name in changes:
            handler.__dict__.pop(name, None)
        handler.__dict__.update(own)
        handler.release()
    return failures[0] if failures else None


def report(failed: Exception) -> None:
    """Pass what a line met to `threading.excepthook`, which may print it, and may not wait forever to do so."""
    bounded(lambda: threading.excepthook(threading.ExceptHookArgs((type(failed), failed, failed.__traceback__, None))))


def is_own(function: Callable[..., object]) -> bool:
    """Return whether a function is logging's own, and nobody's wrapper: those have its name and module, but not its code."""
    code: CodeType | None = getattr(function, "__code__", None)
    return code is not None and code.co_filename == LOGGING
