"""The hard checks of points, for all that make them: each returns the reason why something cannot be stored, "" if it can."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Final

from outlast.tables._model import (
    INT64_MAX,
    INT64_MIN,
    NAME_BYTES_MAX,
    SERIES_BYTES_MAX,
    STRING_BYTES_MAX,
    TAG_VALUE_BYTES_MAX,
    TIME_MAX_NS,
    TIME_MIN_NS,
    FieldType,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast.tables._model import Tags

SHOWN_CHARACTERS_MAX: Final = 60
TIME_NAME: Final = "time"
"""The name that InfluxDB keeps for the time of a point: no field and no tag of the line protocol may have it."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")


def shown(text: str) -> str:
    """Return `text` in quotes, cut and with its control characters escaped, for a message."""
    cut = text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "..."
    return f'"{cut}"' if cut.isprintable() else ascii(cut)


def wrong_name(of: str, name: str) -> str:
    """Check the name of a table, tag or field; `of` says which, as "the table"."""
    if not name:
        return f"the name of {of} is empty; at least one character is needed"
    return _wrong_text(f"the name of {of}", name, NAME_BYTES_MAX)


def wrong_field_name(name: str) -> str:
    """Check the name of a field, which may not be that of the time."""
    if name == TIME_NAME:
        return f'a field cannot be called "{TIME_NAME}", the name of the time of a point; rename it'
    return wrong_name("a field", name)


def wrong_tags(tags: Tags) -> str:
    """Check names, values and size of tags that are sorted and without empty values."""
    size = 2
    for name, value in tags:
        if reason := wrong_name("a tag", name) or _wrong_text(f"the value of the tag {shown(name)}", value, TAG_VALUE_BYTES_MAX):
            return reason
        size += len(name) + len(value) + 6
    if size * 6 <= SERIES_BYTES_MAX or (size := len(tags_json(tags).encode())) <= SERIES_BYTES_MAX:
        return ""
    return f"the tags take {size:,} bytes as JSON, {SERIES_BYTES_MAX:,} are allowed; send fewer or shorter tags"


def tags_json(tags: Tags) -> str:
    """Return tags as the canonical JSON whose size is limited."""
    return json.dumps(dict(tags), ensure_ascii=False, separators=(",", ":"))


def sorted_tags(tags: Mapping[str, str]) -> Tags:
    """Return tags sorted by name, without those whose value is empty: they are as good as absent."""
    return tuple(sorted((name, value) for name, value in tags.items() if value != ""))


def wrong_value(name: str, value: object) -> str:
    """Check the value of the field `name`: a 64-bit integer, a finite float, a string, or a boolean."""
    match value:
        case bool():
            return ""
        case int():
            is_right, seen = (
                INT64_MIN <= value <= INT64_MAX,
                f"beyond 64 bits; integers from {INT64_MIN} to {INT64_MAX} are allowed",
            )
        case float():
            is_right, seen = math.isfinite(value), f"{value}; a float has to be finite"
        case str():
            return wrong_string(name, value)
        case _:
            is_right, seen = False, f"of type {type(value).__name__}; integers, floats, strings and booleans are allowed"
    return "" if is_right else f"the value of {shown(name)} is {seen}"


def wrong_string(name: str, value: str) -> str:
    """Check a string, which may hold newlines and other control characters, but no NUL: PostgreSQL takes none."""
    of = f"the value of {shown(name)}"
    if "\x00" in value:
        return f"{of} holds a NUL character, which cannot be stored; remove it"
    return _too_long(of, value, STRING_BYTES_MAX) or _not_unicode(of, value)


def wrong_time(time_ns: int) -> str:
    """Check a time in nanoseconds since 1970."""
    if TIME_MIN_NS <= time_ns <= TIME_MAX_NS:
        return ""
    return (
        f"the time is {_digits(time_ns)} ns since 1970; from {TIME_MIN_NS} to {TIME_MAX_NS} (the years 1677 to 2262) are allowed"
    )


def type_of(value: object) -> FieldType:
    """Return the type of a value that was checked."""
    match value:
        case bool():
            return FieldType.BOOLEAN
        case int():
            return FieldType.INTEGER
        case float():
            return FieldType.FLOAT
        case _:
            return FieldType.STRING


def wrong_point(table: str, tags: Tags, fields: Mapping[str, object], time_ns: int | None) -> str:
    """Check all of a point; the tags are sorted and without empty values."""
    if not fields:
        return "the point has no field; at least one is needed"
    reason = wrong_name("the table", table) or wrong_tags(tags)
    for name, value in fields.items():
        reason = reason or wrong_field_name(name) or wrong_value(name, value)
    return reason or ("" if time_ns is None else wrong_time(time_ns))


def _wrong_text(of: str, text: str, bytes_max: int) -> str:
    if found := _CONTROL.search(text):
        return f"{of} holds the control character U+{ord(found[0]):04X} at character {found.start() + 1}; remove it"
    return _too_long(of, text, bytes_max) or _not_unicode(of, text)


def _too_long(of: str, text: str, bytes_max: int) -> str:
    # A character takes at most four bytes in UTF-8: most texts need not be encoded to know.
    if len(text) * 4 <= bytes_max or (size := len(text.encode("utf-8", "surrogatepass"))) <= bytes_max:
        return ""
    return f"{of} has {size:,} bytes in UTF-8, {bytes_max:,} are allowed; shorten it"


def _not_unicode(of: str, text: str) -> str:
    return f"{of} is not UTF-8; send text in UTF-8" if not text.isascii() and _SURROGATE.search(text) else ""


def _digits(number: int) -> str:
    return str(number) if abs(number) < 10**40 else "a number of more than 40 digits"
