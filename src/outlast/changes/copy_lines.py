"""The text format of COPY: a line for each row."""

from __future__ import annotations

import re
from typing import Final, TypeAlias

Row: TypeAlias = tuple[str | None, ...]
_ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPED: Final = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_NULL: Final = rb"\N"


def parse_line(line: bytes) -> Row:
    """One line of COPY's text format, as UTF-8."""
    fields = line[:-1].split(b"\t")
    if b"\\" not in line:
        return tuple([field.decode() for field in fields])
    return tuple([None if field == _NULL else _unescaped(field).decode() for field in fields])


def _unescaped(field: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[1]), field) if b"\\" in field else field
