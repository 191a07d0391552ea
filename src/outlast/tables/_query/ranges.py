"""Ranges of a table as text: CSV, JSON, or a line of JSON for each point; written page by page, so of any length."""

from __future__ import annotations

import json
from enum import Enum
from typing import TYPE_CHECKING, Final

from outlast.tables._errors import InvalidQueryError
from outlast.tables._model import Range
from outlast.tables._query.times import time_ms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from outlast.tables._model import ReadPoint, TableRecord, Value

PIECE_BYTES: Final = 65_536
"""The bytes that are gathered before they are sent."""
TAG: Final = "tag."
"""The parameters that begin with it name tags."""
KNOWN: Final = frozenset({"table", "field", "start", "end", "format"})


class RangeForm(Enum):
    """The forms of a range."""

    CSV = "csv"
    """`time_ns,tags,FIELD,...`: the tags are a JSON object; a field without a value is empty, an empty text is `""`."""
    JSON = "json"
    """An array of objects `{"time_ns":...,"tags":{...},"fields":{...}}`. One that broke off lacks its last bracket."""
    JSONL = "jsonl"
    """Such an object on each line."""

    @property
    def media_type(self) -> str:
        """The media type of the text."""
        return {
            RangeForm.CSV: "text/csv; charset=utf-8",
            RangeForm.JSON: "application/json",
            RangeForm.JSONL: "application/x-ndjson",
        }[self]


def range_of_url(params: Mapping[str, Sequence[str]], now_ms: int) -> tuple[Range, RangeForm]:
    """Return what a URL asks for: `table=`, any number of `field=` and `tag.NAME=`, `start=`, `end=`, `format=`.

    Raises `InvalidQueryError`.
    """
    unknown = [name for name in params if name not in KNOWN and not name.startswith(TAG)]
    if unknown:
        raise InvalidQueryError(f"there is no parameter {unknown[0][:50]!r}; there are {', '.join(sorted(KNOWN))} and tag.NAME")
    table, start, end, form = (_one(params, name) for name in ("table", "start", "end", "format"))
    if not table:
        raise InvalidQueryError("Missing table; write table=NAME")
    forms = {each.value: each for each in RangeForm}
    if (form or "json") not in forms:
        raise InvalidQueryError(f"there is no format {form[:50]!r}; there are {', '.join(forms)}")
    tags = {name[len(TAG) :]: tuple(filter(None, values)) for name, values in params.items() if name.startswith(TAG)}
    ask = Range(table, tuple(dict.fromkeys(params.get("field", ()))), tags)
    start_ns = time_ms(start, now_ms) * 1_000_000 if start else ask.start_ns
    # The end is included: up to the last nanosecond of its millisecond.
    end_ns = time_ms(end, now_ms) * 1_000_000 + 999_999 if end else ask.end_ns
    if end_ns < start_ns:
        raise InvalidQueryError(f"end={end[:50]} lies before start={start[:50]}")
    return Range(table, ask.fields, tags, start_ns, end_ns), forms[form or "json"]


def fields_of(ask: Range, table: TableRecord) -> tuple[str, ...]:
    """Return the names of the fields that the answer has. Raises `InvalidQueryError` for one that the table does not have."""
    names = tuple(field.name for field in table.fields)
    missing = [name for name in ask.fields if name not in names]
    if missing:
        raise InvalidQueryError(f"the table {table.name!r} has no field {missing[0][:50]!r}; it has {', '.join(names[:50])}")
    return ask.fields or names


async def range_text(points: AsyncIterator[ReadPoint], fields: Sequence[str], form: RangeForm) -> AsyncIterator[bytes]:
    """Yield the text of points, in pieces. A piece is held until it is full: bounded memory, whatever the length."""
    pieces: list[str] = []
    size = 0
    begin, between, end = {
        RangeForm.CSV: (_csv_head(fields), "", ""),
        RangeForm.JSON: ("[", ",\n", "]\n"),
        RangeForm.JSONL: ("", "", ""),
    }[form]
    pieces.append(begin)
    is_first = True
    async for point in points:
        text = _csv_line(point, fields) if form is RangeForm.CSV else _json(point) + ("\n" if form is RangeForm.JSONL else "")
        pieces.append(text if is_first else between + text)
        is_first = False
        size += len(pieces[-1])
        if size >= PIECE_BYTES:
            yield "".join(pieces).encode()
            pieces, size = [], 0
    yield ("".join(pieces) + end).encode()


def _json(point: ReadPoint) -> str:
    found = {"time_ns": point.time_ns, "tags": dict(point.tags), "fields": dict(point.fields)}
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False)


def _csv_head(fields: Sequence[str]) -> str:
    return ",".join(["time_ns", "tags", *map(_quoted_if_needed, fields)]) + "\r\n"


def _csv_line(point: ReadPoint, fields: Sequence[str]) -> str:
    tags = json.dumps(dict(point.tags), separators=(",", ":"), ensure_ascii=False)
    values = (_csv_value(point.fields.get(name)) for name in fields)
    return ",".join([str(point.time_ns), _quoted(tags), *values]) + "\r\n"


def _csv_value(value: Value | None) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return _quoted(value)


def _quoted_if_needed(name: str) -> str:
    return _quoted(name) if any(char in name for char in ',"\r\n') else name


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _one(params: Mapping[str, Sequence[str]], name: str) -> str:
    values = params.get(name, ())
    if len(values) > 1:
        raise InvalidQueryError(f"{name} is named {len(values)} times; once is enough")
    return values[0] if values else ""
