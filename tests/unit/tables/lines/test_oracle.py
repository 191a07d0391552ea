"""The parser beside `line-protocol-parser`, which is in C: the same points, and each difference with its reason."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from line_protocol_parser import LineFormatError, parse_line
from reading_lines import new_parser, points_of
from test_ways import LINES

from outlast.tables._model import INT64_MAX, INT64_MIN

Point = tuple[str, dict[str, str], dict[str, Any], int | None]

DIFFERENCES = {
    "an empty line is no line for us, and an error for it": ["", " ", "\t"],
    "a tag without a value is absent for us, and an error for it": ["m,a= v=1", "m,a=,b=2 v=1 5"],
    "of a field that is there twice we take the last value, as InfluxDB, and it the first": ["m v=1,v=2", 'm v="x",w=1,v=3i 5'],
    "an unsigned integer beyond 63 bits cannot be stored": ["m v=9223372036854775808u", "m v=18446744073709551615u 5"],
    "a field called time is left out by us, as by InfluxDB": ["m time=5,v=1", "m time=5"],
    "a tag called time is refused by us, as by InfluxDB": ["m,time=5 v=1"],
    "control characters in names are refused by us": ["m\x01 v=1", "m,a=\t v=1", "m v\x7f=1"],
    "a comment may hold NUL": ["#\x00"],
    "after the quote that closes a string comes a comma, a space or the end": ['m v="x"v="x"'],
    "a float may be smaller than a full double, as in InfluxDB": ["m v=2e-310", "m v=1e-400"],
    "a quote may be escaped in the name of a field, as in InfluxDB": ['m \\"=1', 'm a\\"b=1 5'],
}


def theirs(line: str) -> Point | str | None:
    """A point, the reason of a refusal, or None for a comment."""
    try:
        found = parse_line(line)
    except LineFormatError as wrong:
        return str(wrong)
    return found and (found["measurement"], found["tags"], found["fields"], found["time"])


def ours(line: str) -> Point | str | None:
    parsed = new_parser().parse(line.encode(), unit_ns=1)
    if parsed.refused:
        return parsed.refused[0].reason
    return points_of(parsed)[0][1:] if parsed.points else None


def same(one: Point | str | None, other: Point | str | None) -> bool:
    """Whether both are refusals, comments, or the same point: 1, 1.0 and True differ."""
    if not isinstance(one, tuple) or not isinstance(other, tuple):
        return type(one) is type(other)
    parts = [(table, sorted(tags.items()), repr(sorted(fields.items())), time) for table, tags, fields, time in (one, other)]
    return parts[0] == parts[1]


def why(line: str, one: Point | str | None, other: Point | str | None) -> str:
    """The reason for which ours (`one`) and theirs (`other`) differ; it has to hold for exactly this line."""
    empty, no_value, twice, unsigned, time_field, time_tag, control, comment, quoted, small, quote = DIFFERENCES
    refused = {"beyond|unsigned integers up to": unsigned, 'only field is called "time"': time_field}
    refused |= {'a tag cannot be called "time"': time_tag, "the control character": control, "goes on after its quote": quoted}
    fields = one[2] if isinstance(one, tuple) else {}
    head = line.strip(" \t").partition(" ")[0]
    told = {reason: isinstance(one, str) and re.search(pattern, one) for pattern, reason in refused.items()}
    told[empty] = not head
    told[comment] = head.startswith("#") and other == "Embedded NUL bytes are not supported."
    told[no_value] = other == "Failed to parse value of tag." and re.search(r"(?<!\\)=(?<!\\=)(,|$)", head)
    told[small] = other == "Failed to parse type of field value." and any(
        type(value) is float and abs(value) < sys.float_info.min for value in fields.values()
    )
    if isinstance(one, tuple) and isinstance(other, tuple) and one[:2] == other[:2] and one[3] == other[3]:
        told[time_field] = fields == {name: value for name, value in other[2].items() if name != "time"}
        told[quote] = fields == {name.replace('\\"', '"'): value for name, value in other[2].items()}
        told[twice] = any(line.count(f"{name}=") > 1 for name in fields)
    return next((reason for reason, holds in told.items() if holds), f"unknown: {one} and {other}")


@pytest.mark.parametrize(("reason", "line"), [(reason, line) for reason, lines in DIFFERENCES.items() for line in lines])
def test_a_difference_and_its_reason(reason: str, line: str) -> None:
    assert not same(ours(line), theirs(line))
    assert why(line, ours(line), theirs(line)) == reason


@settings(max_examples=400, derandomize=True)
@given(LINES.filter(lambda line: not {"\n", "\r"} & set(line) and len(line) < 1_000))
def test_any_line_reads_the_same_but_for_these_differences(line: str) -> None:
    one, other = ours(line), theirs(line)
    assert same(one, other) or why(line, one, other) in DIFFERENCES


NAMES = st.text(st.sampled_from("aB1ß日,= '\"#.-_/:"), min_size=1, max_size=8).filter(lambda name: name not in {"time", "#"})
STRINGS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]) | st.sampled_from('"\\,= \n'), max_size=20)
VALUES = (
    st.integers(INT64_MIN, INT64_MAX)
    | st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)
    | st.booleans()
    | STRINGS
)
POINTS = st.tuples(
    NAMES.filter(lambda table: not table.startswith("#")),
    st.dictionaries(NAMES, NAMES, max_size=4),
    st.dictionaries(NAMES, VALUES, min_size=1, max_size=4),
    st.none() | st.integers(INT64_MIN + 2, INT64_MAX - 1),
)


def escaped(text: str, characters: str) -> str:
    return re.sub(f"([{re.escape(characters)}])", r"\\\1", text)


def written(value: Any) -> str:
    """A value as clients write it."""
    if isinstance(value, str):
        return '"' + escaped(value, '"\\') + '"'
    return f"{value}i" if type(value) is int else str(value)


def line_of(point: Point) -> str:
    table, tags, fields, time = point
    head = escaped(table, ", ") + "".join(f",{escaped(name, ',= ')}={escaped(value, ',= ')}" for name, value in tags.items())
    body = ",".join(f"{escaped(name, ',= ')}={written(value)}" for name, value in fields.items())
    return f"{head} {body}" + ("" if time is None else f" {time}")


@settings(max_examples=300)
@given(POINTS)
def test_a_point_that_is_written_is_read_by_both(point: Point) -> None:
    line = line_of(point)
    assert same(ours(line), point)
    assert same(theirs(line), point)
