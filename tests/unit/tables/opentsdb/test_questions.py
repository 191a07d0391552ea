"""What reads over HTTP: queries, names, series, ranges; with the requests that Grafana's OpenTSDB source makes."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from typing import Any

import pytest
from memory_tables import MemoryTables

from asgi_exchange import Exchange
from outlast import Fault, Kind, Unavailable
from outlast.http import problem_of
from outlast.tables._http.app import TablesApp
from outlast.tables._http.opentsdb.asked import BrokenOffError
from outlast.tables._query.bounds import QueryLimits
from outlast.tables._query.ranges import PIECE_BYTES

NO_TEXT = "a text has a NUL or half of a surrogate pair, and no name or value has; leave it out"
START = 1_600_000_000
AWAY = Unavailable("metrics.db", Fault(Kind.TRANSIENT, "57P01", "the server ends"), 1.0, 2.0)


def cpu() -> MemoryTables:
    tables = MemoryTables()
    tables.add("cpu", {"host": "a"}, {START: 1, START + 60: 2.5})
    tables.add("cpu", {"host": "b"}, {START: 10})
    tables.add("disk", {"host": "a", "disk": "sda"}, {START: {"reads": 1, "label": 'x,"y"\n', "ok": True}})
    tables.add("disk", {"host": "a", "disk": "sdb"}, {START + 0.5: {"writes": 2.5, "label": ""}})
    return tables


def asked(method: str, target: str, body: object = None, tables: MemoryTables | None = None) -> Exchange:
    path, _, query = target.partition("?")
    raw = b"" if body is None else (body if isinstance(body, bytes) else json.dumps(body).encode())
    exchange = Exchange(method, path, {"content-length": str(len(raw))}, body=raw)
    exchange.scope["query_string"] = query.encode()
    app = TablesApp((tables or cpu()).as_tables)
    return asyncio.run(exchange.run(app))


def get(target: str, tables: MemoryTables | None = None) -> Any:
    exchange = asked("GET", target, tables=tables)
    assert exchange.status == 200, exchange.body
    return exchange.json


def test_a_query_by_url() -> None:
    found = get(f"/api/query?start={START}&end={START + 60}&m=sum:cpu%7Bhost=*%7D&m=max:disk.reads&arrays")
    assert found == [
        {"metric": "cpu", "tags": {"host": "a"}, "aggregateTags": [], "dps": [[START, 1], [START + 60, 2.5]]},
        {"metric": "cpu", "tags": {"host": "b"}, "aggregateTags": [], "dps": [[START, 10]]},
        {"metric": "disk.reads", "tags": {"disk": "sda", "host": "a"}, "aggregateTags": [], "dps": [[START, 1]]},
    ]


@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        ("/api/query?start=1&m=sum:memory", 400, "No such name for 'metrics': 'memory'"),
        ("/api/query?m=sum:cpu", 400, "Missing start time"),
        ("/api/query?start=1&m=%ff", 400, "the parameters are no UTF-8, or more than 64"),
        ("/api/query?start=1" + "&m=sum:cpu" * 80, 400, "the parameters are no UTF-8, or more than 64"),
        ("/api/query?start=1&m=sum:a%00b", 400, NO_TEXT),
        ("/api/suggest?type=tagv&q=%00", 400, NO_TEXT),
        ("/api/search/lookup?m=%00", 400, NO_TEXT),
        ("/api/range?table=disk&tag.%00=a", 400, NO_TEXT),
        ("/api/suggest?type=x", 400, "Invalid 'type' parameter:x; there are metrics, tagk and tagv"),
        ("/api/suggest", 400, "Missing 'type' parameter; there are metrics, tagk and tagv"),
        ("/api/suggest?type=tagk&max=x", 400, "Unable to parse 'max' as a number: 'x'"),
        ("/api/search/lookup", 400, "Missing metric. Please supply one: m=METRIC{TAG=VALUE}"),
        ("/api/range", 400, "Missing table; write table=NAME"),
        ("/api/range?table=memory", 404, "there is no table 'memory'"),
        ("/api/range?table=disk&field=x", 400, "the table 'disk' has no field 'x'; it has label, ok, reads, writes"),
        ("/api/range?table=disk&format=xml", 400, "there is no format 'xml'; there are csv, json, jsonl"),
        (
            "/api/range?table=disk&tabel=x",
            400,
            "there is no parameter 'tabel'; there are end, field, format, start, table and tag.NAME",
        ),
        ("/api/range?table=disk&table=cpu", 400, "table is named 2 times; once is enough"),
        ("/api/range?table=disk&start=20&end=10", 400, "end=10 lies before start=20"),
    ],
)
def test_a_question_that_cannot_be_answered(target: str, status: int, said: str) -> None:
    exchange = asked("GET", target)
    assert (exchange.status, exchange.json) == (status, {"error": {"code": status, "message": said}})


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"7"])
def test_a_question_in_bad_json(body: bytes) -> None:
    exchange = asked("POST", "/api/query", body)
    assert exchange.status == 400
    assert exchange.json["error"]["message"] in {"Unable to parse the given JSON", "the body is a JSON object"}


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\0"])
@pytest.mark.parametrize("path", ["/api/query", "/api/suggest", "/api/search/lookup"])
def test_a_text_in_json_that_no_store_takes(path: str, text: str) -> None:
    members = {"start": 1, "queries": [{"aggregator": "sum", "metric": "cpu", "tags": {text: "a"}}], "type": "tagk", "q": text}
    exchange = asked("POST", path, {**members, "metric": "cpu", "tags": [{"key": "host", "value": text}]})
    assert (exchange.status, exchange.json["error"]["message"]) == (400, NO_TEXT)
    # An escape of another character is one like others.
    assert asked("POST", "/api/suggest", b'{"type": "tagk", "q": "\\u0068\\uD83D\\uDE42"}').json == []


def test_the_bounds_of_queries_are_those_of_the_application() -> None:
    exchange = Exchange("GET", "/api/query")
    exchange.scope["query_string"] = b"start=%d&m=sum:cpu" % START
    asyncio.run(exchange.run(TablesApp(cpu().as_tables, queries=QueryLimits(series_max=1))))
    assert (exchange.status, exchange.json["error"]["message"]) == (413, "the query has more than 1 series; name tags")


def test_a_look_up_finds_what_its_filters_let_in_however_many_come_before_it() -> None:
    tables = MemoryTables()
    for number in range(2_100):
        tables.add("cpu", {"host": f"h{number:04}"}, {START: 1})
    found = get("/api/search/lookup?m=cpu%7Bhost=*99%7D&limit=3", tables)
    assert [each["tags"]["host"] for each in found["results"]] == ["h0099", "h0199", "h0299"]
    found = get("/api/search/lookup?m=cpu%7Bhost=regexp(h2)%7D", tables)
    assert (found["totalResults"], found["results"][0]["tags"]["host"]) == (25, "h2000")


def test_a_look_up_through_too_many_series_is_refused() -> None:
    exchange = Exchange("GET", "/api/search/lookup")
    exchange.scope["query_string"] = b"m=cpu%7Bhost=regexp(x)%7D"
    tables = MemoryTables()
    for number in range(2_001):
        tables.add("cpu", {"host": f"h{number:04}"}, {START: 1})
    asyncio.run(exchange.run(TablesApp(tables.as_tables, queries=QueryLimits(series_max=1_500))))
    assert (exchange.status, exchange.json["error"]["message"]) == (413, "the query has more than 1500 series; name tags")


def test_a_store_that_is_away() -> None:
    exchange = asked("GET", f"/api/query?start={START}&m=sum:cpu", tables=_breaking(0))
    assert (exchange.status, exchange.headers["retry-after"]) == (503, "2")


# As Grafana asks.


def test_the_health_check_and_the_names_of_grafana() -> None:
    assert get("/api/suggest?type=metrics&q=cpu&max=1000") == ["cpu"]
    assert get("/api/suggest?type=metrics&q=&max=1000") == ["cpu", "disk.reads", "disk.writes"]
    assert get("/api/suggest?type=tagk&q=&max=1000") == ["disk", "host"]
    assert get("/api/suggest?type=tagv&q=s&max=1") == ["sda"]
    assert asked("POST", "/api/suggest", {"type": "tagk", "q": "h", "max": 5}).json == ["host"]
    assert set(get("/api/aggregators")) >= {"avg", "count", "dev", "max", "min", "none", "p95", "sum", "zimsum"}
    filters = get("/api/config/filters")
    assert sorted(filters) == [
        "iliteral_or", "iwildcard", "literal_or", "not_iliteral_or", "not_literal_or", "regexp", "wildcard",
    ]  # fmt: skip
    assert filters["wildcard"] == {
        "description": "The value fits, where * stands for any characters.",
        "examples": "host=wildcard(web*.example)",
    }
    assert get("/api/version")["version"] == "2.4.0"


def test_a_graph_of_grafana() -> None:
    """The body that its backend sends for one panel: times in milliseconds, downsampled, with a filter."""
    body = {
        "start": START * 1000 - 90_000,
        "end": START * 1000 + 90_000,
        "queries": [
            {
                "aggregator": "sum",
                "downsample": "1m-avg",
                "metric": "cpu",
                "filters": [{"filter": "*", "groupBy": True, "tagk": "host", "type": "wildcard"}],
                "rate": False,
            }
        ],
        "msResolution": False,
        "globalAnnotations": True,
        "showQuery": True,
    }
    exchange = asked("POST", "/api/query", body)
    minute = START - START % 60
    assert exchange.status == 200
    assert [(each["metric"], each["tags"], each["dps"], each["query"]["index"]) for each in exchange.json] == [
        ("cpu", {"host": "a"}, {str(minute): 1.0, str(minute + 60): 2.5}, 0),
        ("cpu", {"host": "b"}, {str(minute): 10.0}, 0),
    ]
    arrays = asked("POST", "/api/query?arrays=true", body).json
    assert arrays[0]["dps"] == [[minute, 1.0], [minute + 60, 2.5]]


def test_the_variables_of_grafana() -> None:
    found = get("/api/search/lookup?m=cpu&limit=1000")
    assert (found["type"], found["metric"], found["totalResults"]) == ("LOOKUP", "cpu", 2)
    assert [each["tags"] for each in found["results"]] == [{"host": "a"}, {"host": "b"}]
    found = get("/api/search/lookup?m=disk.reads%7Bdisk=*,host=a%7D&limit=1000")
    assert [each["tags"]["disk"] for each in found["results"]] == ["sda", "sdb"]
    found = get("/api/search/lookup?m=disk.reads%7Bhost=*,disk%7D&limit=1")
    assert (found["limit"], [each["tags"]["disk"] for each in found["results"]]) == (1, ["sda"])
    posted = {"metric": "disk.reads", "tags": [{"key": "disk", "value": "sdb"}], "limit": 5}
    assert [each["tags"] for each in asked("POST", "/api/search/lookup", posted).json["results"]] == [
        {"disk": "sdb", "host": "a"}
    ]


# Ranges.


def test_a_range_as_json() -> None:
    exchange = asked("GET", "/api/range?table=disk&tag.host=a")
    assert (exchange.status, exchange.headers["content-type"]) == (200, "application/json")
    assert exchange.json == [
        {"time_ns": START * 10**9, "tags": {"disk": "sda", "host": "a"}, "fields": {"reads": 1, "label": 'x,"y"\n', "ok": True}},
        {"time_ns": START * 10**9 + 500_000_000, "tags": {"disk": "sdb", "host": "a"}, "fields": {"writes": 2.5, "label": ""}},
    ]
    assert exchange.ended


def test_a_range_as_lines_of_json() -> None:
    exchange = asked("GET", "/api/range?table=disk&format=jsonl&field=writes&field=reads&tag.disk=sda&tag.disk=sdb")
    assert exchange.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["fields"] for line in exchange.body.splitlines()] == [{"reads": 1}, {"writes": 2.5}]


def test_a_range_as_csv() -> None:
    exchange = asked("GET", "/api/range?table=disk&format=csv")
    assert exchange.headers["content-type"] == "text/csv; charset=utf-8"
    assert exchange.body.decode() == (
        "time_ns,tags,label,ok,reads,writes\r\n"
        '1600000000000000000,"{""disk"":""sda"",""host"":""a""}","x,""y""\n",true,1,\r\n'
        # An empty text is not the same as none.
        '1600000000500000000,"{""disk"":""sdb"",""host"":""a""}","",,,2.5\r\n'
    )
    rows = list(csv.reader(io.StringIO(exchange.body.decode(), newline="")))
    assert rows[1][2] == 'x,"y"\n'


@pytest.mark.parametrize(("form", "wanted"), [("json", b"[]\n"), ("jsonl", b""), ("csv", b"time_ns,tags,value\r\n")])
def test_a_range_without_points(form: str, wanted: bytes) -> None:
    exchange = asked("GET", f"/api/range?table=cpu&start=1&end=2&format={form}")
    assert (exchange.status, exchange.body, exchange.ended) == (200, wanted, True)


def test_the_end_of_a_range_is_included() -> None:
    assert len(get(f"/api/range?table=cpu&start={START}&end={START}")) == 2
    assert len(get(f"/api/range?table=cpu&start={START + 1}&end={START + 60}")) == 1


def _many(count: int) -> MemoryTables:
    tables = MemoryTables()
    tables.add("cpu", {"host": "a"}, {START + number: number for number in range(count)})
    return tables


def _breaking(after: int) -> MemoryTables:
    tables = _many(5_000)
    tables.down, tables.breaks_after = AWAY, after
    return tables


@pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
def test_a_long_range_comes_in_pieces(form: str) -> None:
    exchange = asked("GET", f"/api/range?table=cpu&format={form}", tables=_many(5_000))
    pieces = [message["body"] for message in exchange.sent[1:]]
    assert len(pieces) > 3
    assert max(map(len, pieces)) < PIECE_BYTES + 1_000
    assert exchange.body.count(b"\n") == {"json": 5_000, "jsonl": 5_000, "csv": 5_001}[form]


def test_head_of_a_range_reads_no_more_than_its_first_piece() -> None:
    exchange = asked("HEAD", "/api/range?table=cpu&format=csv", tables=_breaking(4_000))
    assert (exchange.status, exchange.headers["content-type"], exchange.body) == (200, "text/csv; charset=utf-8", b"")


def test_a_range_that_fails_before_it_begins_has_its_status() -> None:
    exchange = asked("GET", "/api/range?table=cpu", tables=_breaking(0))
    assert (exchange.status, exchange.headers["retry-after"]) == (503, "2")


@pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
def test_a_range_that_breaks_off_cannot_be_taken_for_a_whole_one(form: str) -> None:
    exchange = Exchange("GET", "/api/range")
    exchange.scope["query_string"] = f"table=cpu&format={form}".encode()
    with pytest.raises(BrokenOffError, match=r"a range broke off: metrics\.db is unavailable") as caught:
        asyncio.run(exchange.run(TablesApp(_breaking(4_000).as_tables)))
    # No last message, so that the server cuts the connection; and what it says is the outage, which is no news of a bug.
    assert (exchange.status, exchange.ended) == (200, False)
    assert problem_of(caught.value).code == "57P01"
    if form == "json":
        with pytest.raises(json.JSONDecodeError):
            json.loads(exchange.body)


def test_what_reads_needs_the_scope_to_read() -> None:
    app = TablesApp(cpu().as_tables)
    needed = {path: app.needed_scope("POST", path) for path in ("/api/put", "/api/query", "/api/range", "/api/version")}
    assert needed == {"/api/put": "write", "/api/query": "read", "/api/range": "read", "/api/version": None}
