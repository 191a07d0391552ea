"""Whatever comes is answered: no body, line or question raises anything but a refusal."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from memory_tables import MemoryTables

from outlast.tables._errors import InvalidQueryError
from outlast.tables._http.answers import RefusedError
from outlast.tables._http.opentsdb import points, said
from outlast.tables._query.ask import query_of_json, query_of_url
from outlast.tables._query.bounds import QueryLimits
from outlast.tables._query.ranges import range_of_url
from outlast.tables._query.run import Queries
from outlast.tables._telnet.datapoints import Heads
from outlast.tables._telnet.lines import Lines, error_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast.tables._query.ask import Query

NOW_MS = 1_700_000_000_000
EXAMPLES = 150
TABLES = MemoryTables()
TABLES.add("cpu", {"host": "a"}, {1_600_000_000: 1, 1_600_000_010: 2.5})
HEADS, LINES = Heads(TABLES.as_tables), Lines(TABLES.as_tables)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("1") | st.just(1_700_000_000)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2), max_leaves=5
)
tags = st.dictionaries(st.sampled_from(["host", "", "a\x00", "\ud800"]), values, max_size=2) | values
members: dict[str, st.SearchStrategy[Any]] = {"metric": values, "timestamp": values, "value": values, "tags": tags}
point = st.fixed_dictionaries({}, optional=members) | values


def read(body: bytes) -> points.Body | None:
    """What a body holds; None for one that is refused as a whole, which is 400 and nothing else."""
    status = 400
    found = None
    try:
        found = points.read(body, HEADS)
    except RefusedError as error:
        status = error.refused.status
    assert status == 400
    return found


@settings(max_examples=EXAMPLES)
@given(st.lists(point, max_size=4) | point)
def test_a_body_is_read_or_refused_and_its_answer_is_json(body: object) -> None:
    found = read(json.dumps(body).encode())
    if found is None:
        return
    refused = len(found.parsed.refused)
    assert found.parsed.points == len(found.points) == sum(len(rows.rows) for rows in found.parsed.rows) + refused
    written = asyncio.run(TABLES.write_parsed(found.parsed))
    answer = said.put(written, found.points, {})
    assert answer.status == (400 if refused else 204)
    assert not refused or json.loads(answer.body)["failed"] == refused


@settings(max_examples=EXAMPLES)
@given(st.binary(max_size=60))
def test_bytes_that_are_no_json(body: bytes) -> None:
    found = read(body)
    assert found is None or found.parsed.points == len(found.points)


WORDS = [b"put", b"cpu", b"1700000000", b"1.5", b"nan", b"1e999", b"9" * 30, b"h=a", b"h=", b"=", b"\xff", b"\x00", b" "]
words = st.sampled_from(WORDS) | st.binary(max_size=8)


@settings(max_examples=EXAMPLES)
@given(st.lists(st.lists(words, max_size=7).map(b" ".join), max_size=5))
def test_a_line_is_read_or_refused_on_one_line(lines: list[bytes]) -> None:
    batch = LINES.read([line.replace(b"\n", b"") for line in lines], 16_384)
    assert [error_line(refusal).count("\n") for refusal in batch.parsed.refused] == [1] * len(batch.parsed.refused)
    assert batch.parsed.points == sum(len(rows.rows) for rows in batch.parsed.rows) + len(batch.parsed.refused)


TEXTS = ["sum", "none", "cpu", "1m-avg", "1ms-sum-zero", "rate", "1h-ago", "*", "regexp(a|b)", "(", "a*"]
text = st.text(max_size=12) | st.sampled_from(TEXTS)
filters = st.dictionaries(st.sampled_from(["type", "tagk", "filter"]), text | values)
part = st.fixed_dictionaries(
    {"aggregator": text | values, "metric": text | values},
    optional={
        "downsample": text | values,
        "rate": values | st.just(True),
        "rateOptions": st.dictionaries(st.sampled_from(["counter", "counterMax", "resetValue"]), values) | values,
        "tags": st.dictionaries(text, text | values, max_size=2) | values,
        "filters": st.lists(filters | values, max_size=2),
    },
)
asked = {"start": values | st.just(1), "end": values, "timezone": values, "queries": st.lists(part | values, max_size=2)}


@settings(max_examples=EXAMPLES)
@given(st.fixed_dictionaries({}, optional=asked))
def test_a_question_in_json_is_answered_or_refused(body: dict[str, Any]) -> None:
    assert answered(lambda: query_of_json(body, {}, NOW_MS, 20))


@settings(max_examples=EXAMPLES)
@given(st.dictionaries(st.sampled_from(["start", "end", "m", "tz", "ms", "arrays"]), st.lists(text, min_size=1, max_size=2)))
def test_a_question_in_a_url_is_answered_or_refused(params: dict[str, list[str]]) -> None:
    assert answered(lambda: query_of_url(params, NOW_MS, 20))


@settings(max_examples=EXAMPLES)
@given(st.dictionaries(st.sampled_from(["table", "field", "tag.a", "start", "end", "format"]), st.lists(text, max_size=2)))
def test_a_range_in_a_url_is_read_or_refused(params: dict[str, list[str]]) -> None:
    with suppress(InvalidQueryError):
        assert range_of_url(params, NOW_MS)[0].table == params["table"][0]


def answered(query_of: Callable[[], Query]) -> str:
    """The answer as JSON, or what was said instead of it."""
    try:
        answer = asyncio.run(Queries(TABLES.as_tables, QueryLimits(points_max=1_000)).answer(query_of()))
    except InvalidQueryError as error:
        return str(error)
    assert isinstance(json.loads(answer), list)
    return answer.decode()
