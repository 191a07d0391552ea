"""Records are counted under their canonical key, whichever way it is found."""

from __future__ import annotations

from string import ascii_lowercase

from hypothesis import example, given
from hypothesis import strategies as st

from outlast.logs._masking import shape
from outlast.logs._masking.shape import canonical
from outlast.logs.text._keys import KNOWN_MAX, MASKED_BYTES_MAX, Keys, MayContinue
from outlast.logs.text._records import Batch

CODES = st.integers(0, 99_999).map(str)
PATHS = st.lists(st.from_regex(r"\A[a-zA-Z0-9_.-]{1,7}\Z"), min_size=1).map(lambda parts: "/" + "/".join(parts))
HOSTS = st.lists(st.from_regex(r"\A[a-z][a-z0-9]{0,6}(-[a-z0-9]{1,5})?\Z"), min_size=1, max_size=4).map(".".join)
VALUES = st.one_of(
    st.integers(0, 10**9).map(str),
    st.uuids().map(str),
    st.floats(0, 10**6).map(lambda value: f"{value:.3f}"),
    st.integers(0, 2**40).map(hex),
    st.text("0123456789abcdefABCDEF-:. \x1a", max_size=40),
    st.text(ascii_lowercase, max_size=8),
    CODES,
    HOSTS,
    PATHS,
)
WORDS = st.sampled_from(
    [
        "error",
        "code ",
        "status=",
        "user ",
        '"',
        "'",
        ":",
        "=",
        " ",
        "/",
        "-",
        "[",
        "(",
        ")",
        "0x",
        "GET /",
        "request_id=",
        "http://",
    ]
)
LINES = st.lists(st.one_of(VALUES, WORDS), max_size=8).map("".join)


@given(st.lists(LINES, min_size=1, max_size=30))
@example(["request_id=00000000-0000-0000-0000-000000000000", "request_id=0000000a-0000-0000-0000-000000000000"])
@example(["00000000 a", "aaaaaaaa a", "aaaaaaaa b"])
def test_the_fast_way_gives_the_canonical_key(lines: list[str]) -> None:
    """Whole lines are known or not in any order; each must be counted under the key that the slow way gives it."""
    records = [line.encode() for line in lines]
    expected: dict[bytes, int] = {}
    for record in records:
        key = shape.short(canonical(record))
        expected[key] = expected.get(key, 0) + 1
    keys = Keys()
    for _ in range(2):
        try:
            found = keys.count(Batch(b"\n".join(records)))
        except MayContinue:
            found = keys.count(Batch(pieces=records))
        assert {kind.key: kind.count for kind, _ in found} == expected
        for kind, first in found:
            assert shape.short(canonical(first)) == kind.key
            kind.count = 0
        for record in records:
            assert keys.kind_of(record).key == shape.short(canonical(record))


@given(LINES, LINES)
def test_lines_of_equal_shapes_and_slots_have_equal_keys(one: str, other: str) -> None:
    """The invariant itself: hex shape, digit shape outside the hex runs, and slots determine the canonical key."""

    def looked_up_by(record: bytes) -> object:
        hexed, digit = record.translate(shape.HEX), record.translate(shape.DIGITS)
        runs = shape.hex_runs(hexed)
        what = shape.plan(shape.blank(digit, runs))
        rest = [digit[start:end] for start, end in shape.outside(runs, len(record))]
        return hexed, rest, [record[start:end] for start, end in what.spans]

    first, second = one.encode(), other.encode()
    if looked_up_by(first) == looked_up_by(second):
        assert canonical(first) == canonical(second)


def test_what_is_known_is_bounded() -> None:
    keys = Keys()
    for begin in range(0, 3 * KNOWN_MAX, 1000):
        keys.count(Batch(pieces=[f"table t{number} is full".encode() for number in range(begin, begin + 1000)]))
        assert len(keys._kinds) <= KNOWN_MAX + 1000
        assert len(keys._shapes) <= KNOWN_MAX + 1000


def test_a_record_too_long_to_be_masked_folds_with_its_exact_likes_only() -> None:
    keys = Keys()
    long = b"code 5 n 1 " * MASKED_BYTES_MAX
    assert keys.kind_of(long) is keys.kind_of(bytes(long))
    assert keys.kind_of(long) is not keys.kind_of(long + b"x")
