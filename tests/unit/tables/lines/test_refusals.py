"""The lines that are none: each is refused alone, with its line, its column and the reason."""

from __future__ import annotations

import pytest
from reading_lines import new_parser, points_of, reasons

from outlast import Kind, Scope
from outlast.tables._model import PointOutcome

VALUE = 'a number, an integer as 1i or 1u, a boolean or a "string" is allowed'
BEYOND = 'the value of "v" is beyond 64 bits; integers from -9223372036854775808 to 9223372036854775807 are allowed'
UNSIGNED = "unsigned integers up to 9223372036854775807 can be stored"
TIMES = "from -9223372036854775806 to 9223372036854775806 (the years 1677 to 2262) are allowed"
LONG = "x" * 1_020
REFUSED = {
    "m": (2, "the fields are missing: a space and name=value are needed after the table and its tags"),
    "m,a=b": (6, "the fields are missing: a space and name=value are needed after the table and its tags"),
    "m,a=b\\ v=1": (11, "the fields are missing: a space and name=value are needed after the table and its tags"),
    ",a=b v=1": (1, "the table is missing before the first comma"),
    "m, v=1": (3, "the name of a tag is missing"),
    "m,a=b, v=1": (7, "the name of a tag is missing"),
    "m,=b v=1": (3, "the name of a tag is missing"),
    "m,a v=1": (4, 'the tag "a" has no value: name=value is needed'),
    "m,a,b=1 v=1": (4, 'the tag "a" has no value: name=value is needed'),
    "m,a=1=2 v=1": (6, 'the value of the tag "a" holds "="; write it as "\\="'),
    "m,a== v=1": (5, 'the value of the tag "a" holds "="; write it as "\\="'),
    "m,a=1,a=2 v=1": (7, 'the tag "a" is there twice; send it once'),
    "m,a=1,b=1,a= v=1": (11, 'the tag "a" is there twice; send it once'),
    "m,time=1 v=1": (3, 'a tag cannot be called "time", the name of the time of a point; rename it'),
    "m time=5": (3, 'the only field is called "time", the name of the time of a point; rename it'),
    "m v": (4, 'the field "v" has no value: name=value is needed'),
    "m v,w=1": (4, 'the field "v" has no value: name=value is needed'),
    "m =1": (3, "the name of a field is missing"),
    "m v=1,": (7, "the name of a field is missing"),
    "m v=1, w=1": (7, "the name of a field is missing"),
    "m  ": (4, "the name of a field is missing"),
    "m v=": (5, 'the value of "v" is missing'),
    "m v=,w=1": (5, 'the value of "v" is missing'),
    "m v= 5": (5, 'the value of "v" is missing'),
    "m v=x": (5, f'the value of "v" is "x"; {VALUE}'),
    "m v=+1": (5, f'the value of "v" is "+1"; {VALUE}'),
    "m v=+1i": (5, f'the value of "v" is "+1i"; {VALUE}'),
    "m v=0x1": (5, f'the value of "v" is "0x1"; {VALUE}'),
    "m v=tRUE": (5, f'the value of "v" is "tRUE"; {VALUE}'),
    "m v=yes": (5, f'the value of "v" is "yes"; {VALUE}'),
    "m v=nan": (5, f'the value of "v" is "nan"; {VALUE}'),
    "m v=NaN": (5, f'the value of "v" is "NaN"; {VALUE}'),
    "m v=inf": (5, f'the value of "v" is "inf"; {VALUE}'),
    "m v=-Infinity": (5, f'the value of "v" is "-Infinity"; {VALUE}'),
    "m v=1_0": (5, f'the value of "v" is "1_0"; {VALUE}'),
    "m v=1_0i": (5, f'the value of "v" is "1_0i"; {VALUE}'),
    "m v=1.5i": (5, f'the value of "v" is "1.5i"; {VALUE}'),
    "m v=1e3i": (5, f'the value of "v" is "1e3i"; {VALUE}'),
    "m v=-1u": (5, f'the value of "v" is "-1u"; {VALUE}'),
    "m v=i": (5, f'the value of "v" is "i"; {VALUE}'),
    "m v=-": (5, f'the value of "v" is "-"; {VALUE}'),
    "m v=.": (5, f'the value of "v" is "."; {VALUE}'),
    "m v=.e5": (5, f'the value of "v" is ".e5"; {VALUE}'),
    "m v=1e": (5, f'the value of "v" is "1e"; {VALUE}'),
    "m v=1.2.3": (5, f'the value of "v" is "1.2.3"; {VALUE}'),
    "m v=1-2": (5, f'the value of "v" is "1-2"; {VALUE}'),
    "m v=9i10": (5, f'the value of "v" is "9i10"; {VALUE}'),
    "m v=1ii": (5, f'the value of "v" is "1ii"; {VALUE}'),
    "m v=\u0661": (5, f'the value of "v" is "\u0661"; {VALUE}'),
    "m v=1\t5": (5, f"the value of \"v\" is '1\\t5'; {VALUE}"),
    "m v=1e400": (5, 'the value of "v" is inf; a float has to be finite; it is written "1e400"'),
    "m v=-1e309": (5, 'the value of "v" is -inf; a float has to be finite; it is written "-1e309"'),
    "m v=9223372036854775808i": (
        5,
        BEYOND,
    ),
    "m v=-9223372036854775809i": (
        5,
        BEYOND,
    ),
    f"m v={'9' * 50}i": (5, BEYOND),
    "m v=9223372036854775808u": (
        5,
        'the value of "v" is "9223372036854775808u"; ' + UNSIGNED,
    ),
    "m v=18446744073709551615u": (
        5,
        'the value of "v" is "18446744073709551615u"; ' + UNSIGNED,
    ),
    'm v="a': (5, 'the quote of "v" is not closed'),
    'm v="a\\"': (5, 'the quote of "v" is not closed'),
    'm v="a"b': (8, 'the string of "v" goes on after its quote; write a quote in it as \'\\"\''),
    'm v="a""b"': (8, 'the string of "v" goes on after its quote; write a quote in it as \'\\"\''),
    "m v=1 x": (7, 'the time is "x"; an integer is needed, and nothing after it'),
    "m v=1 1.5": (7, 'the time is "1.5"; an integer is needed, and nothing after it'),
    "m v=1 +5": (7, 'the time is "+5"; an integer is needed, and nothing after it'),
    "m v=1 -": (7, 'the time is "-"; an integer is needed, and nothing after it'),
    "m v=1 1_0": (7, 'the time is "1_0"; an integer is needed, and nothing after it'),
    "m v=1 \u0661": (7, 'the time is "\u0661"; an integer is needed, and nothing after it'),
    "m v=1 5 6": (7, 'the time is "5 6"; an integer is needed, and nothing after it'),
    "m v=1 9223372036854775807": (
        7,
        "the time is 9223372036854775807 ns since 1970; " + TIMES,
    ),
    "m v=1 -9223372036854775807": (
        7,
        "the time is -9223372036854775807 ns since 1970; " + TIMES,
    ),
    f"m v=1 {'1' * 41}": (7, "the time has 41 digits, which is out of range"),
    "m\x00 v=1": (1, "the name of the table holds the control character U+0000 at character 2; remove it"),
    "m,a\x1f=1 v=1": (2, "the name of a tag holds the control character U+001F at character 2; remove it"),
    "m,a=1\x00 v=1": (2, 'the value of the tag "a" holds the control character U+0000 at character 2; remove it'),
    "m,a=\x85 v=1": (2, 'the value of the tag "a" holds the control character U+0085 at character 1; remove it'),
    "m v\x00=1": (3, "the name of a field holds the control character U+0000 at character 2; remove it"),
    'm v="\x00"': (5, 'the value of "v" holds a NUL character, which cannot be stored; remove it'),
    "m" * 256 + " v=1": (1, "the name of the table has 256 bytes in UTF-8, 255 are allowed; shorten it"),
    "ß" * 128 + " v=1": (1, "the name of the table has 256 bytes in UTF-8, 255 are allowed; shorten it"),
    f"m,{'a' * 256}=1 v=1": (2, "the name of a tag has 256 bytes in UTF-8, 255 are allowed; shorten it"),
    f"m,a={'b' * 1025} v=1": (2, 'the value of the tag "a" has 1,025 bytes in UTF-8, 1,024 are allowed; shorten it'),
    f"m {'v' * 256}=1": (3, "the name of a field has 256 bytes in UTF-8, 255 are allowed; shorten it"),
    f'm v="{"s" * 65536}"': (5, 'the value of "v" has 65,536 bytes in UTF-8, 65,535 are allowed; shorten it'),
    "m,a={0},b={0} v=1".format("x" * 1020): (
        2,
        "the tags take 2,055 bytes as JSON, 2,048 are allowed; send fewer or shorter tags",
    ),
    f"m,a={'b' * 8189} v=1": (1, "the table and its tags have 8,193 characters, 8,192 are allowed; send fewer or shorter tags"),
    "m " + ",".join(f"f{count}=1" for count in range(1_001)): (3, "the line has more than 1,000 fields; send fewer in a line"),
}


