"""One line of the line protocol, read strictly by the rules of InfluxDB 1 and 2; what is wrong is told with its column."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from outlast.tables._limits import FIELDS_LIMIT
from outlast.tables._lines.checks import TIME_NAME, shown, sorted_tags, wrong_name, wrong_string, wrong_tags, wrong_value

if TYPE_CHECKING:
    from outlast.tables._model import Tags

DIGITS_MAX: Final = 40
HEAD_CHARACTERS_MAX: Final = 8_192
"""A table and its tags in a line. Within the limits of names and of a series they have some 2,300, twice that with escapes."""
_WHITE: Final = re.compile(r"[ \t]*+")
# In a table and its tags a comma, space or equals sign is escaped where a backslash is before it, even the second of two.
_TABLE: Final = re.compile(r"(?:[^,]++|(?<=\\),)++")
_TAG_PART: Final = re.compile(r"(?:[^,=]++|(?<=\\)[,=])*+")
_TAG_ESCAPES: Final = re.compile(r"\\([,= ])")

# In fields a backslash and the character after it are a pair.
_FIELD_NAME: Final = re.compile(r"(?:[^\\,= ]++|\\.)*+", re.DOTALL)
_NAME_ESCAPES: Final = re.compile(r'\\([,"= ])')
_STRING: Final = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL)
_STRING_ESCAPES: Final = re.compile(r'\\(["\\])')
_BARE: Final = re.compile(r"[^, ]*+")
_INTEGER: Final = re.compile(r"-?[0-9]+(?=[iu]\Z)")
_FLOAT: Final = re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_BOOLEANS: Final = {word: word[0] in "tT" for word in ("t", "T", "true", "True", "TRUE", "f", "F", "false", "False", "FALSE")}
_TIME: Final = re.compile(r"-?[0-9]+")
_UNSIGNED_END: Final = 2**64
_INTEGER_END: Final = 2**63


class LineError(Exception):
    """A line that is none: why, and the column, from 0."""

    def __init__(self, column: int, reason: str) -> None:
        super().__init__(reason)
        self.column: Final = column
        self.reason: Final = reason


class Body(NamedTuple):
    """Fields and time of a line. `kinds` has a letter for each field: f, i, u, s, b. `time` is None where the line has none."""

    names: tuple[str, ...]
    kinds: str
    values: list[Any]
    time: int | None
    time_at: int


def head_of(line: str) -> tuple[int, int]:
    """Return where the table and its tags begin and end in a line. Raises `LineError`."""
    start = _white(line, 0)
    end = head_end(line, start)
    if end < 0:
        raise LineError(len(line), "the fields are missing: a space and name=value are needed after the table and its tags")
    if end - start > HEAD_CHARACTERS_MAX:
        allowed = f"{HEAD_CHARACTERS_MAX:,} are allowed; send fewer or shorter tags"
        reason = f"the table and its tags have {end - start:,} characters, {allowed}"
        raise LineError(start, reason)
    return start, end


def head_end(line: str, start: int) -> int:
    """Return the place of the first space from `start` on that no backslash is before; -1 if there is none."""
    end = line.find(" ", start)
    while end > 0 and line[end - 1] == "\\":
        end = line.find(" ", end + 1)
    return end


def read_head(head: str, at: int = 0) -> tuple[str, Tags]:
    """Read a table and its tags; `at` is the column of the head. Raises `LineError`."""
    found = _TABLE.match(head)
    if found is None:
        raise LineError(at, "the table is missing before the first comma")
    table = _unescaped(_NAME_ESCAPES, found[0])
    if reason := wrong_name("the table", table):
        raise LineError(at, reason)
    tags: dict[str, str] = {}
    end = found.end()
    while end < len(head):
        end = _read_tag(head, end + 1, at, tags)
    known = sorted_tags(tags)
    if reason := wrong_tags(known):
        raise LineError(at + found.end(), reason)
    return table, known


def _read_tag(head: str, start: int, at: int, tags: dict[str, str]) -> int:
    name_end = _end(_TAG_PART, head, start)
    if name_end == start:
        raise LineError(at + start, "the name of a tag is missing")
    if head[name_end : name_end + 1] != "=":
        raise LineError(at + name_end, f"the tag {shown(head[start:name_end])} has no value: name=value is needed")
    name = _unescaped(_TAG_ESCAPES, head[start:name_end])
    if name in tags:
        raise LineError(at + start, f"the tag {shown(name)} is there twice; send it once")
    if name == TIME_NAME:
        raise LineError(at + start, f'a tag cannot be called "{TIME_NAME}", the name of the time of a point; rename it')
    end = _end(_TAG_PART, head, name_end + 1)
    if head[end : end + 1] == "=":
        raise LineError(at + end, f'the value of the tag {shown(name)} holds "="; write it as "\\="')
    tags[name] = _unescaped(_TAG_ESCAPES, head[name_end + 1 : end])
    return end


def read_body(line: str, at: int) -> Body:
    """Read the fields and the time of a line from column `at` on. Raises `LineError`.

    Of a field that is there twice the last value stands. A field called "time" is left out, as InfluxDB does.
    """
    fields: dict[str, tuple[str, Any]] = {}
    start = end = _white(line, at)
    while True:
        end = _read_field(line, end, fields)
        if len(fields) > FIELDS_LIMIT:
            raise LineError(start, f"the line has more than {FIELDS_LIMIT:,} fields; send fewer in a line")
        if line[end : end + 1] != ",":
            break
        end += 1
    if fields.pop(TIME_NAME, None) and not fields:
        raise LineError(start, f'the only field is called "{TIME_NAME}", the name of the time of a point; rename it')
    kinds = "".join(kind for kind, _ in fields.values())
    return Body(tuple(fields), kinds, [value for _, value in fields.values()], *_read_time(line, end))


def _read_field(line: str, start: int, fields: dict[str, tuple[str, Any]]) -> int:
    name_end = _end(_FIELD_NAME, line, start)
    if name_end == start:
        raise LineError(start, "the name of a field is missing")
    if line[name_end : name_end + 1] != "=":
        raise LineError(name_end, f"the field {shown(line[start:name_end])} has no value: name=value is needed")
    name = _unescaped(_NAME_ESCAPES, line[start:name_end])
    if reason := wrong_name("a field", name):
        raise LineError(start, reason)
    start = name_end + 1
    if line[start : start + 1] != '"':
        end = _end(_BARE, line, start)
        fields[name] = _bare_value(name, line[start:end], start)
        return end
    found = _STRING.match(line, start)
    if found is None:
        raise LineError(start, f"the quote of {shown(name)} is not closed")
    end = found.end()
    if line[end : end + 1] not in {"", ",", " "}:
        raise LineError(end, f"the string of {shown(name)} goes on after its quote; write a quote in it as '\\\"'")
    value = _unescaped(_STRING_ESCAPES, found[1])
    if reason := wrong_string(name, value):
        raise LineError(start, reason)
    fields[name] = ("s", value)
    return end


def _bare_value(name: str, text: str, at: int) -> tuple[str, Any]:
    """Read a value without quotes, by the rules of InfluxDB: "1.", ".5" and "T" are values, "+1", "0x1" and "nan" are none."""
    if not text:
        raise LineError(at, f"the value of {shown(name)} is missing")
    if text in _BOOLEANS:
        return "b", _BOOLEANS[text]
    if _FLOAT.fullmatch(text):
        value = float(text)
        if reason := wrong_value(name, value):
            raise LineError(at, f"{reason}; it is written {shown(text)}")
        return "f", value
    found = _INTEGER.match(text)
    kind = text[-1]
    if found is None or (kind == "u" and text[0] == "-"):
        seen = shown(text)
        raise LineError(
            at, f'the value of {shown(name)} is {seen}; a number, an integer as 1i or 1u, a boolean or a "string" is allowed'
        )
    number = int(found[0]) if len(found[0]) <= DIGITS_MAX else _UNSIGNED_END
    if kind == "u" and number >= _INTEGER_END:
        raise LineError(
            at, f"the value of {shown(name)} is {shown(text)}; unsigned integers up to {_INTEGER_END - 1} can be stored"
        )
    if reason := wrong_value(name, number):
        raise LineError(at, reason)
    return kind, number


def _read_time(line: str, start: int) -> tuple[int | None, int]:
    start = _white(line, start)
    text = line[start:].rstrip(" ")
    if not text:
        return None, start
    if not _TIME.fullmatch(text):
        raise LineError(start, f"the time is {shown(text)}; an integer is needed, and nothing after it")
    if len(text) > DIGITS_MAX:
        raise LineError(start, f"the time has {len(text)} digits, which is out of range")
    return int(text), start


def _white(line: str, start: int) -> int:
    return _end(_WHITE, line, start)


def _end(pattern: re.Pattern[str], text: str, start: int) -> int:
    found = pattern.match(text, start)
    return start if found is None else found.end()


def _unescaped(escapes: re.Pattern[str], text: str) -> str:
    return escapes.sub(r"\1", text) if "\\" in text else text
