"""The text format of COPY: a line for each row."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

Row: TypeAlias = tuple[str | None, ...]
_ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPED: Final = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_NULL: Final = rb"\N"


def parse_line(line: bytes) -> Row:
    """Parse one line of COPY's text format, as UTF-8."""
    fields = line[:-1].split(b"\t")
    if b"\\" not in line:
        return tuple([field.decode() for field in fields])
    return tuple([None if field == _NULL else _unescaped(field).decode() for field in fields])


def without(lines: Sequence[bytes], places: Collection[int]) -> Iterable[bytes]:
    """Return the same lines without the fields at some places."""
    if not places:
        return lines
    return (
        b"\t".join([field for place, field in enumerate(line[:-1].split(b"\t")) if place not in places]) + b"\n" for line in lines
    )


def _unescaped(field: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[1]), field) if b"\\" in field else field