@pytest.mark.parametrize(("line", "wrong"), REFUSED.items(), ids=[line[:30] for line in REFUSED])
def test_it_is_refused_alone_with_line_and_column(line: str, wrong: tuple[int, str]) -> None:
    column, reason = wrong
    # A quote that nobody closes takes what follows with it: its line is the last one.
    after = [] if "not closed" in reason else ["m v=2 2"]
    parsed = new_parser().parse("\n".join(["m v=1 1", line, *after]).encode(), unit_ns=1)
    (refusal,) = parsed.refused
    assert refusal.reason == f"line 2, column {column}: {reason}"
    assert (refusal.place, refusal.text, refusal.outcome) == (2, line[:200], PointOutcome.NEVER)
    fault = refusal.fault
    assert (fault.kind, fault.code, fault.scope, fault.retry_after_s) == (Kind.REJECTED, "line", Scope.CALL, None)
    assert [(place, fields, time) for place, _, _, fields, time in points_of(parsed)] == [
        (1, {"v": 1.0}, 1),
        *[(3, {"v": 2.0}, 2) for _ in after],
    ]
    assert parsed.points == 2 + len(after)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"m\xff v=1", "line 1, column 1: the name of the table is not UTF-8; send text in UTF-8"),
        (b"m,a=\xff v=1", 'line 1, column 2: the value of the tag "a" is not UTF-8; send text in UTF-8'),
        (b"m v\xff=1", "line 1, column 3: the name of a field is not UTF-8; send text in UTF-8"),
        (b'm v="\xff"', 'line 1, column 5: the value of "v" is not UTF-8; send text in UTF-8'),
        (b'm v="\xed\xa0\x80"', 'line 1, column 5: the value of "v" is not UTF-8; send text in UTF-8'),
    ],
)
def test_bytes_that_are_no_utf_8_are_refused_with_their_line_and_can_be_told(line: bytes, reason: str) -> None:
    parsed = new_parser().parse(line + b"\nm v=2", unit_ns=1)
    (refusal,) = parsed.refused
    assert refusal.reason == reason
    assert b"?" in refusal.text.encode()
    assert [place for place, *_ in points_of(parsed)] == [2]


