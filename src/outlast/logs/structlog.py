"""Folding for structlog: as a processor, or, cheaper, in front of the chain.

import structlog
from outlast.logs.structlog import fold

folding = fold()
structlog.configure(wrapper_class=folding.wrap(structlog.make_filtering_bound_logger(20)))   # before anything else
structlog.configure(processors=[folding, ...])                                               # or as the first processor
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, Unpack, cast

import structlog

from outlast.logs._delivery import report
from outlast.logs._folding.folder import Folder, Handle, tell
from outlast.logs._folding.kinds import is_exempt, put, variant_of
from outlast.logs._folding.options import FOLD, FoldOptions
from outlast.logs._folding.raised import raised_in, raw_raised, tell_raised
from outlast.logs._folding.sameness import PASSES, RecordKind, Site, first_words
from outlast.logs._folding.values import raw_fields, raw_value, sort_of, tell_fields, tell_value
from outlast.logs._masking.texts import VALUE, masked

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from structlog.typing import EventDict, WrappedLogger

    from outlast._core.fold import FoldPolicy, Summary
    from outlast.logs._folding.options import Options
    from outlast.logs._folding.values import Args

__all__ = ["Folding", "fold"]


Bound: TypeAlias = Any
"""A bound logger of a class that `wrap` made."""
Method: TypeAlias = Any
"""A method of a bound logger."""
Its: TypeAlias = Any
"""An argument of such a method: an event, and whatever belongs to it."""
SAME: Final = {"exception": "error", "warn": "warning", "msg": "info"}
"""Methods that structlog's filtering logger calls by another name."""
LEVELS: Final = {"debug": 10, "info": 20, "msg": 20, "warn": 30, "warning": 30, "error": 40, "err": 40, "exception": 40}
"""Levels that are not listed here, critical above all, are never folded."""


def fold(policy: FoldPolicy = FOLD, **options: Unpack[Options]) -> Folding:
    """Fold what structlog's loggers repeat. The options are those of `outlast.logs.stdlib.fold`; `exempt` names events.

    The same kind: the same logger and level, an event and fields that say the same thing, and the same exception. Fields whose
    name says that they number an instance (`request_id`, `timestamp`, `attempt` ...) are left out, numbers too unless the name
    says that they are codes (`status`, `errno` ...). Summaries carry the first event's fields and `outlast.key`,
    `outlast.count` and so on; where a processor raises, they are written past the chain.
    """
    return Folding(FoldOptions(policy, **options))


