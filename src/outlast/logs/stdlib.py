"""Folding for stdlib logging: it decides before a record is made, for every logger of the process.

from outlast.logs.stdlib import fold

fold()                                  # for the life of the process
with fold(logging.getLogger("shop")):   # or for a while, and for a part
    ...
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Unpack, cast

from outlast.logs._delivery import Origin, deliver, is_own
from outlast.logs._folding.folder import Folder, Handle, tell
from outlast.logs._folding.kinds import Kinds, calling_frame
from outlast.logs._folding.options import FOLD, FoldOptions
from outlast.logs._folding.sameness import PASSES, RecordKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from outlast._core.fold import FoldPolicy, Summary
    from outlast.logs._folding.options import Options

__all__ = ["Folding", "fold"]


Its: TypeAlias = Any
"""An argument of a call of a logger, whatever it is."""


def fold(
    logger: logging.Logger | str | None = None,
    policy: FoldPolicy = FOLD,
    **options: Unpack[Options],
) -> Folding:
    """Fold what stdlib loggers repeat, from now until the handle is closed; at exit it is closed by itself.

    The first record of a kind is written at once, unchanged, with its `extra`, `exc_info` and `stack_info`. Those that follow are
    counted before anything is formatted. A summary tells their number: at growing intervals, when the storm is over, and at
    the end; it is written by the same logger at the same level, as from the same line of code, with the first record's `extra`
    and the fields `outlast.key`, `outlast.count`, `outlast.total`, `outlast.since`, `outlast.what` in the dict `record.outlast`.
    A formatter that raises costs no count: the summary is then written in a format of ours.

    The records of `logger` and of its descendants are folded; None is all loggers, those of other libraries too. The options are
    `exempt`, `level`, `variants_max`, `incidents`, `timer`, `clock`. CRITICAL is never folded.
    Records that carry `extra["outlast"]` pass: they are folded already. Foldings may overlap; the later one is asked first.
    """
    name = logger.name if isinstance(logger, logging.Logger) else logger
    return Folding(None if name in {None, "root"} else name, FoldOptions(policy, **options))


class Folding(Handle):
    """Folding that goes on until it is closed. As a context manager it closes itself."""

    def __init__(self, name: str | None, options: FoldOptions) -> None:
        """See `fold`, which is the way to make one."""
        self.folder = Folder(options, self._say, on_close=self._restore)
        self._kinds = Kinds(self.folder, options, name=name)
        self.unjudged = 0
        self._level = options.level
        self._original = logging.Logger._log  # noqa: SLF001  # where all loggers meet before a record is made
        self._replacement = self._replace()
        logging.Logger._log = self._replacement  # type: ignore[method-assign]  # noqa: SLF001  # as above

    def _say(self, summary: Summary) -> None:
        kind = summary.example
        if not isinstance(kind, RecordKind):
            return
        origin: Origin = kind.about
        deliver(origin, tell(summary), self.folder.fields(summary))

    def _restore(self) -> None:
        if logging.Logger._log is self._replacement:  # noqa: SLF001  # as above
            logging.Logger._log = self._original  # type: ignore[method-assign]  # noqa: SLF001  # as above

    def _replace(self) -> Callable[..., None]:  # noqa: C901  # one function, since each call costs a tenth of the whole
        """Return the function that stands for `Logger._log`. Everything it needs for a record that is folded is a local name."""
        folding, is_stdlib = self, is_own(self._original)
        original, folder, kind_of = self._original, self.folder, self._kinds.kind_of
        passes, takes_room = folder.passes, folder.takes_room
        texts, templates = self._kinds.texts, self._kinds.templates
        floor, ceiling, clock = self._level, logging.CRITICAL, self.folder.clock
        # A third of what `with` costs.
        acquire, release, release_if_owned = folder.lock.acquire, folder.lock.release, folder.release_if_owned
        get_frame = sys._getframe  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # as findCaller does

        def _log(  # as above
            self: Its,
            level: int,
            msg: Its,
            args: Its,
            exc_info: Its = None,
            extra: Its = None,
            stack_info: Its = False,  # noqa: FBT002  # the signature of what it stands for
            stacklevel: int = 1,
        ) -> None:
            if floor <= level < ceiling and (extra is None or "outlast" not in extra):
                try:
                    kind: RecordKind | None = None
                    if not exc_info and type(msg) is str and not extra:
                        if not args:
                            kind = texts.get((self.name, level, msg))
                        elif site := templates.get((self.name, level, msg)):
                            where = site.only
                            single = where >= 0 and type(args[where]) is str
                            kind = site.kinds.get(args[where] if single else site.raw(args))
                    if kind is None:
                        kind = kind_of(self, level, msg, args, exc_info, stacklevel, extra)
                    storm = kind.storm
                    if storm.folding:
                        now = clock()
                        acquire()
                        if storm.folding:  # It may have ended while this thread waited.
                            storm.pending += 1
                            storm.last_at = now
                            release()
                            return
                        release()  # type: ignore[unreachable]  # mypy does not know of other threads
                    if not (storm.room and takes_room(storm)) and kind is not PASSES and not passes(kind):
                        return
                except Exception:  # noqa: BLE001  # whatever a value's own methods raise
                    folding.unjudged += 1
                except BaseException:  # A signal's exception may come between any two of these lines.
                    release_if_owned()
                    raise
            if is_stdlib:
                write(self, level, msg, args, exc_info, extra, stack_info, stacklevel, get_frame(1))
            else:
                # One level more for this function: the caller is named as without folding.
                original(self, level, msg, args, exc_info, extra, stack_info, stacklevel + 1)

        return _log


FIND_CALLER: Final = logging.Logger.findCaller if is_own(logging.Logger.findCaller) else None


def write(
    logger: Its, level: int, msg: Its, args: Its, exc_info: Its, extra: Its, stack_info: Its, stacklevel: int, called: FrameType
) -> None:
    """Make a record and hand it on, as logging's `_log` does; `called` is the frame of who called that."""
    if stacklevel == 1 and not stack_info and logger.__class__.findCaller is FIND_CALLER:
        # The same caller at a third of the cost, which pays for most of the question whether the record passes.
        frame = calling_frame(called, 1)
        path, line, function, stack = frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, None
    else:
        # Two levels more, for this function and for the one that stands for `_log`.
        path, line, function, stack = logger.findCaller(stack_info, stacklevel + 2)
    raised = exc_info and exc_info_of(exc_info)
    logger.handle(logger.makeRecord(logger.name, level, path, line, msg, args, raised, function, extra, stack))


def exc_info_of(exc_info: Its) -> Its:
    """Return what a record holds for this argument of a call, as logging makes it."""
    if isinstance(exc_info, BaseException):
        return (type(exc_info), exc_info, exc_info.__traceback__)
    return cast("Its", exc_info) if isinstance(exc_info, tuple) else sys.exc_info()
