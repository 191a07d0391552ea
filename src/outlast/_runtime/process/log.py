"""The log of a process whose program has configured none: standard error, through a handler that never makes the work wait."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
from functools import cache
from typing import TYPE_CHECKING, Final

from outlast._core.faults import ConfigurationError
from outlast.logs import _last_words as last_words
from outlast.logs._json_lines import JsonLines
from outlast.logs._writer import QueuedHandler

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
FORMATS: Final[dict[str, Callable[[], logging.Formatter]]] = {"text": lambda: logging.Formatter(TEXT), "json": JsonLines}
FLUSH_S: Final = 2.0
"""At the end what is queued gets this long, or the rest of the deadline if that is less."""
MARGIN_S: Final = 0.1
"""The rest of the deadline that is left when the log has been waited for."""
LAST_S: Final = 0.3
"""Each of three last things before the process leaves: lines that are queued, why it leaves, what `print` has buffered."""
logger = logging.getLogger("outlast")


class ProcessLog:
    """Installs the log at INFO, unless the root logger has a handler already: then everything stays as it is.

    With it, what Python itself would write to standard error becomes records, since that would wait as well: warnings, and
    exceptions in threads and destructors.
    """

    def __init__(self, format_: str | None = None) -> None:
        """Install it; `format_` is "text" (the default) or "json"."""
        if format_ not in {None, *FORMATS}:
            raise ConfigurationError(f"log_format is one of {', '.join(FORMATS)}, not {format_!r}")
        self.handler: QueuedHandler | None = None
        root = logging.getLogger()
        if root.handlers:
            if format_ is not None:
                logger.warning("log format %s is not used: the program has configured logging itself", format_)
            return
        if sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]  # Python leaves it out if descriptor 2 is closed.
            return
        self.handler = QueuedHandler(sys.stderr)
        self.handler.setFormatter(FORMATS[format_ or "text"]())
        root.addHandler(self.handler)
        if root.level == logging.WARNING:
            root.setLevel(logging.INFO)
        _log_what_python_says()

    def flush(self, seconds: float) -> None:
        """Wait for what is queued, at most `seconds`; with what is waited for when the process ends, at most `FLUSH_S`."""
        limit_s = max(MARGIN_S / 2, min(FLUSH_S, seconds - MARGIN_S))
        if self.handler is not None and not self.handler.writer.flush(limit_s):
            self.handler.writer.close_s = FLUSH_S - limit_s


def _log_what_python_says() -> None:
    logging.captureWarnings(capture=True)
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _uncaught
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _unraisable
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _ended_thread


def _uncaught(_kind: type[BaseException], exc: BaseException, _traceback: TracebackType | None) -> None:
    logger.critical("the process ends by an exception", exc_info=exc)


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    said = what.err_msg or "exception ignored in"
    logger.error("%s: %s", said, type(what.object).__qualname__, exc_info=what.exc_value)


def _ended_thread(what: threading.ExceptHookArgs) -> None:
    if what.exc_type is not SystemExit:
        logger.error("thread %s ended by an exception", what.thread.name if what.thread else "", exc_info=what.exc_value)


class Ending:
    """Sees to it that nothing keeps the process when the interpreter ends: no standard stream that nobody reads.

    To be made early: hooks run in reverse, so the handlers that are made after it have written what they could by then.
    """

    def __init__(self) -> None:
        """Install the hook, and start the thread that it will need."""
        self.exit_code = 0
        """The exit code of the process if it cannot end by itself."""
        self._helper = last_words.Helper.start()
        self._pid = os.getpid()
        atexit.register(self._let_go)

    def _let_go(self) -> None:
        # A child after a fork has this hook, but not the thread, and its own exit code.
        if self._pid == os.getpid() and self._helper is not None and not last_words.flush_streams(self._helper):
            os._exit(self.exit_code)


@cache
def ending() -> Ending:
    """Return the one of this process, made at the first call."""
    return Ending()


def last_line(text: str) -> None:
    """Write what is queued, then why the process leaves, then what `print` has buffered; for at most `LAST_S` each."""
    handlers = list(logging.getLogger().handlers)
    last_words.bounded(lambda: _flush(handlers), LAST_S)
    last_words.say(_formatted(text, handlers), LAST_S)
    if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison]  # as above
        last_words.bounded(sys.stdout.flush, LAST_S)


def _flush(handlers: list[logging.Handler]) -> None:
    for handler in handlers:
        handler.flush()


def _formatted(text: str, handlers: list[logging.Handler]) -> str:
    """Return the line in the format of the log, if that is ours."""
    record = logging.LogRecord("outlast", logging.ERROR, __file__, 0, "%s", (text,), None)
    for handler in handlers:
        if isinstance(handler, QueuedHandler) and handler.formatter is not None:
            with contextlib.suppress(Exception):
                return handler.format(record)
    return f"outlast: {text}"
