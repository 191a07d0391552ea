"""`/api/put`: what is taken, what is refused, and the answers in the words of OpenTSDB 2.4."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from memory_tables import MemoryTables

from asgi_exchange import Exchange
from outlast import Fault, Kind, Stopping, Unavailable
from outlast.tables._http.app import TablesApp
from outlast.tables._http.opentsdb import points
from outlast.tables._model import FieldType, PointOutcome, PointRefusal
from outlast.tables._telnet.datapoints import Heads
from outlast.testing import run_virtual

AT = 1_700_000_000
GOOD: dict[str, Any] = {"metric": "cpu", "timestamp": AT, "value": 0.5, "tags": {"host": "a"}}
TIMES = "write seconds up to 4294967295, or milliseconds up to 9223372036853"


def put(body: object, query: str = "", tables: MemoryTables | None = None, headers: dict[str, str] | None = None) -> Exchange:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    exchange = Exchange("POST", "/api/put", {"content-length": str(len(raw)), **(headers or {})}, body=raw)
    exchange.scope["query_string"] = query.encode()
    app = TablesApp((tables or MemoryTables()).as_tables)
    return run_virtual(lambda: exchange.run(app))


def refused(place: int, outcome: PointOutcome, kind: Kind = Kind.TRANSIENT, code: str = "away") -> PointRefusal:
    return PointRefusal(place, outcome, Fault(kind, code, f"reason of {code}"))


def test_all_stored_is_204_without_a_body() -> None:
    tables = MemoryTables()
    exchange = put([GOOD, {**GOOD, "timestamp": AT + 1, "value": 7}], tables=tables)
    assert (exchange.status, exchange.body) == (204, b"")
    assert tables.stored["cpu"] == {
        ((("host", "a"),), AT * 10**9): {"value": 0.5},
        ((("host", "a"),), (AT + 1) * 10**9): {"value": 7},
    }


@pytest.mark.parametrize("query", ["sync", "sync_timeout=100", "sync=true&x=y"])
def test_what_asks_for_no_body_gets_none(query: str) -> None:
    assert put(GOOD, query).status == 204


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("summary", {"success": 1, "failed": 0}),
        ("details", {"success": 1, "failed": 0, "errors": []}),
        ("summary&details", {"success": 1, "failed": 0, "errors": []}),
    ],
)
def test_all_stored_is_200_where_more_is_asked(query: str, wanted: dict[str, Any]) -> None:
    exchange = put(GOOD, query)
    assert (exchange.status, exchange.json) == (200, wanted)
    assert exchange.headers["content-type"] == "application/json; charset=UTF-8"


@pytest.mark.parametrize("query", ["", "summary", "details"])
def test_a_bad_point_is_400_and_told_while_the_good_are_stored(query: str) -> None:
    tables = MemoryTables()
    exchange = put([GOOD, {**GOOD, "metric": ""}, {**GOOD, "timestamp": AT + 1}], query, tables)
    assert exchange.status == 400
    assert exchange.json == {
        "success": 2,
        "failed": 1,
        "errors": [
            {
                "datapoint": {"metric": "", "timestamp": AT, "value": "0.5", "tags": {"host": "a"}},
                "error": "Metric name was empty",
            }
        ],
        "error": {
            "code": 400,
            "message": "One or more data points had errors",
            "details": "The errors are in this answer, one for each data point.",
        },
    }
    assert len(tables.stored["cpu"]) == 2
    assert "retry-after" not in exchange.headers


BAD: list[tuple[object, str]] = [
    (None, "Unexpected null datapoint encountered in set."),
    (7, "a data point is an object with metric, timestamp, value and tags, not 7"),
    ([], "a data point is an object with metric, timestamp, value and tags, not []"),
    ({}, "Metric name was empty"),
    ({**GOOD, "metric": None}, "Metric name was empty"),
    ({**GOOD, "metric": 7}, "the metric is a text, not 7"),
    ({**GOOD, "timestamp": 0}, f"Invalid timestamp: 0; {TIMES}"),
    ({**GOOD, "timestamp": -1}, f"Invalid timestamp: -1; {TIMES}"),
    ({**GOOD, "timestamp": True}, f"Invalid timestamp: True; {TIMES}"),
    ({**GOOD, "timestamp": "1.5"}, f'Invalid timestamp: "1.5"; {TIMES}'),
    ({**GOOD, "timestamp": None}, f"Invalid timestamp: None; {TIMES}"),
    ({**GOOD, "timestamp": 9_223_372_036_854}, f"Invalid timestamp: 9223372036854; {TIMES}"),
    ({**GOOD, "timestamp": 10**70}, f"Invalid timestamp: a number of more than 60 digits; {TIMES}"),
    ({**GOOD, "timestamp": 1e300}, f"Invalid timestamp: 1e+300; {TIMES}"),
    ({name: value for name, value in GOOD.items() if name != "timestamp"}, f"Invalid timestamp: 0; {TIMES}"),
    ({**GOOD, "value": None}, "Empty value"),
    ({**GOOD, "value": ""}, "Empty value"),
    ({**GOOD, "value": "abc"}, 'Unable to parse value to a number: "abc"; write 42, 4.2 or 4.2e1'),
    ({**GOOD, "value": "0x1"}, 'Unable to parse value to a number: "0x1"; write 42, 4.2 or 4.2e1'),
    ({**GOOD, "value": "NaN"}, 'Unable to parse value to a number: "NaN"; write 42, 4.2 or 4.2e1'),
    ({**GOOD, "value": " 1"}, 'Unable to parse value to a number: " 1"; write 42, 4.2 or 4.2e1'),
    ({**GOOD, "value": "1_0"}, 'Unable to parse value to a number: "1_0"; write 42, 4.2 or 4.2e1'),
    ({**GOOD, "value": "\u0663"}, 'Unable to parse value to a number: "\u0663"; write 42, 4.2 or 4.2e1'),
    ({**GOOD, "value": True}, "Unable to parse value to a number: true; write 1 or 0"),
    ({**GOOD, "value": [1]}, "Unable to parse value to a number: [1]; write 42, 4.2 or 4.2e1"),
    (
        {**GOOD, "value": 2**63},
        "Unable to parse value to a number: an integer beyond -9223372036854775808 to 9223372036854775807; send it as a float",
    ),
    ({**GOOD, "value": "1e400"}, "value is NaN or Infinite: inf; leave out points without a value, and none is above 1.7e308"),
    ({**GOOD, "tags": {}}, "Missing tags: a data point has at least one, with a value"),
    ({**GOOD, "tags": None}, "Missing tags: a data point has at least one, with a value"),
    ({**GOOD, "tags": {"host": ""}}, "Missing tags: a data point has at least one, with a value"),
    ({**GOOD, "tags": ["host"]}, "the tags are an object, a value for each name, not ['host']"),
    ({**GOOD, "tags": {"host": ["a"]}}, "the value of the tag \"host\" is a text, not ['a']"),
    ({**GOOD, "tags": {"": "a"}}, "the name of a tag is empty; at least one character is needed"),
    ({**GOOD, "metric": "a\x00b"}, "the name of the metric holds the control character U+0000 at character 2; remove it"),
    ({**GOOD, "metric": "\ud800"}, "the name of the metric is not UTF-8; send text in UTF-8"),
    ({**GOOD, "tags": {"host": "\ud800"}}, 'the value of the tag "host" is not UTF-8; send text in UTF-8'),
]


@pytest.mark.parametrize(("point", "reason"), BAD, ids=range(len(BAD)))
def test_what_is_no_point_is_refused_alone(point: object, reason: str) -> None:
    tables = MemoryTables()
    exchange = put([GOOD, point], tables=tables)
    assert (exchange.status, exchange.json["success"], exchange.json["failed"]) == (400, 1, 1)
    assert [error["error"] for error in exchange.json["errors"]] == [reason]
    assert list(tables.stored) == ["cpu"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"NaN", "value is NaN or Infinite: nan"),
        (b"-Infinity", "value is NaN or Infinite: -inf"),
        (b"1e400", "value is NaN or Infinite: inf"),
        (b"1" * 10_000, "Unable to parse value to a number: "),
        (b"-" + b"1" * 5_000, "Unable to parse value to a number: "),
    ],
)
def test_numbers_that_python_reads_in_its_own_way_cost_their_point_alone(value: bytes, reason: str) -> None:
    bad = json.dumps({**GOOD, "value": 424_242}).encode().replace(b"424242", value)
    exchange = put(b"[" + json.dumps(GOOD).encode() + b"," + bad + b"]")
    assert (exchange.status, exchange.json["success"]) == (400, 1)
    (error,) = exchange.json["errors"]
    assert error["error"].startswith(reason)
    assert len(error["datapoint"]["value"]) <= 300


@pytest.mark.parametrize(
    ("timestamp", "wanted_ns"),
    [
        (1, 1_000_000_000),
        (4_294_967_295, 4_294_967_295_000_000_000),
        # What does not fit 32 bits is in milliseconds, whatever its digits: 1970-02-19.
        (4_294_967_296, 4_294_967_296_000_000),
        (9_999_999_999, 9_999_999_999_000_000),
        (10_000_000_000, 10_000_000_000_000_000),
        (1_700_000_000_123, 1_700_000_000_123_000_000),
        ("1700000000", 1_700_000_000_000_000_000),
        ("1700000000123", 1_700_000_000_123_000_000),
        # A fraction is cut off, as by the original.
        (1_700_000_000.9, 1_700_000_000_000_000_000),
        (1.5, 1_000_000_000),
    ],
)
def test_a_time_is_in_seconds_or_milliseconds_by_one_rule(timestamp: object, wanted_ns: int) -> None:
    tables = MemoryTables()
    assert put({**GOOD, "timestamp": timestamp}, tables=tables).status == 204
    assert [at_ns for _, at_ns in tables.stored["cpu"]] == [wanted_ns]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (42, 42),
        (-42, -42),
        (4.2, 4.2),
        ("42", 42),
        ("+42", 42),
        ("4.2", 4.2),
        ("4.", 4.0),
        (".5", 0.5),
        ("-1e-3", -0.001),
        ("1E5", 100_000.0),
        (2**63 - 1, 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        (0.0, 0.0),
    ],
)
def test_a_value_is_a_number_or_the_text_of_one(value: object, wanted: float) -> None:
    tables = MemoryTables()
    assert put({**GOOD, "value": value}, tables=tables).status == 204
    ((stored),) = [fields["value"] for fields in tables.stored["cpu"].values()]
    assert (type(stored), stored) == (type(wanted), wanted)


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ({"b": "2", "a": "1"}, (("a", "1"), ("b", "2"))),
        ({"host": "a:b c=d,{e}"}, (("host", "a:b c=d,{e}"),)),
        ({"host": "größe", "x": "", "y": None}, (("host", "größe"),)),
        ({"n": 7, "f": 1.5, "t": True}, (("f", "1.5"), ("n", "7"), ("t", "true"))),
    ],
)
def test_tags_are_texts_and_sorted(tags: dict[str, Any], wanted: object) -> None:
    tables = MemoryTables()
    assert put({**GOOD, "tags": tags}, tables=tables).status == 204
    assert [series for series, _ in tables.stored["cpu"]] == [wanted]


def test_a_number_as_a_tag_is_not_taken_for_another_that_equals_it() -> None:
    tables = MemoryTables()
    body = [{**GOOD, "tags": {"n": value}} for value in (1, True, 1.0, "1")]
    assert put(body, tables=tables).status == 204
    assert [series for series, _ in tables.stored["cpu"]] == [(("n", "1"),), (("n", "true"),), (("n", "1.0"),)]


def test_a_known_series_is_one_object_in_any_order_of_its_tags() -> None:
    heads = Heads(MemoryTables().as_tables)
    body = json.dumps([{**GOOD, "tags": {"a": "1", "b": "2"}}, {**GOOD, "tags": {"b": "2", "a": "1"}}, {**GOOD, "value": 1}])
    found = points.read(body.encode(), heads).parsed
    assert [(rows.table, rows.fields, rows.types, rows.places) for rows in found.rows] == [
        ("cpu", ("value",), (FieldType.FLOAT,), [0, 1]),
        ("cpu", ("value",), (FieldType.INTEGER,), [2]),
    ]
    assert found.rows[0].rows[0][0] is found.rows[0].rows[1][0]
    again = points.read(body.encode(), heads).parsed
    assert again.rows[0].rows[0][0] is found.rows[0].rows[0][0]
    assert again.rows == found.rows


def test_refusals_beyond_the_kept_are_counted() -> None:
    exchange = put([{}] * 1_500)
    assert (exchange.json["success"], exchange.json["failed"], len(exchange.json["errors"])) == (0, 1_500, 1_000)


# Bodies that hold no points.


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "Missing request content"),
        (b" \n", "Missing request content"),
        (b"7", "The JSON must start as an object or an array"),
        (b'"x"', "The JSON must start as an object or an array"),
        (b"[\n\n]\n", "No datapoints found in content"),
        (b'{"metric":', "Unable to parse the given JSON: Expecting value: line 1 column 11 (char 10)"),
        (b"\xff\xfe\xfd", "Unable to parse the given JSON: "),
        (b"[" * 100_000, "Unable to parse the given JSON: it is nested too deeply"),
        (b'{"x":"\xff"}', "Unable to parse the given JSON: "),
    ],
    ids=range(9),
)
def test_a_body_without_points_is_400(body: bytes, said: str) -> None:
    exchange = put(body)
    assert exchange.status == 400
    assert exchange.json["error"]["code"] == 400
    assert exchange.json["error"]["message"].startswith(said)


def test_a_gzip_body_is_inflated() -> None:
    tables = MemoryTables()
    exchange = put(gzip.compress(json.dumps(GOOD).encode()), tables=tables, headers={"content-encoding": "gzip"})
    assert exchange.status == 204
    assert "cpu" in tables.stored


def test_only_post_puts() -> None:
    exchange = Exchange("GET", "/api/put")
    run_virtual(lambda: exchange.run(TablesApp(MemoryTables().as_tables)))
    assert (exchange.status, exchange.json) == (405, {"error": {"code": 405, "message": "method not allowed"}})


@pytest.mark.parametrize("path", ["/api/v1/put", "/api/put/", "/api/v1/put/"])
def test_the_path_as_clients_write_it(path: str) -> None:
    tables = MemoryTables()
    raw = json.dumps(GOOD).encode()
    exchange = Exchange("POST", path, {"content-length": str(len(raw))}, body=raw)
    run_virtual(lambda: exchange.run(TablesApp(tables.as_tables)))
    assert exchange.status == 204


# What may be repeated.


@pytest.mark.parametrize(
    ("refusals", "status"),
    [
        ([refused(0, PointOutcome.LATER)], 503),
        ([refused(0, PointOutcome.LATER, Kind.OVERLOADED, "rate")], 429),
        ([refused(0, PointOutcome.PERSON), refused(1, PointOutcome.PERSON)], 503),
        ([refused(0, PointOutcome.PERSON)], 400),
        ([refused(0, PointOutcome.NEVER, Kind.REJECTED)], 400),
        ([refused(0, PointOutcome.NEVER, Kind.REJECTED), refused(1, PointOutcome.LATER)], 503),
    ],
)
def test_the_status_says_whether_a_repeat_is_of_use(refusals: list[PointRefusal], status: int) -> None:
    tables = MemoryTables(refused=refusals, retry_after_s=7.2)
    exchange = put([GOOD, {**GOOD, "timestamp": AT + 1}], tables=tables)
    assert exchange.status == status
    assert exchange.headers.get("retry-after") == (None if status == 400 else "8")
    found = exchange.json
    assert (found["success"], found["failed"]) == (2 - len(refusals), len(refusals))
    assert [error["error"] for error in found["errors"]] == [refusal.reason for refusal in refusals]
    assert found["error"]["code"] == status
    if status != 400:
        assert found["error"]["message"].startswith("reason of ")
        assert found["error"]["details"].startswith("Send it again after the seconds of Retry-After")


def test_a_store_that_is_away_is_told_before_the_body_is_read() -> None:
    down = Unavailable("metrics.db", Fault(Kind.EXHAUSTED, "ENOSPC", "no space left on the disk"), 3.0, 1.4)
    exchange = put(GOOD, tables=MemoryTables(down=down))
    assert (exchange.status, exchange.headers["retry-after"], exchange.asked) == (503, "2", 0)
    assert exchange.json["error"]["code"] == 503
    assert "no space left on the disk" in exchange.json["error"]["message"]


@pytest.mark.parametrize("error", [Unavailable("db", Fault(Kind.OVERLOADED, "line full", "it is full"), 0.0, 0.5), Stopping("x")])
def test_what_is_taken_at_the_last_moment_is_503(error: Exception) -> None:
    def fail() -> None:
        raise error

    exchange = put(GOOD, tables=MemoryTables(fails=fail))
    assert (exchange.status, exchange.json["error"]["code"]) == (503, 503)
