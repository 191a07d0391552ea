"""The hard checks that every way into the tables shares."""

from __future__ import annotations

import math
from typing import Any

import pytest

from outlast.tables._lines import checks
from outlast.tables._model import FieldType

BEYOND = "is beyond 64 bits; integers from -9223372036854775808 to 9223372036854775807 are allowed"
SURROGATE = "the name of the table is not UTF-8; send text in UTF-8"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cpu", ""),
        ("a b,c=d", ""),
        ("time", ""),
        ("'; DROP TABLE x; --", ""),
        ("n" * 255, ""),
        ("😀" * 63, ""),
        ("", "the name of the table is empty; at least one character is needed"),
        ("n" * 256, "the name of the table has 256 bytes in UTF-8, 255 are allowed; shorten it"),
        ("😀" * 64, "the name of the table has 256 bytes in UTF-8, 255 are allowed; shorten it"),
        ("a\nb", "the name of the table holds the control character U+000A at character 2; remove it"),
        ("\x7f", "the name of the table holds the control character U+007F at character 1; remove it"),
        ("ab\x9f", "the name of the table holds the control character U+009F at character 3; remove it"),
        ("\ud800", SURROGATE),
        ("a\udfff" * 60, SURROGATE),
    ],
)
def test_a_name(name: str, reason: str) -> None:
    assert checks.wrong_name("the table", name) == reason


def test_a_field_is_not_called_time() -> None:
    assert checks.wrong_field_name("time") == 'a field cannot be called "time", the name of the time of a point; rename it'
    assert checks.wrong_field_name("Time") == ""
    assert checks.wrong_field_name("") == "the name of a field is empty; at least one character is needed"


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ((), ""),
        ((("a", "x y"), ("b", "v" * 1_024)), ""),
        ((("a", "v" * 1_025),), 'the value of the tag "a" has 1,025 bytes in UTF-8, 1,024 are allowed; shorten it'),
        ((("a", "\x00"),), 'the value of the tag "a" holds the control character U+0000 at character 1; remove it'),
        ((("a", "\udc80"),), 'the value of the tag "a" is not UTF-8; send text in UTF-8'),
        ((("", "x"),), "the name of a tag is empty; at least one character is needed"),
        # {"a":"…","b":"…"}: 15 bytes beside the values.
        ((("a", "v" * 1_024), ("b", "v" * 1_009)), ""),
        (
            (("a", "v" * 1_024), ("b", "v" * 1_010)),
            "the tags take 2,049 bytes as JSON, 2,048 are allowed; send fewer or shorter tags",
        ),
        # A quote takes two bytes in JSON.
        (
            (("a", '"' * 1_024), ("b", "")),
            "the tags take 2,063 bytes as JSON, 2,048 are allowed; send fewer or shorter tags",
        ),
    ],
)
def test_tags(tags: tuple[tuple[str, str], ...], reason: str) -> None:
    assert checks.wrong_tags(tags) == reason


def test_tags_are_sorted_and_empty_ones_are_absent() -> None:
    assert checks.sorted_tags({"b": "2", "a": "1", "c": ""}) == (("a", "1"), ("b", "2"))
    assert checks.tags_json((("a", 'ß"'), ("b", "2"))) == '{"a":"ß\\"","b":"2"}'


@pytest.mark.parametrize(
    ("value", "kind", "reason"),
    [
        (True, FieldType.BOOLEAN, ""),
        (2**63 - 1, FieldType.INTEGER, ""),
        (-(2**63), FieldType.INTEGER, ""),
        (-0.0, FieldType.FLOAT, ""),
        ("", FieldType.STRING, ""),
        ("a\n\x1b", FieldType.STRING, ""),
        ("ß" * 32_767, FieldType.STRING, ""),
        (2**63, None, BEYOND),
        (-(2**63) - 1, None, BEYOND),
        pytest.param(10**6_000, None, BEYOND, id="long"),
        (math.nan, None, "is nan; a float has to be finite"),
        (-math.inf, None, "is -inf; a float has to be finite"),
        ("a\x00", None, "holds a NUL character, which cannot be stored; remove it"),
        ("ß" * 32_768, None, "has 65,536 bytes in UTF-8, 65,535 are allowed; shorten it"),
        ("\ud800", None, "is not UTF-8; send text in UTF-8"),
        (None, None, "is of type NoneType; integers, floats, strings and booleans are allowed"),
        (b"x", None, "is of type bytes; integers, floats, strings and booleans are allowed"),
    ],
)
def test_a_value(value: Any, kind: FieldType | None, reason: str) -> None:
    assert checks.wrong_value("used", value) == (f'the value of "used" {reason}' if reason else "")
    assert kind in {None, checks.type_of(value)}


@pytest.mark.parametrize(
    ("time_ns", "seen"),
    [
        (0, ""),
        (2**63 - 2, ""),
        (-(2**63) + 2, ""),
        (2**63 - 1, "9223372036854775807 ns"),
        (-(2**63) + 1, "-9223372036854775807 ns"),
        pytest.param(10**5_000, "a number of more than 40 digits ns", id="long"),
    ],
)
def test_a_time(time_ns: int, seen: str) -> None:
    allowed = "from -9223372036854775806 to 9223372036854775806 (the years 1677 to 2262) are allowed"
    assert checks.wrong_time(time_ns) == (f"the time is {seen} since 1970; {allowed}" if seen else "")


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        (("m", (("a", "b"),), {"v": 1}, None), ""),
        (("m", (), {"v": 1, "w": "x"}, 5), ""),
        (("m", (), {}, 5), "the point has no field; at least one is needed"),
        (("", (), {"v": 1}, 5), "the name of the table is empty; at least one character is needed"),
        (("m", (("", "b"),), {"v": 1}, 5), "the name of a tag is empty; at least one character is needed"),
        (("m", (), {"v": 1, "": 2}, 5), "the name of a field is empty; at least one character is needed"),
        (("m", (), {"v": 1, "w": math.inf}, 5), 'the value of "w" is inf; a float has to be finite'),
        (("m", (), {"time": 1}, 5), 'a field cannot be called "time", the name of the time of a point; rename it'),
    ],
)
def test_a_point(point: tuple[Any, Any, Any, Any], reason: str) -> None:
    assert checks.wrong_point(*point) == reason


def test_a_point_out_of_time_is_refused_last() -> None:
    assert checks.wrong_point("m", (), {"v": 1}, 2**63).startswith("the time is 9223372036854775808 ns since 1970;")


def test_what_is_shown_is_short_and_of_one_line() -> None:
    assert checks.shown("a b") == '"a b"'
    assert checks.shown("a\n\ud800") == r"'a\n\ud800'"
    assert checks.shown("x" * 61) == f'"{"x" * 60}..."'