@pytest.mark.parametrize(
    ("unit_ns", "time", "is_taken"),
    [
        (10**9, 9223372036, True),
        (10**9, 9223372037, False),
        (10**9, -9223372036, True),
        (10**9, -9223372037, False),
        (10**9, 1465839830100, False),
        (10**6, 9223372036854, True),
        (10**6, 9223372036855, False),
        (3600 * 10**9, 2562047, True),
        (3600 * 10**9, 2562048, False),
    ],
)
def test_a_time_that_is_out_of_range_in_its_unit_is_refused(unit_ns: int, time: int, *, is_taken: bool) -> None:
    parsed = new_parser().parse(f"m v=1 {time}\n".encode() * 40, unit_ns=unit_ns)
    assert {point[4] for point in points_of(parsed)} == ({time * unit_ns} if is_taken else set())
    assert len(parsed.refused) == (0 if is_taken else 40)


def test_refusals_are_told_one_by_one_up_to_a_thousand_and_counted_beyond() -> None:
    parsed = new_parser().parse(b"m v=1\n" + b"m v=x\n" * 1_500 + b"m v=2\n", unit_ns=1)
    assert [refusal.place for refusal in parsed.refused] == list(range(2, 1_002))
    assert [place for place, *_ in points_of(parsed)] == [1, 1_502]
    assert parsed.points == 1_502


def test_a_message_does_not_repeat_what_is_long() -> None:
    (reason,) = reasons("m v=" + "x" * 10_000)
    assert reason == f'line 1, column 5: the value of "v" is "{"x" * 60}..."; {VALUE}'
