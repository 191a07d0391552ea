"""Finds the kind of a stdlib log record before it is made, from the arguments of the call alone."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Final

from outlast.logs._delivery import LOGGING, Origin
from outlast.logs._folding.raised import raised_in, raw_raised, tell_raised
from outlast.logs._folding.sameness import PASSES, RecordKind, Site, first_words, site_of
from outlast.logs._folding.values import raw_fields, tell_fields
from outlast.logs._masking.texts import masked

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from types import CodeType, FrameType

    from outlast.logs._folding.folder import Folder
    from outlast.logs._folding.options import FoldOptions
    from outlast.logs._folding.values import Args

CACHED_MAX: Final = 4_096
"""The number of templates, ready-made texts and raised exceptions that are recognised at once; beyond it they are judged again.
Since kinds are told apart by their text, forgetting changes no storm."""
LOOK_AGAIN_S: Final = 1.0
"""A template whose variants are all in use looks this often for some that are over."""


class Kinds:
    """The kinds of one folding, with bounds: `CACHED_MAX` of each sort, `variants_max` open kinds of a template."""

    def __init__(self, folder: Folder, options: FoldOptions, *, name: str | None) -> None:
        """Find kinds for `folder`. Loggers outside `name`, and what is exempt, are no kind: they pass."""
        self._folder = folder
        self._name = name
        self._exempt = frozenset(options.exempt)
        self._variants_max = options.variants_max
        self.texts: dict[Hashable, RecordKind] = {}
        self.templates: dict[Hashable, Site] = {}
        self._others: dict[Hashable, RecordKind] = {}
        """Of records with an exception or with fields of their own."""
        self._lines: dict[tuple[str, int, CodeType, int], Site] = {}

    def kind_of(
        self,
        logger: logging.Logger,
        level: int,
        msg: object,
        args: Args,
        exc_info: object,
        stacklevel: int,
        extra: Mapping[str, object] | None,
    ) -> RecordKind:
        """Return the kind of any record; `PASSES` for what is exempt. What was seen before is found in `texts` and `templates`.

        Any field of `extra` may be shown by a formatter, so each of them counts, as a field of structlog does.
        """
        exc = raised_in(exc_info) if exc_info else None
        # What more than text and values decides.
        more: tuple[Hashable, ...] = (
            () if exc is None and not extra else (raw_fields(extra or {}), None if exc is None else raw_raised(exc))
        )
        called = sys._getframe(2)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # as findCaller does
        site: Site | None = None
        raw: Hashable = ()
        if args or not isinstance(msg, str):
            site, args = self._template(logger.name, level, msg, args)
            raw = site.raw(args)
            known = site.kinds.get(() if more else raw)
            if known is not None and (not more or known is PASSES):
                return known
        key: Hashable = (logger.name, level, msg)
        if more:
            key = (logger.name, level, msg if site is None else site, raw, more)
            known = self._others.get(key)
            if known is not None:
                return known
        if site is None and self._is_exempt(logger.name, level, msg):
            put(self._others if more else self.texts, key, PASSES)
            return PASSES
        variant = plain = masked(str(msg)) if site is None else site.tell(args)
        owner = self._line(logger.name, level, calling_frame(called, stacklevel)) if site is None else site
        # A text with numbers in it will hardly come again.
        comes_again = site is not None or plain == msg
        if more:
            variant = with_more(plain, extra, exc)

        def make(key: str) -> RecordKind:
            frame = calling_frame(called, stacklevel)
            origin = Origin(logger, level, frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, dict(extra or {}))
            return RecordKind(key, first_words(msg, args, exc), origin)

        kind = owner.variants.get(variant) or variant_of(owner, variant, self._folder, self._variants_max, make)
        if kind is owner.others:
            return kind
        if more:
            put(self._others, key, kind)
        elif site is not None:
            site.remember(raw, kind)
        elif comes_again:
            put(self.texts, key, kind)
        return kind

    def _template(self, name: str, level: int, msg: object, args: Args) -> tuple[Site, Args]:
        """Return the site of a record that carries values, and these values."""
        template = msg if isinstance(msg, str) else None
        key = (name, level, type(msg) if template is None else template)
        site = self.templates.get(key)
        if site is None:
            text = f"{logging.getLevelName(level)} {name}: {type(msg).__qualname__ if template is None else template}"
            if self._is_exempt(name, level, msg):
                site = Site(text, (), kinds={(): PASSES})
            else:
                site = Site(text, None) if template is None else site_of(text, template)
            put(self.templates, key, site)
        if template is None:
            # An object is a message of its own: what it says is the first value.
            args = (msg, *args)
        return site, args

    def _line(self, name: str, level: int, frame: FrameType) -> Site:
        """Return the site of a record that came as ready-made text: the line of code that logs it."""
        key = (name, level, frame.f_code, frame.f_lasti)
        site = self._lines.get(key)
        if site is None:
            place = f" from {frame.f_code.co_filename}:{frame.f_lineno}"
            site = Site(f"{logging.getLevelName(level)} {name}:", (), join=" ", place=place)
            put(self._lines, key, site)
        return site

    def _is_exempt(self, name: str, level: int, msg: object) -> bool:
        """Return whether a record passes, by where it comes from, its level or its template."""
        if self._name is not None and name != self._name and not name.startswith(f"{self._name}."):
            return True
        return is_exempt(self._exempt, name, level, msg)


def is_exempt(exempt: frozenset[int | str], name: str, level: int, msg: object) -> bool:
    """Return whether a level, a logger or one above it, or a message template is named in `exempt`."""
    if not exempt:
        return False
    parts = name.split(".")
    above = {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
    return level in exempt or bool(above & exempt) or (isinstance(msg, str) and msg in exempt)


def variant_of(site: Site, variant: str, folder: Folder, variants_max: int, make: Callable[[str], RecordKind]) -> RecordKind:
    """Return the kind of a variant of a site, made by `make(key)`, or the one of all others when `variants_max` are open."""
    known = site.variants.get(variant)
    if known is not None:
        return known
    now = folder.clock()
    if len(site.variants) >= variants_max and now >= site.look_again_at:
        site.look_again_at = now + LOOK_AGAIN_S
        # A list first: another thread may add one meanwhile.
        site.variants = {text: kind for text, kind in list(site.variants.items()) if folder.is_open(kind.key)}
        site.kinds.clear()
    if len(site.variants) < variants_max:
        key = f"{site.name}{site.join}{variant}" if variant else site.name
        known = site.variants[variant] = make(key)
        return known
    if site.others is None:
        site.others = make(f"{site.name}{site.join}other values{site.place}")
    return site.others


def with_more(variant: str, extra: Mapping[str, object] | None, exc: BaseException | None) -> str:
    """Return a variant with what fields of its own and an exception add to it."""
    fields = tell_fields(extra) if extra else ""
    told = f"{variant} {fields}".strip() if fields else variant
    return told if exc is None else f"{told} ! {tell_raised(exc)}"


def put(cache: dict[Any, Any], key: Hashable, value: object) -> None:
    """Remember, within `CACHED_MAX`."""
    if len(cache) >= CACHED_MAX:
        cache.clear()
    cache[key] = value


def calling_frame(frame: FrameType, stacklevel: int) -> FrameType:
    """Return the frame of the code that logs, found from a frame below it as `Logger.findCaller` finds it."""
    while True:
        if frame.f_code.co_filename != LOGGING:
            stacklevel -= 1
        if stacklevel <= 0 or frame.f_back is None:
            return frame
        frame = frame.f_back
