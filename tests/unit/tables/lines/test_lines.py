"""The lines that are points, by the rules of InfluxDB 1.6 and 2, and what is read of them."""

from __future__ import annotations

from typing import Any

import pytest
from reading_lines import new_parser, points_of, read, types_of, value_of

from outlast.tables._model import FieldType

HEADS = {
    "m": ("m", {}),
    "m,a=1,b=2": ("m", {"a": "1", "b": "2"}),
    "m,b=2,a=1,c=3": ("m", {"a": "1", "b": "2", "c": "3"}),
    "m,a=": ("m", {}),
    "m,a=,b=2": ("m", {"b": "2"}),
    r"m\ x,a\ b=c\ d": ("m x", {"a b": "c d"}),
    r"m\,x,a\,b=c\,d": ("m,x", {"a,b": "c,d"}),
    r"m,a\=b=c\=d": ("m", {"a=b": "c=d"}),
    r"m\=x\",a=1\"": ('m=x"', {"a": r"1\""}),
    "m=x,a=1": ("m=x", {"a": "1"}),
    r"m,a=C:\Windows\x": ("m", {"a": r"C:\Windows\x"}),
    r"m,a=1\\,b": None,
    '"m",a="x"': ('"m"', {"a": '"x"'}),
    "m#,a=#1": ("m#", {"a": "#1"}),
    "größe,größe=ß,日=本": ("größe", {"größe": "ß", "日": "本"}),
    r"m\n,a=x\ty": (r"m\n", {"a": r"x\ty"}),
}


@pytest.mark.parametrize(("head", "series"), [(head, series) for head, series in HEADS.items() if series])
def test_a_table_and_its_tags(head: str, series: tuple[str, dict[str, str]]) -> None:
    assert read(f"{head} v=1 5") == [(1, *series, {"v": 1.0}, 5)]


def test_after_two_backslashes_a_comma_is_part_of_the_name_still() -> None:
    """InfluxDB looks one character back alone; the backslash that is not part of an escape stays."""
    assert read("m\\\\,a=b v=1") == [(1, "m\\,a=b", {}, {"v": 1.0}, None)]
    assert read("m,a=b\\\\ c v=1") == [(1, "m", {"a": "b\\ c"}, {"v": 1.0}, None)]


def test_tags_are_one_series_in_any_order_and_with_empty_ones() -> None:
    parsed = new_parser().parse(b"m,b=2,a=1 v=1 1\nm,a=1,b=2 v=1 2\nm,c=,a=1,b=2 v=1 3\n", unit_ns=1)
    (rows,) = parsed.rows
    first, *others = (row[0] for row in rows.rows)
    assert first.tags == (("a", "1"), ("b", "2"))
    assert [other is first for other in others] == [True, True]


FLOATS = {
    "1": 1.0,
    "-1": -1.0,
    "1.": 1.0,
    ".5": 0.5,
    "-.5": -0.5,
    "007": 7.0,
    "-0": -0.0,
    "1e5": 1e5,
    "1E5": 1e5,
    "1e+5": 1e5,
    "1.5e-5": 1.5e-5,
    "1.e5": 1e5,
    "-1.25e-300": -1.25e-300,
    "1.7976931348623157e308": 1.7976931348623157e308,
    "1e-400": 0.0,
    "0.1234567890123456789012345678901234567890123456789": 0.12345678901234568,
    "9007199254740993": 9007199254740992.0,
}
INTEGERS = {
    "1i": 1,
    "-1i": -1,
    "007i": 7,
    "-0i": 0,
    "9223372036854775807i": 9223372036854775807,
    "-9223372036854775808i": -9223372036854775808,
    "9007199254740993i": 9007199254740993,
    "0u": 0,
    "1u": 1,
    "9223372036854775807u": 9223372036854775807,
}
BOOLEANS = {"t": True, "T": True, "true": True, "True": True, "TRUE": True} | {
    "f": False,
    "F": False,
    "false": False,
    "False": False,
    "FALSE": False,
}
STRINGS = {
    '""': "",
    '"a b,c=d"': "a b,c=d",
    r'"a\"b"': 'a"b',
    r'"a\\b"': r"a\b",
    r'"a\\"': "a\\",
    r'"a\nb\,c"': r"a\nb\,c",
    '"x\ny"': "x\ny",
    '"x\r\ny"': "x\r\ny",
    '"\t\x1b[31m\x7f"': "\t\x1b[31m\x7f",
    '"日本 ß"': "日本 ß",
    '"#"': "#",
}


