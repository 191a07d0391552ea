"""Narrow a canonical key down to the fields that somebody named."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

VALUE: Final = r"(?:\"(?P<string{n}>(?:[^\"\\]|\\.)*+)\"|(?P<plain{n}>[^\s,}}\]\"]++)|(?P<open{n}>[\[{{][^\]}}]*+[\]}}]?))"


def by_fields(names: Sequence[str]) -> Callable[[bytes], bytes]:
    """Make a function that returns the named fields of a canonical key, of JSON or logfmt.

    It looks at the key, not at the record, so that the fast way to the key stays right. A field is found by its name at any
    depth, the first one counts. A key without any of the fields is returned whole, so that other lines keep their own.
    """
    patterns = [
        re.compile(rf"(?:\"{re.escape(name)}\"\s*:\s*|(?:^|[\s{{]){re.escape(name)}=){VALUE.format(n='')}".encode())
        for name in names
    ]

    def select(key: bytes) -> bytes:
        found = [pattern.search(key) for pattern in patterns]
        if not any(found):
            return key
        return b"\x1a ".join(b"-" if match is None else match.group(match.lastindex or 0) for match in found)

    return select
