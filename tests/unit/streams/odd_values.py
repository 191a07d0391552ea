"""The values that a client of the node may send and that are odd: numbers, offsets, names, types, instants, bodies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

SHOWN: Final = 100


class Long(bytes):
    """Bytes that are shown in part."""

    def __repr__(self) -> str:
        return super().__repr__() if len(self) <= SHOWN else f"{self[:SHOWN]!r} and {len(self) - SHOWN} more"

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return Long(found) if isinstance(found, bytes) else found


NUMBERS: Final = [
    b"0", b"1", b"2", b"3", b"10", b"-1", b"+1", b"1_0", b" 7 ", b"-0", b"007", b"\xb2", b"1.5", b"1e3", b"", b"0x1",
    b"NaN", b"true",
    b"9007199254740990", b"9007199254740991", b"9007199254740992", b"9" * 5000, "１２".encode(),
]  # fmt: skip
OFFSETS: Final = [
    *[b"-1", b"now"] * 4,
    b"-1",
    b"now",
    *(b"%016d" % number for number in (0, 1, 2, 5, 2**53 - 1, 2**53)),
    b"NOW",
    b"%31",
    b"0_0",
    *NUMBERS,
]
TYPES: Final = [
    b"application/json", b"application/json", b"Application/JSON; charset=utf-8", b"text/plain", b"text/plain;charset=utf-8",
    b"application/octet-stream", b"", b"/", b"text", b"text/", b"a/b;", b"\xff/\xfe", b"text/plain, text/html",
    b"x/" + b"y" * 300,
]  # fmt: skip
NAMES: Final = [*[b"a", b"b"] * 12, b"f", b"f", b"g", b"a/b", b"%C3%A9", b"A", b"a/"]
PIECES: Final = [
    b"a", b"/", b"%2f", b"%2F", b"%00", b"%0a", b"%", b"%zz", b"..", b".", b"%2e", b"%ff", b"\xc3", b"__ds", b"*", b" ",
    b"?", b"#", b"~",
    b"x" * 300, b"%F0%9F%98%80", b"+", b":", b"\\",
]  # fmt: skip
NO_JSON: Final = [
    Long(b"7" * 300_001), Long(b"[" * 100_000), Long(b'{"a":' * 50_000),
    b"[", b"]", b"[1,]", b"[,1]", b"{", b'{"a"}', b"nul", b"NaN", b"[Infinity]", b"-", b"01", b"1 2", b'"\x01"', b'"\\x"',
    b"\xef\xbb\xbf1", b"\xff",
    b"'a'", b"\x00", b" ", b"[" * 60 + b"]" * 60, b"9" * 5000,
    b"[1e400, -0, 1.0, 1E2]", b'["\\ud800"]',
]  # fmt: skip
SOME_JSON: Final = [b"[1, 2]", b'{"a": 1}', b"[[]]", b'["\\r\\n", "\xc3\xa9"]', b" 1 ", b"[]", b""]
INSTANTS: Final = [
    b"2030-01-01T00:00:00Z", b"1999-01-01T00:00:00Z", b"2030-02-30T00:00:00Z", b"0000-01-01T00:00:00Z",
    b"9999-12-31T23:59:60Z", b"2030-01-01",
    b"2030-01-01T00:00:00+99:99", b"2030-01-01T00:00:00.123456789Z", b"9999-12-31T23:59:59-14:00",
    b"0001-01-01T00:00:00+14:00", b"soon",
]  # fmt: skip


def values(known: list[bytes]) -> SearchStrategy[bytes]:
    """Return what a client may send for a header: what is known to be odd, and anything else."""
    # A server has taken blanks, line ends and NULs away.
    anything = st.binary(max_size=6).map(lambda value: value.translate(None, b"\0\r\n"))
    return st.one_of(st.sampled_from(known), st.sampled_from(known), anything)


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def bodies() -> SearchStrategy[bytes]:
    """Return JSON, nearly JSON, and bytes."""
    dumped = JSON.map(lambda value: json.dumps(value).encode())
    return st.one_of(st.sampled_from(SOME_JSON), st.sampled_from([*SOME_JSON, *NO_JSON]), dumped, st.binary(max_size=20))