@pytest.mark.parametrize(("text", "value"), [*FLOATS.items(), *INTEGERS.items(), *BOOLEANS.items(), *STRINGS.items()])
def test_a_value(text: str, value: Any) -> None:
    seen = value_of(text)
    assert (type(seen), repr(seen)) == (type(value), repr(value))


def test_the_types_of_a_shape() -> None:
    parsed = new_parser().parse(b'm f=1,i=1i,u=1u,s="",b=t 1', unit_ns=1)
    assert types_of(parsed) == [(FieldType.FLOAT, FieldType.INTEGER, FieldType.INTEGER, FieldType.STRING, FieldType.BOOLEAN)]


FIELDS = {
    "a=1,b=2i": {"a": 1.0, "b": 2},
    r"a\ b=1": {"a b": 1.0},
    r"a\,b\=c=1": {"a,b=c": 1.0},
    r"a\"b=1": {'a"b': 1.0},
    'a"b=1': {'a"b': 1.0},
    r"a\b=1": {r"a\b": 1.0},
    'a="x=y,z=1 2",b=2': {"a": "x=y,z=1 2", "b": 2.0},
    "v=1,w=2,v=3i": {"v": 3, "w": 2.0},
    "ß=1": {"ß": 1.0},
    "time=5,v=1": {"v": 1.0},
    "series=1": {"series": 1.0},
}


@pytest.mark.parametrize(("text", "fields"), FIELDS.items())
def test_fields(text: str, fields: dict[str, Any]) -> None:
    ((_, table, tags, seen, time),) = read(f"m,a=b {text} 5")
    assert (table, tags, repr(seen), time) == ("m", {"a": "b"}, repr(fields), 5)


def test_a_field_that_is_there_twice_has_its_last_value_and_leaves_the_next_line_alone() -> None:
    assert read("m v=1,v=2 1\nm v=3 2") == [(1, "m", {}, {"v": 2.0}, 1), (2, "m", {}, {"v": 3.0}, 2)]


def test_a_field_called_time_is_left_out_and_never_taken_for_the_time() -> None:
    """InfluxDB 1 and 2 do the same, without a word."""
    assert read("m time=5i,v=1 7") == [(1, "m", {}, {"v": 1.0}, 7)]


@pytest.mark.parametrize(
    ("line", "time"),
    [
        ("m v=1", None),
        ("m v=1 ", None),
        ("m v=1 0", 0),
        ("m v=1 -1", -1),
        ("m v=1  5", 5),
        ("m v=1 5  ", 5),
        ("  m v=1 5", 5),
        ("\t m v=1 5", 5),
        ("m  v=1 5", 5),
        ("m v=1 005", 5),
        ("m v=1 9223372036854775806", 9223372036854775806),
        ("m v=1 -9223372036854775806", -9223372036854775806),
    ],
)
def test_a_time(line: str, time: int | None) -> None:
    assert read(line) == [(1, "m", {}, {"v": 1.0}, time)]


def test_a_line_without_a_time_gets_the_one_that_is_given() -> None:
    parsed = new_parser().parse(b"m v=1\nm v=2 3\nm v=3", unit_ns=10**9, untimed_ns=77)
    assert [time for *_, time in points_of(parsed)] == [77, 3 * 10**9, 77]


def test_rows_lie_by_shape_with_the_numbers_of_their_lines() -> None:
    body = b"m,a=1 v=1 1\nm,a=1 w=1i 1\nm,a=2 v=2 2\nn v=1 1\nm,a=1 v=1i 3\nm,a=1 w=1u 4\n"
    parsed = new_parser().parse(body, unit_ns=1)
    seen = [(rows.table, rows.fields, rows.types, rows.places) for rows in parsed.rows]
    assert seen == [
        ("m", ("v",), (FieldType.FLOAT,), [1, 3]),
        ("m", ("w",), (FieldType.INTEGER,), [2, 6]),
        ("n", ("v",), (FieldType.FLOAT,), [4]),
        ("m", ("v",), (FieldType.INTEGER,), [5]),
    ]
    assert parsed.points == 6
    assert [row[1:] for row in parsed.rows[0].rows] == [[1, 1.0], [2, 2.0]]


def test_limits_are_allowed_to_be_reached() -> None:
    name, value, string = "n" * 255, "v" * 1_024, "s" * 65_535
    assert read(f'{name},{name}={value} {name}="{string}" 1') == [(1, name, {name: value}, {name: string}, 1)]
    wide = {f"f{count}": float(count) for count in range(1_000)}
    line = "m " + ",".join(f"{name}={value}" for name, value in wide.items())
    assert read(line) == [(1, "m", {}, wide, None)]