class Folding(Handle):
    """A processor, and the handle of it. Put it first, or behind `merge_contextvars` if what that adds tells kinds apart."""

    def __init__(self, options: FoldOptions) -> None:
        """See `fold`, which is the way to make one."""
        self.folder = Folder(options, self._say)
        self._exempt = frozenset(options.exempt)
        self._variants_max = options.variants_max
        self.levels = {name: number for name, number in LEVELS.items() if number >= options.level}
        self._kinds: dict[Hashable, RecordKind] = {}
        self._bound: dict[Hashable, dict[Hashable, RecordKind]] = {}
        self._sites: dict[Hashable, Site] = {}
        self.unjudged = 0

    def __call__(self, logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
        """Process an event. Its summaries are written by a logger of structlog's global configuration."""
        if method_name not in self.levels or "outlast.key" in event_dict:
            return event_dict
        try:
            event, exc = event_dict.get("event"), raised_in(event_dict.get("exc_info"))
            raised = None if exc is None else raw_raised(exc)
            key = (logger, method_name, event, *raw_fields(event_dict), raised)
            kind = self._kinds.get(key)
            if kind is None:
                kind, lasts = self._kind(
                    name_of(logger), method_name, event, (), event_dict, lambda: structlog.wrap_logger(logger)
                )
                if lasts:
                    put(self._kinds, key, kind)
            passes = kind is PASSES or self.folder.passes(kind)
        except Exception:  # noqa: BLE001  # whatever a value's own methods raise
            self.unjudged += 1
            return event_dict
        if not passes:
            raise structlog.DropEvent
        return event_dict

    def wrap(self, wrapper_class: type[Any]) -> type[Any]:
        """Return a wrapper class that asks before the context is copied and the chain runs: a fold at a fraction of the price.

        With the classes of `structlog.make_filtering_bound_logger` it asks before anything is formatted. The summaries are
        written by the bound logger of the first event, with what was bound to it.
        """
        native = wrapper_class in {structlog.make_filtering_bound_logger(level) for level in (0, 10, 20, 30, 40, 50)}
        methods: dict[str, Any] = {"_outlast_kinds": None}
        proxy = wrapper_class._proxy_to_logger  # noqa: SLF001  # what structlog documents for wrapper classes of others
        methods["_proxy_to_logger"] = asks_in_proxy(self, proxy)
        if native:
            floor = wrapper_class.get_effective_level(None)
            methods |= {name: asks_first(self, name, proxy) for name, level in self.levels.items() if level >= floor}
        return type(f"Folded{wrapper_class.__name__}", (wrapper_class,), methods)

    def kinds_of(self, bound: Bound) -> dict[Hashable, RecordKind]:
        """Return the kinds of what is bound to a logger, which finds them at once from now on."""
        context = (name_of(bound._logger), raw_fields(structlog.get_context(bound)))  # noqa: SLF001  # as above
        kinds = self._bound.get(context)
        if kinds is None:
            kinds = dict["Hashable", RecordKind]()
            put(self._bound, context, kinds)
        bound._outlast_kinds = kinds  # noqa: SLF001  # our own, in a class of structlog's
        return kinds

    def kind_of(self, bound: Bound, method: str, event: object, args: Args, fields: dict[str, Any]) -> RecordKind:
        """Return the kind of an event of a bound logger, which remembers it by what these methods look up."""
        if "outlast.key" in fields:
            return PASSES
        kinds = bound._outlast_kinds or self.kinds_of(bound)  # noqa: SLF001  # as above
        exc = raised_in(fields.get("exc_info"))
        key = (method, event, *raw_fields(fields))
        if args or exc is not None:
            values = tuple(raw_value(value, code=False) for value in args)
            key = (*key, values, None if exc is None else raw_raised(exc))
        kind, lasts = kinds.get(key), True
        if kind is None:
            logger = bound._logger  # noqa: SLF001  # as above
            everything = {**structlog.get_context(bound), **fields}
            kind, lasts = self._kind(name_of(logger), method, event, args, everything, lambda: bound)
            if lasts:
                put(kinds, key, kind)
        if (
            lasts
            and not args
            and exc is None
            and all(type(value) is str and sort_of(name) is VALUE for name, value in fields.items())
        ):
            # As the methods of `wrap` look it up, who do not look into values.
            put(kinds, (method, event, *fields.items()), kind)
        return kind

    def _kind(
        self, name: str, method: str, event: object, args: Args, fields: Mapping[str, Any], writer: Callable[[], Any]
    ) -> tuple[RecordKind, bool]:
        """Return the kind of an event, and whether it is worth remembering."""
        if is_exempt(self._exempt, name, self.levels[method], event):
            return PASSES, True
        text = masked(str(event))
        where = (name, method, text)
        site = self._sites.get(where)
        if site is None:
            site = Site(f"{method.upper()} {name}: {text}" if name else f"{method.upper()}: {text}", None)
            put(self._sites, where, site)
        exc = raised_in(fields.get("exc_info"))
        variant = tell_fields(fields)
        if args:
            variant = f"{', '.join(tell_value(value, code=False) for value in args)} {variant}"
        if exc is not None:
            variant = f"{variant} ! {tell_raised(exc)}"
        kind = variant_of(
            site,
            variant,
            self.folder,
            self._variants_max,
            lambda key: RecordKind(key, first_words(event, args, exc), Origin(writer(), method, carried(fields))),
        )
        # A text with numbers in it will hardly come again; the kind of other values ends.
        return kind, kind is not site.others and text == event

    def _say(self, summary: Summary) -> None:
        kind = summary.example
        if isinstance(kind, RecordKind):
            origin: Origin = kind.about
            method = "error" if origin.method == "exception" else origin.method
            fields = self.folder.fields(summary)
            try:
                # A processor that reads a field of the first event finds it here as well.
                getattr(origin.logger, method)(tell(summary), **{**origin.fields, **fields})
            except Exception as failed:  # noqa: BLE001  # whatever a processor of the user's raises: it costs no count
                report(failed)
                getattr(origin.logger._logger, method)(f"{tell(summary)} {fields}")  # noqa: SLF001  # past the chain


class Origin(NamedTuple):
    """The logger that writes the summaries of a kind, and the method by which it does."""

    logger: Any
    method: str
    fields: dict[str, Any]
    """Those of the first event."""


def carried(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the first event that its summaries carry: not its text, and not its exception."""
    return {name: value for name, value in fields.items() if name not in {"event", "exc_info", "stack_info", "exception"}}


def name_of(logger: WrappedLogger) -> str:
    """Return the name of a stdlib logger; others have none."""
    sort = type(cast("object", logger))
    known = _named.get(sort)
    if known is None:
        known = _named[sort] = isinstance(logger, logging.Logger)
    return logger.name if known else ""


_named: dict[type[Any], bool] = {}


# The methods of bound loggers that ask before they do anything: the hot path.


def asks(folding: Folding) -> Method:
    """Return a function that decides whether an event of a bound logger is to be shown."""
    folder, kind_of = folding.folder, folding.kind_of

    def passes(bound: Its, method: str, event: Its, args: Its, fields: Its) -> bool:
        try:
            kind = kind_of(bound, method, event, args, fields)
            return kind is PASSES or folder.passes(kind)
        except Exception:  # noqa: BLE001  # whatever a value's own methods raise
            folding.unjudged += 1
            return True

    return passes


def asks_in_proxy(folding: Folding, proxy: Method) -> Method:
    """Return the method through which all methods of a wrapper class go."""
    passes, levels = asks(folding), folding.levels

    def _proxy_to_logger(self: Its, method_name: str, event: Its = None, *args: Its, **fields: Its) -> Its:
        if method_name not in levels or passes(self, method_name, event, args, fields):
            return proxy(self, method_name, event, *args, **fields)
        return None

    return as_structlog(_proxy_to_logger)


def asks_first(folding: Folding, name: str, proxy: Method) -> Method:
    """Return a method of structlog's filtering logger that asks before it does what that one does. All its names are local."""
    passes, to, is_exception = asks(folding), SAME.get(name, name), name == "exception"
    folder, clock, takes_room = folding.folder, folding.folder.clock, folding.folder.takes_room
    acquire, release, released = folder.lock.acquire, folder.lock.release, folder.release_if_owned

    def method(self: Its, event: Its, *args: Its, **fields: Its) -> Its:
        if is_exception:
            fields.setdefault("exc_info", True)
        elif not args and (kinds := self._outlast_kinds):
            try:
                storm = kinds.get((to, event, *fields.items()), PASSES).storm
                if storm.folding:
                    now = clock()
                    acquire()
                    if storm.folding:  # It may have ended while this thread waited.
                        storm.pending += 1
                        storm.last_at = now
                        release()
                        return None
                    release()
                has_room = storm.room > 0 and takes_room(storm)
            except Exception:  # noqa: BLE001  # A value cannot be hashed or compared: `passes` looks into it.
                has_room = False
            except BaseException:  # A signal's exception may come between any two of these lines.
                released()
                raise
            if has_room:
                return proxy(self, to, event, **fields)
        if passes(self, to, event, args, fields):
            if args:
                event %= args[0] if len(args) == 1 and isinstance(args[0], Mapping) and args[0] else args
            return proxy(self, to, event, **fields)
        return None

    return as_structlog(method)


def as_structlog(function: Method) -> Method:
    """Return the same function, in a module whose name structlog skips when it looks for the line of code that logs."""
    scope = {**globals(), "__name__": "structlog.outlast"}
    return FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
