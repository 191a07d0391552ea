"""The lines of the telnet door: `put` and the few other commands."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from outlast.extend import clean
from outlast.tables._lines.checks import shown
from outlast.tables._model import PointOutcome
from outlast.tables._telnet.datapoints import (
    TIMES_ALLOWED,
    BadPointError,
    BadValueError,
    Gathered,
    Heads,
    number,
    time_ns,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.tables._model import Parsed, PointRefusal, Series
    from outlast.tables._tables import Tables

COMMANDS: Final = ("exit", "help", "put", "stats", "version")
HTTP: Final = "METHOD TARGET HTTP/"
"""Stands for the first line of a request of HTTP. A browser can be made to send one, with lines of `put` behind it."""
HTTP_WORDS: Final = 3
LAST: Final = frozenset({"exit", HTTP})
"""Commands that end the connection."""
NO_HTTP: Final = "put: illegal argument: a request of HTTP on the port of put lines, which ends here; HTTP has another port\n"
REASON_CHARACTERS_MAX: Final = 300
HEAD_BYTES_MAX: Final = 2_048
"""The longest head that is remembered."""
_TEXT_MAX: Final = 200
_DIGITS: Final = re.compile(rb"[+-]?[0-9]{1,20}")
_DOTTED: Final = re.compile(rb"([0-9]{10})\.([0-9]{1,3})")
# Options with which a telnet client begins: three bytes for a will or a do, two for others, a parameter up to its end.
_TELNET: Final = re.compile(rb"(?:\xff(?:[\xfb-\xfe].?|\xfa.*?(?:\xff\xf0|\Z)|.?))+", re.DOTALL)


@dataclass(slots=True)
class Batch:
    """Lines that were read: the points, and what else was asked, by the place of the line."""

    parsed: Parsed
    asked: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    """Commands that are no `put`, in their order; the last may be one of `LAST`, behind which nothing is read."""


class Lines:
    """Reads lines; shared by all connections, so that a series is checked once."""

    def __init__(self, tables: Tables) -> None:
        self._heads: Final = Heads(tables)

    def read(self, lines: Sequence[bytes], line_bytes_max: int) -> Batch:
        """Read lines. What is wrong with one line refuses that line."""
        gathered = Gathered()
        asked: list[tuple[int, str]] = []
        for place, raw in enumerate(lines):
            # At the begin of a line alone: anywhere else such a byte is no UTF-8.
            line = raw if (options := _TELNET.match(raw)) is None else raw[options.end() :]
            words = line.split(None, 4)
            if not words:
                continue
            command = words[0]
            if len(words) == HTTP_WORDS and words[2].startswith(b"HTTP/"):
                asked.append((place, HTTP))
                break
            if command != b"put" and command.lower() != b"put":
                name = command[:_TEXT_MAX].decode("utf-8", "replace")
                asked.append((place, name))
                if name in LAST:
                    break
                continue
            try:
                _check_length(raw, line_bytes_max)
                gathered.add(*self._point(words), place)
            except (BadPointError, BadValueError) as error:
                gathered.refuse(place, error, line[:_TEXT_MAX].decode("utf-8", "replace"))
        return Batch(gathered.parsed(), asked)

    def _point(self, words: Sequence[bytes]) -> tuple[Series, int, float]:
        """Return series, time and value. Raises `BadPointError` and `BadValueError`."""
        if len(words) < 5:
            raise BadPointError(f"not enough arguments (need least 4, got {len(words) - 1})")
        head = (words[1], words[4])
        series = self._heads.get(head)
        if series is None:
            metric, tags = _text(words[1]), _tags(words[4])
            series = self._heads.learn(head, metric, tags, keep=len(words[1]) + len(words[4]) <= HEAD_BYTES_MAX)
        return series, _time_ns(words[2]), number(_text(words[3]))


def _check_length(line: bytes, bytes_max: int) -> None:
    if len(line) > bytes_max:
        raise BadPointError(f"a line of {len(line)} bytes; it has at most {bytes_max}")


def _time_ns(word: bytes) -> int:
    if _DIGITS.fullmatch(word):
        return time_ns(int(word))
    if dotted := _DOTTED.fullmatch(word):
        # Seconds, and milliseconds behind the dot: OpenTSDB takes out the dot.
        return time_ns(int(dotted[1]) * 1_000 + int(dotted[2].ljust(3, b"0")))
    raise BadPointError(f"Invalid timestamp: {shown(word.decode('utf-8', 'replace'))}; {TIMES_ALLOWED}, or 1700000000.123")


def _text(word: bytes) -> str:
    try:
        return word.decode()
    except UnicodeDecodeError:
        raise BadPointError("the line is no UTF-8; send text in UTF-8") from None


def _tags(text: bytes) -> dict[str, str]:
    tags: dict[str, str] = {}
    # Split as bytes: a space of Unicode is a character like another.
    for word in map(_text, text.split()):
        name, sign, value = word.partition("=")
        if not (name and sign and value):
            raise BadPointError(f"invalid tag: {shown(word)}; write name=value")
        if tags.setdefault(name, value) != value:
            raise BadPointError(f"duplicate tag: {shown(word)}, beside {shown(f'{name}={tags[name]}')}")
    return tags


def error_line(refusal: PointRefusal) -> str:
    """Return the line that answers a `put` that was not stored, in the words of OpenTSDB."""
    match refusal.outcome:
        case PointOutcome.LATER:
            return throttled(refusal.reason)
        case PointOutcome.PERSON:
            what = "storage error"
        case _:
            what = "invalid value" if refusal.fault.code == "value" else "illegal argument"
    return f"put: {what}: {clean(refusal.reason, REASON_CHARACTERS_MAX)}\n"


def throttled(reason: str) -> str:
    """Return the line that answers a `put` that may be stored later."""
    return f"put: Please throttle writes: {clean(reason, REASON_CHARACTERS_MAX)}\n"


def unknown(command: str) -> str:
    """Return the line that answers a command that there is not."""
    return f"unknown command: {clean(command, 50)}.  Try `help'.\n"
