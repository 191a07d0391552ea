"""What counts as the same message, for Python loggers: as little is formatted as can be, and nothing distinct is merged.

Two records are the same **kind** when they come from the same logger at the same level with the same template, and when
what was put into the template says the same thing. Values that count or name an instance are left out: numbers, times,
UUIDs, long hexadecimal and decimal ids. Values that name a *thing* are part of it: words, paths, host and table names,
IP addresses, exceptions (their type, their code and what they say), and numbers that are codes because the word before
them says so (errno, status, code, exit, signal, port, HTTP, SQLSTATE).

A template whose values differ every time would be a flood of kinds. So a template has at most `variants_max` open kinds;
what goes beyond shares one further kind, "other values". The same holds for a line of code that logs ready-made text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from outlast.core.fold import Storm

if TYPE_CHECKING:
    from collections.abc import Hashable
    from types import TracebackType

TEXT_CHARS_MAX: Final = 2_000
"""Texts are compared, and kept, up to this length."""
RAW_MAX: Final = 256
"""How many raw values a template remembers, to find their kind without looking into them."""
OVERFLOWS_MAX: Final = 4
WORDS_MAX: Final = 300
"""How much of the first message a summary repeats."""
CHAIN_MAX: Final = 4
"""How many causes of an exception are part of its kind."""

CODE_WORDS: Final = frozenset(
    {
        "errno",
        "err",
        "error",
        "code",
        "status",
        "exit",
        "exited",
        "port",
        "signal",
        "sig",
        "sqlstate",
        "rc",
        "returncode",
        "returned",
        "http",
    }
)
CODE_WORD: Final = rf"(?:{'|'.join(sorted(CODE_WORDS, key=len, reverse=True))})"
CODE_BEFORE: Final = re.compile(rf"(?<![a-z]){CODE_WORD}(?:\s+with|/[\d.]+)?[\s:=\[(#'\"]{{0,3}}$", re.IGNORECASE)
MASKED: Final = re.compile(
    rf"""
      (?P<keep>(?<![a-z]){CODE_WORD}[\s:=\[(\#'"]{{1,3}}-?\d{{1,5}}\b
        | \b\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?::\d{{1,4}}\b)?)
    | \b[0-9a-f]{{8}}-(?:[0-9a-f]{{4}}-){{3}}[0-9a-f]{{12}}\b
    | \b\d{{4}}-\d\d-\d\d(?:[T\s]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?
    | \b\d\d:\d\d:\d\d(?:[.,]\d+)?
    | \b0x[0-9a-f]+
    | \b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{{8,}}\b
    | \d{{5,}}
    | (?<![\w/.-])[-+]?\d+(?:[.,]\d+)*(?:[nmuµ]?s|min|h|%|[kmg]?i?b)?(?![\w/-])
    """,
    re.IGNORECASE | re.VERBOSE,
)
PUNCTUATION: Final = "[](){}<>'\"#=:;,.!?"
CODE_CHARS_MAX: Final = 5
"""A longer number is no code."""
WORD_CHARS_MAX: Final = 80
WORDS_CACHED_MAX: Final = 4_096
_words: dict[str, str] = {}
"""What words with digits look like masked: most words of a log come again."""
Args: TypeAlias = Any
"""The values of a record: a tuple, which for a template with names holds one mapping."""

PLACEHOLDER = re.compile(r"%(?:\((\w+)\))?[-#0 +]*(\*|\d+)?(?:\.(\*|\d+))?[hlL]?([diouxXeEfFgGcrsa%])")
TEXT_CONVERSIONS: Final = "rsac"


def masked(text: str) -> str:
    """`text` without what merely counts, dates or numbers an instance; codes, names and addresses of hosts stay."""
    words = text[:TEXT_CHARS_MAX].split(" ")
    for at, word in enumerate(words):
        if word.isalpha():
            continue
        bare = word.strip(PUNCTUATION)
        known = word.replace(bare, "#", 1) if bare.isdigit() else (_words.get(word) or _mask_word(word))
        if known != word and not (at and _is_code(words, at)):
            words[at] = known
    return " ".join(words)


def _mask_word(word: str) -> str:
    known = MASKED.sub(_mask, word)
    if len(word) <= WORD_CHARS_MAX:
        if len(_words) >= WORDS_CACHED_MAX:
            _words.clear()
        _words[word] = known
    return known


def _mask(match: re.Match[str]) -> str:
    return match.group() if match.lastgroup == "keep" else "#"


def _is_code(words: list[str], at: int) -> bool:
    """Whether the word before says that a short number is a code: "status 503", "[Errno 111]", "exited with 1"."""
    if len(words[at].strip(PUNCTUATION)) > CODE_CHARS_MAX:
        return False
    before = words[at - 1].strip(PUNCTUATION).lower()
    if before == "with" and at > 1:
        before = words[at - 2].lower()
    return before in CODE_WORDS or before.startswith("http/") or (before[-6:] in {"_errno", "status"} or before[-4:] == "code")


NO_STORM: Final = Storm("", None, 0.0, 0.0, 0.0)


@dataclass(slots=True, eq=False)
class Kind:
    """What records have in common, and what a summary says about them. `key` alone decides about sameness."""

    key: str
    text: str
    """The first message of the kind, as it was written."""
    about: Any
    """What the caller needs to write a summary: its logger, level and place in the code."""
    storm: Storm = NO_STORM
    """The storm it was folded into last: to be counted in while that is folding."""
    incident: str | None = None
    """The open incident during which it was folded."""


PASSES: Final = Kind("", "", None)
"""Stands for what is exempt."""


@dataclass(slots=True, eq=False)
class Site:
    """One template, or one line of code that logs ready-made text, with the kinds that were seen of it."""

    name: str
    kept: tuple[tuple[Any, bool], ...] | None
    """Which values can matter, and whether the word before says that a number is a code; None: all of them."""
    only: int = -1
    """The position of the only value that can matter, where there is just one."""
    is_named: bool = False
    """Whether the template names its values: they come as one mapping."""
    kinds: dict[Hashable, Kind] = field(default_factory=dict["Hashable", Kind])
    """By raw values. Those that are the same kind share it."""
    variants: dict[str, Kind] = field(default_factory=dict[str, Kind])
    others: Kind | None = None
    overflows: int = 0
    """How often it met more raw values than it remembers: if that is normal, values are masked before they are looked up."""
    look_again_at: float = float("-inf")
    join: str = " | "
    place: str = ""
    """Where the code stands, for a site that is a line of code."""

    def remember(self, raw: Hashable, kind: Kind) -> None:
        """Find `kind` by these raw values from now on. Neither the kind of other values, which ends, nor a huge one."""
        if kind is not self.others and (type(raw) is not str or len(raw) <= TEXT_CHARS_MAX):
            if len(self.kinds) >= RAW_MAX:
                self.kinds.clear()
                self.overflows += 1
                if self.overflows >= OVERFLOWS_MAX:
                    self.only = -1
            self.kinds[raw] = kind

    def raw(self, args: Args) -> Hashable:
        """The values that can matter, cheaply: where these are equal, so is what `tell` gives."""
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
        """What the values say, masked: the part of a key that tells the kinds of one template apart."""
        if self.is_named and isinstance(args[0], Mapping):
            args = args[0]
        if self.kept is None:
            return ", ".join([tell_value(value, code=False) for value in args])
        return ", ".join([tell_value(args[where], code=code) for where, code in self.kept])


def site_of(name: str, template: str) -> Site:
    """Read a %-template once: which of its values can matter."""
    kept: list[tuple[Any, bool]] = []
    position, is_named = 0, False
    for match in PLACEHOLDER.finditer(template):
        label, width, precision, conversion = match.groups()
        if conversion == "%":
            continue
        if "*" in {width, precision}:
            return Site(name, None)
        is_named = is_named or label is not None
        code = bool(CODE_BEFORE.search(template, max(0, match.start() - 40), match.start()))
        if code or conversion in TEXT_CONVERSIONS:
            kept.append((label or position, code))
        position += 1
    only = kept[0][0] if len(kept) == 1 and not is_named else -1
    # Values without placeholders belong to another style of template: all of them may matter.
    return Site(name, tuple(kept) if position else None, only, is_named=is_named)


def raw_value(value: object, *, code: bool) -> Hashable:
    """What of a value decides about sameness: itself where it is a name or a code, what it says where it is a thing."""
    match value:
        case BaseException():
            return raw_exception(value)
        case str() | PurePath():
            return str(value)[:TEXT_CHARS_MAX]
        case None | bool() | Enum():
            return value
        case int() | float():
            return str(value) if code else type(value).__name__
        case _:
            return masked(said(value))


def said(value: object) -> str:
    """`str(value)`, bounded; its type where it cannot say anything."""
    try:
        return str(value)[:TEXT_CHARS_MAX]
    except Exception:  # noqa: BLE001  # whatever a foreign __str__ raises
        return type(value).__qualname__


def raw_exception(exc: BaseException) -> Hashable:
    """What decides about sameness of an exception that is a value: its type and what it carries."""
    carried = (type(exc), exc.args, *exc.__dict__.values())
    if isinstance(exc, OSError):
        carried = (*carried, exc.errno, exc.filename)
    try:
        hash(carried)
    except TypeError:
        return tell_exception(exc)
    return carried


def tell_exception(exc: BaseException) -> str:
    """Type, code and words of an exception, masked. A code is what `errno`, `sqlstate`, `status` or `code` holds."""
    codes = [
        str(code)
        for name in ("errno", "sqlstate", "status", "status_code", "code")
        if isinstance(code := getattr(exc, name, None), int | str)
    ]
    return f"{type(exc).__module__}.{type(exc).__qualname__}[{' '.join(codes)}] {masked(said(exc))}"


def raw_raised(exc: BaseException) -> Hashable:
    """What decides about sameness of an exception that is logged with its traceback: it, its raising line, its causes."""
    parts: list[Hashable] = []
    link: BaseException | None = exc
    while link is not None and len(parts) < CHAIN_MAX:
        parts.append((raw_exception(link), raising_line(link.__traceback__)))
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return tuple(parts)


def raising_line(traceback: TracebackType | None) -> tuple[str, int]:
    """File and number of the innermost line of a traceback."""
    if traceback is None:
        return "", 0
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_code.co_filename, traceback.tb_lineno


def tell_raised(exc: BaseException) -> str:
    """As `raw_raised`, masked, as text."""
    parts: list[str] = []
    link: BaseException | None = exc
    while link is not None and len(parts) < CHAIN_MAX:
        path, line = raising_line(link.__traceback__)
        parts.append(f"{tell_exception(link)} at {path}:{line}")
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return " from ".join(parts)


def tell_value(value: object, *, code: bool) -> str:
    """What one value adds to a key."""
    match value:
        case bool() | None:
            return str(value)
        case int() | float() if not isinstance(value, Enum):
            return str(value) if code else "#"
        case BaseException():
            return tell_exception(value)
        case _:
            return said(value) if code else masked(said(value))


def first_words(msg: object, args: Args, exc: BaseException | None) -> str:
    """The first message of a kind as one line, for its summaries."""
    try:
        values = args[0] if len(args) == 1 and isinstance(args[0], Mapping) and args[0] else args
        text = str(msg) % values if args else str(msg)
    except Exception:  # noqa: BLE001  # logging complains about the record itself
        text = said(msg)
    if exc is not None:
        text = f"{text} ({type(exc).__qualname__}: {said(exc)})"
    first, *more = text.strip().splitlines() or [""]
    return first[:WORDS_MAX] + ("…" if more or len(first) > WORDS_MAX else "")
