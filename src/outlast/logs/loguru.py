"""Folding for loguru: it decides before a record is made and a message is formatted.

from outlast.logs.loguru import fold

fold()
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Unpack, cast

from loguru import logger

from outlast.logs._folding.folder import Folder, Handle, tell
from outlast.logs._folding.kinds import is_exempt, put, variant_of
from outlast.logs._folding.options import FOLD, FoldOptions
from outlast.logs._folding.raised import raised_in, raw_raised, tell_raised
from outlast.logs._folding.sameness import PASSES, RecordKind, Site, first_words, site_of_braces
from outlast.logs._folding.values import raw_fields, tell_fields
from outlast.logs._masking.texts import masked

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from types import FrameType

    from outlast._core.fold import FoldPolicy, Summary
    from outlast.logs._folding.options import Options

__all__ = ["Folding", "fold"]


CRITICAL: Final = 50
DEPTH, LAZY, CAPTURE, PATCHERS, EXTRA = 1, 3, 6, 7, 8
"""The positions of these among the options of a loguru logger."""


class Origin(NamedTuple):
    """The logger that wrote the first record of a kind, and its line of code."""

    logger: Any
    level: str | int
    name: str
    path: str
    line: int
    function: str
    values: Mapping[str, Any]
    """The values that were passed by name, which loguru adds to what is bound."""


class Forgiving(dict[str, Any]):
    """The values bound to a summary: a format that asks for one that is not there costs no count."""

    def __missing__(self, name: str) -> str:
        """Return what stands for a value that is not there."""
        return "-"


def fold(policy: FoldPolicy = FOLD, **options: Unpack[Options]) -> Folding:
    """Fold what loguru's loggers repeat, until the handle is closed; at exit it is closed by itself.

    The options, and the promises, are those of `outlast.logs.stdlib.fold`; a logger's name is that of the module which logs.
    What is bound to a logger tells kinds apart, except for fields whose name says that they number an instance (`request_id`).
    Values of `opt(lazy=True)` are not looked at. Summaries carry what was bound to the first record, and `extra["outlast"]`.
    """
    return Folding(FoldOptions(policy, **options))


class Folding(Handle):
    """Folding that goes on until it is closed. As a context manager it closes itself."""

    def __init__(self, options: FoldOptions) -> None:
        """See `fold`, which is the way to make one."""
        self.folder = Folder(options, self._say, on_close=self._restore)
        self._exempt = frozenset(options.exempt)
        self._variants_max = options.variants_max
        self._level = options.level
        self._kinds: dict[Hashable, RecordKind] = {}
        self._sites: dict[Hashable, Site] = {}
        self.unjudged = 0
        self._class = cast("Any", type(logger))
        self._original: Any = self._class._log  # noqa: SLF001  # where all loggers meet before a record is made
        self._replacement = self._replace()
        self._class._log = self._replacement  # noqa: SLF001  # as above

    def _restore(self) -> None:
        if self._class._log is self._replacement:  # noqa: SLF001  # as above
            self._class._log = self._original  # noqa: SLF001  # as above

    def _replace(self) -> Callable[..., None]:
        """Return the function that stands for loguru's `Logger._log`: the hot path, so all its names are local."""
        original, folder, kinds, kind_of, folding = self._original, self.folder, self._kinds, self._kind, self
        passes, floor, clock, acquire, release = (
            folder.passes,
            self._level,
            folder.clock,
            folder.lock.acquire,
            folder.lock.release,
        )
        get_frame = sys._getframe  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # as loguru does

        def _log(self: Any, level: Any, from_decorator: Any, options: Any, message: Any, args: Any, kwargs: Any) -> None:  # noqa: ANN401
            try:
                core, extra = self._core, options[EXTRA]
                number = core.levels_lookup[level][2] if level in core.levels_lookup else 0
                if floor <= number < CRITICAL and number >= core.min_level and "outlast" not in extra:
                    frame = get_frame(options[DEPTH] + 2)
                    name = frame.f_globals.get("__name__") or ""
                    if core.enabled.get(name, True):
                        raised = raw_in(options[0]) if options[0] else None
                        values = folding.raw_values(name, level, message, args, kwargs, options) if args or kwargs else ()
                        key = (name, level, message, values, raw_fields(extra) if extra else None, raised)
                        kind = kinds.get(key)
                        if kind is None:
                            kind = kind_of(self, key, frame, number, (options, message, args, kwargs))
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
                        if kind is not PASSES and not passes(kind):
                            return
            except Exception:  # noqa: BLE001  # whatever a value's own methods raise
                folding.unjudged += 1
            except BaseException:
                # A signal's exception may come between any two of these lines.
                folder.release_if_owned()
                raise
            # One frame more: this function's.
            original(self, level, from_decorator, (options[0], options[DEPTH] + 1, *options[2:]), message, args, kwargs)

        return _log

    def raw_values(self, name: str, level: Any, message: str, args: Any, kwargs: dict[str, Any], options: Any) -> Hashable:  # noqa: ANN401
        """Return what of a record's values decides about sameness."""
        if options[LAZY]:
            return ()
        site = self._site(name, level, message)
        if not kwargs:
            return site.raw(args)
        return site.raw(together(args, kwargs)), raw_fields(kwargs)

    def _site(self, name: str, level: Any, message: str) -> Site:  # noqa: ANN401
        where = (name, level, message)
        site = self._sites.get(where)
        if site is None:
            site = site_of_braces(f"{level} {name}: {message}", message)
            put(self._sites, where, site)
        return site

    def _kind(self, log: Any, key: tuple[Any, ...], frame: FrameType, number: int, call: tuple[Any, ...]) -> RecordKind:  # noqa: ANN401
        """Return the kind of a record that is not recognised at once."""
        options, message, args, kwargs = call
        name, level, *_ = key
        if is_exempt(self._exempt, name, number, message):
            put(self._kinds, key, PASSES)
            return PASSES
        plain = not args and not kwargs
        text = masked(str(message)) if plain else str(message)
        variant = tell_fields(options[EXTRA])
        if plain or options[LAZY]:
            site = self._site(name, level, text.replace("{", "{{").replace("}", "}}")) if plain else self._site(name, level, text)
        else:
            site = self._site(name, level, text)
            values = together(args, kwargs) if kwargs else args
            variant = f"{site.tell(values)} {tell_fields(kwargs)} {variant}".strip()
        exc = raised_in(options[0])
        if exc is not None:
            variant = f"{variant} ! {tell_raised(exc)}"

        def make(key: str) -> RecordKind:
            code = frame.f_code
            values = dict(kwargs) if options[CAPTURE] and not options[LAZY] else {}
            origin = Origin(log, level, name, code.co_filename, frame.f_lineno, code.co_name, values)
            said = message if plain or options[LAZY] else formatted(message, args, kwargs)
            return RecordKind(key, first_words(said, (), exc), origin)

        kind = variant_of(site, variant, self.folder, self._variants_max, make)
        # A text with numbers in it will hardly come again; the kind of other values ends.
        if kind is not site.others and (not plain or text == message):
            put(self._kinds, key, kind)
        return kind

    def _say(self, summary: Summary) -> None:
        kind = summary.example
        if isinstance(kind, RecordKind):
            origin: Origin = kind.about
            # A format that shows a value of the first record finds it here as well.
            log = (
                origin.logger.opt().bind(**{**origin.values, "outlast": self.folder.fields(summary)}).patch(partial(move, origin))
            )
            log.log(origin.level, "{}", tell(summary))


def together(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[int | str, Any]:
    """Return all values, by position and by name."""
    values: dict[int | str, Any] = dict(enumerate(args))
    values.update(kwargs)
    return values


def formatted(message: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return the message as loguru writes it; the template where that fails, since loguru says what is wrong."""
    try:
        return message.format(*args, **kwargs)
    except Exception:  # noqa: BLE001  # whatever a value's own methods raise
        return message


def move(origin: Origin, record: Any) -> None:  # noqa: ANN401  # loguru's record
    """Let a record say that it comes from `origin`."""
    name = PurePath(origin.path).name
    record.update(name=origin.name, line=origin.line, function=origin.function, module=name.removesuffix(".py"))
    record["extra"] = Forgiving(record["extra"])
    record["file"] = type(record["file"])(name, origin.path)


def raw_in(exc_info: object) -> Hashable:
    """Return what decides about sameness of the exception that is logged, if any."""
    exc = raised_in(exc_info)
    return None if exc is None else raw_raised(exc)
