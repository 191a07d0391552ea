"""Decides which messages of Python loggers are the same: as little is formatted as can be, and nothing distinct is merged.

Two records are the same **kind** when they come from the same logger at the same level with the same template, and when
what was put into the template says the same thing. Values that count or name an instance are left out: numbers, times,
UUIDs, long hexadecimal and decimal ids. Values that name a *thing* are part of it: words, paths, host and table names,
IP addresses, exceptions (their type, their code and what they say), and numbers that are codes. The rules are those of
`outlast.logs._masking`, for a template as for the text that it makes.

A template whose values differ every time would be a flood of kinds. So a template has at most `variants_max` open kinds;
what goes beyond shares one further kind, "other values". The same holds for a line of code that logs ready-made text.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import TYPE_CHECKING, Any, Final

from outlast._core.fold import Storm
from outlast.logs._folding.values import raw_value, tell_value
from outlast.logs._masking.texts import CODE, INSTANCE, TEXT_CHARS_MAX, VALUE, masked, said, sorts_in

if TYPE_CHECKING:
    from collections.abc import Hashable

    from outlast.logs._folding.values import Args

RAW_MAX: Final = 64
"""The number of raw values that a template remembers, to find their kind without looking into them."""
OVERFLOWS_MAX: Final = 2
WORDS_MAX: Final = 300
"""The length of the part of the first message that a summary repeats."""
PLACEHOLDER = re.compile(r"%(?:\((\w+)\))?[-#0 +]*(\*|\d+)?(?:\.(\*|\d+))?[hlL]?([diouxXeEfFgGcrsa%])")
TEXT_CONVERSIONS: Final = "rsac"

NO_STORM: Final = Storm("", None, 0.0, 0.0, 0.0)


@dataclass(slots=True, eq=False)
class RecordKind:
    """All records that say the same, and what a summary says about them. `key` alone decides about sameness."""

    key: str
    text: str
    """The first message of the kind, as it was written."""
    about: Any
    """The logger, level and line of code that the caller needs to write a summary."""
    storm: Storm = NO_STORM
    """The storm it was folded into last: to be counted in while that is folding."""
    incident: str | None = None
    """The open incident during which it was folded."""


PASSES: Final = RecordKind("", "", None)
"""Stands for what is exempt."""


@dataclass(slots=True, eq=False)
class Site:
    """One template, or one line of code that logs ready-made text, with the kinds that were seen of it."""

    name: str
    kept: tuple[tuple[Any, bool], ...] | None
    """The values that can matter, each with whether a number there is a code; None: all of them."""
    only: int = -1
    """The position of the only value that can matter, where there is just one."""
    is_named: bool = False
    """Whether the template names its values: they come as one mapping."""
    kinds: dict[Hashable, RecordKind] = field(default_factory=dict["Hashable", RecordKind])
    """By raw values. Those that are the same kind share it."""
    variants: dict[str, RecordKind] = field(default_factory=dict[str, RecordKind])
    others: RecordKind | None = None
    overflows: int = 0
    """The number of times that it met more raw values than it remembers.

    From `OVERFLOWS_MAX` on they are masked before they are looked up.
    """
    look_again_at: float = float("-inf")
    join: str = " | "
    place: str = ""
    """File and line, for a site that is a line of code."""

    def remember(self, raw: Hashable, kind: RecordKind) -> None:
        """Find `kind` by these raw values from now on. Neither the kind of other values, which ends, nor a huge one."""
        if kind is not self.others and (type(raw) is not str or len(raw) <= TEXT_CHARS_MAX):
            if len(self.kinds) >= RAW_MAX:
                self.kinds.clear()
                self.overflows += 1
                if self.overflows >= OVERFLOWS_MAX:
                    self.only = -1
            self.kinds[raw] = kind

    def raw(self, args: Args) -> Hashable:
        """Return the values that can matter, cheaply: where these are equal, so is what `tell` returns."""
        if self.is_named and isinstance(args[0], Mapping):
            args = args[0]
        if self.kept is None:
            return tuple([raw_value(value, code=False) for value in args])
        if self.only >= 0 and type(args[self.only]) is str:
            return str(args[self.only])
        values: list[Hashable] = []
        for where, code in self.kept:
            value = args[where]
            if type(value) is str:
                values.append(value if code or self.overflows < OVERFLOWS_MAX else masked(value))
            elif type(value) is int:
                values.append(value if code else int)
            else:
                values.append(raw_value(value, code=code))
        return tuple(values)

    def tell(self, args: Args) -> str:
        """Return what the values say, masked: the part of a key that tells the kinds of one template apart."""
        if self.is_named and isinstance(args[0], Mapping):
            args = args[0]
        if self.kept is None:
            return ", ".join([tell_value(value, code=False) for value in args])
        return ", ".join([tell_value(args[where], code=code) for where, code in self.kept])


def site_of(name: str, template: str) -> Site:
    """Read a %-template once: which of its values can matter."""
    pieces, numeric, at = [""], list[bool](), 0
    labels: list[str | None] = []
    for match in PLACEHOLDER.finditer(template):
        label, width, precision, conversion = match.groups()
        pieces[-1] += template[at : match.start()]
        at = match.end()
        if conversion == "%":
            pieces[-1] += "%"
            continue
        if "*" in {width, precision}:
            return Site(name, None)
        labels.append(label)
        numeric.append(conversion not in TEXT_CONVERSIONS)
        pieces.append("")
    pieces[-1] += template[at:]
    sorts = zip(labels, sorts_in(pieces, numeric), strict=True)
    kept: list[tuple[Any, bool]] = [
        (label or position, sort is CODE) for position, (label, sort) in enumerate(sorts) if sort is not INSTANCE
    ]
    is_named = any(labels)
    only = kept[0][0] if len(kept) == 1 and not is_named else -1
    # Values without placeholders belong to another style of template: all of them may matter.
    return Site(name, tuple(kept) if labels else None, only, is_named=is_named)


def site_of_braces(name: str, template: str) -> Site:
    """Read a template of `str.format` once: as `site_of`, for its positions, and for those names that stand where a code stands.

    Where there are names, the values come in one mapping, in which the others have their position.
    """
    pieces, labels = [""], list[str]()
    for literal, field_name, _, _ in Formatter().parse(template):
        pieces[-1] += literal
        if field_name is not None:
            labels.append(re.split(r"[.\[]", field_name, maxsplit=1)[0])
            pieces.append("")
    automatic = itertools.count()
    kept: list[tuple[Any, bool]] = []
    for label, sort in zip(labels, sorts_in(pieces, [False] * len(labels)), strict=True):
        position = next(automatic) if not label or label.isdecimal() else None
        if sort is CODE or (sort is VALUE and position is not None):
            kept.append((label if position is None else int(label or position), sort is CODE))
    only = kept[0][0] if len(kept) == 1 and isinstance(kept[0][0], int) else -1
    return Site(name, tuple(kept), only)


def first_words(msg: object, args: Args, exc: BaseException | None) -> str:
    """Return the first message of a kind as one line, for its summaries."""
    try:
        values = args[0] if len(args) == 1 and isinstance(args[0], Mapping) and args[0] else args
        text = str(msg) % values if args else str(msg)
    except Exception:  # noqa: BLE001  # logging complains about the record itself
        text = said(msg)
    if exc is not None:
        text = f"{text} ({type(exc).__qualname__}: {said(exc)})"
    first, *more = text.strip().splitlines() or [""]
    return first[:WORDS_MAX] + ("…" if more or len(first) > WORDS_MAX else "")
