"""Say in the stream's own format what was folded: a line of text, a JSON object, or logfmt."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from outlast._core.fold import What

if TYPE_CHECKING:
    from outlast._core.fold import Summary

EXAMPLE_BYTES_MAX: Final = 240
"""The length of the part of a storm's first record that is kept to name it by."""

APART_MAX: Final = 6
"""At most this many summaries at the end of a stream have a line each."""

GREATEST: Final = 3
"""If there are more, the greatest ones still have: this many."""

SHARED: Final = 10
"""The number of the others that share a line."""

LOGFMT: Final = re.compile(
    rb"[A-Za-z_][\w.-]{0,64}=(?:\"(?:[^\"\\]|\\.){0,1024}\"|[^\s\"]{0,1024})(?: [A-Za-z_][\w.-]{0,64}=|\s*\Z)"
)


def example_of(record: bytes) -> bytes:
    """Return the part of a record that is kept as an example."""
    return record[:EXAMPLE_BYTES_MAX]


def format_of(record: bytes) -> str:
    """Return the format of a record: "json", "logfmt" or "text"."""
    if record[:1] == b"{":
        return "json"
    return "logfmt" if LOGFMT.match(record) else "text"


def line(summary: Summary, now: float, wall_offset_s: float, written_as: str | None = None) -> bytes:
    """Return the summary as one line with its newline. The fold's clock plus `wall_offset_s` is seconds since 1970."""
    example = _example(summary)
    fields: dict[str, str | int | float] = {
        "outlast.what": summary.what.value,
        "outlast.count": summary.count,
        "outlast.total": summary.total,
        "outlast.since": _moment(summary.first_at + wall_offset_s),
        "outlast.last": _moment(summary.last_at + wall_offset_s),
        "outlast.over": str(summary.over).lower(),
        "outlast.example": readable(example),
    }
    written_as = written_as or format_of(example)
    said = _said(summary, wall_offset_s)
    if written_as == "json":
        moment = _moment(now + wall_offset_s)
        fields["outlast.over"] = summary.over
        return json.dumps({"ts": moment, "level": "warning", "msg": f"outlast: {said}", **fields}).encode() + b"\n"
    if written_as == "logfmt":
        pairs = " ".join(f"{name}={_quoted(value)}" for name, value in fields.items())
        return f"ts={_moment(now + wall_offset_s)} level=warning msg={_quoted(f'outlast: {said}')} {pairs}\n".encode()
    return f"outlast: {said}: {fields['outlast.example']}\n".encode()


def last_lines(summaries: list[Summary], now: float, wall_offset_s: float, written_as: str | None = None) -> bytes:
    """Return the summaries at the end of a stream. In text the greatest have a line each, and the rest, if many, share lines."""
    texts = [summary for summary in summaries if (written_as or format_of(_example(summary))) == "text"]
    if len(texts) <= APART_MAX:
        return b"".join(line(summary, now, wall_offset_s, written_as) for summary in summaries)
    texts.sort(key=lambda summary: -summary.count)
    apart = [summary for summary in summaries if summary not in texts] + texts[:GREATEST]
    lines = [line(summary, now, wall_offset_s, written_as) for summary in apart]
    for begin in range(GREATEST, len(texts), SHARED):
        told = (line(summary, now, wall_offset_s, "text") for summary in texts[begin : begin + SHARED])
        lines.append(b"outlast: " + b" | ".join(text[len(b"outlast: ") : -1] for text in told) + b"\n")
    return b"".join(lines)


def _example(summary: Summary) -> bytes:
    return summary.example if isinstance(summary.example, bytes) else b""


def _said(summary: Summary, wall_offset_s: float) -> str:
    since = clock(summary.first_at + wall_offset_s)
    last = clock(summary.last_at + wall_offset_s)
    match summary.what:
        case What.OTHERS:
            return f"{summary.count} more of other kinds, for which there was no place, since {since}; for example"
        case What.QUIET:
            more = f"{summary.count} more, " if summary.count else ""
            return f"{more}quiet since {last}, {summary.total} in all since {since}"
        case What.RESOLVED:
            return f"{summary.count} more, resolved, {summary.total} in all from {since} to {last}"
        case What.REMINDER:
            return f"{summary.count} more until {last}, {summary.total} in all since {since}"


def _moment(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(wall_s: float) -> str:
    """Return the time of day in UTC."""
    return datetime.fromtimestamp(wall_s, UTC).strftime("%H:%M:%SZ")


def readable(example: object) -> str:
    """Return an example on one line, with what cannot be printed escaped."""
    if not isinstance(example, bytes):
        return ""
    text = example.decode("utf-8", "backslashreplace")
    shown = "".join(sign if sign.isprintable() else "\\n" if sign == "\n" else " " for sign in text).rstrip()
    return shown + "..." if len(example) == EXAMPLE_BYTES_MAX else shown


def _quoted(value: str | float) -> str:
    text = str(value)
    return text if re.fullmatch(r"[\w.:+-]+", text) else json.dumps(text, ensure_ascii=False)
