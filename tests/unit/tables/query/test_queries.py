"""Queries as a whole: from a URL or JSON to the answer of OpenTSDB, on tables in memory."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import pytest
from memory_tables import MemoryTables

from outlast import Unavailable
from outlast.tables._errors import InvalidQueryError
from outlast.tables._query.ask import Query, part_of_text, query_of_json, query_of_url
from outlast.tables._query.bounds import QueryLimits, QueryTooLargeError
from outlast.tables._query.metrics import metric_of, suggest_metrics
from outlast.tables._query.run import Queries, QueryDeadlineError
from outlast.testing import run_virtual

NOW_MS = 1_700_000_000_000
START = 1_600_000_000


def cpu() -> MemoryTables:
    tables = MemoryTables()
    tables.add("cpu", {"host": "a", "dc": "lax"}, {START: 1, START + 10: 2, START + 20: 3})
    tables.add("cpu", {"host": "b", "dc": "lax"}, {START: 10.5, START + 10: 20.5, START + 20: 30.5})
    tables.add("cpu", {"host": "c", "dc": "fra"}, {START + 10: 100})
    return tables


def of_url(text: str) -> Query:
    return query_of_url(parse_qs(text, keep_blank_values=True), NOW_MS, 20)


def answered(tables: MemoryTables, query: Query, **limits: Any) -> Any:
    async def main() -> Any:
        return json.loads(await Queries(tables.as_tables, QueryLimits(**limits)).answer(query))

    return asyncio.run(main())


def ask(m: str, *, more: str = "", tables: MemoryTables | None = None, **limits: Any) -> Any:
    return answered(tables or cpu(), of_url(f"start={START}&end={START + 60}&m={m}{more}"), **limits)


def test_one_series() -> None:
    assert ask("sum:cpu{host=a}") == [
        {
            "metric": "cpu",
            "tags": {"dc": "lax", "host": "a"},
            "aggregateTags": [],
            "dps": {str(START): 1, str(START + 10): 2, str(START + 20): 3},
        }
    ]


def test_all_series_become_one_and_their_tags_those_that_they_share() -> None:
    (found,) = ask("sum:cpu")
    assert found["dps"] == {str(START): 11.5, str(START + 10): 122.5, str(START + 20): 33.5}
    assert (found["tags"], found["aggregateTags"]) == ({}, ["dc", "host"])
    (found,) = ask("sum:cpu{}{dc=lax}")
    assert (found["tags"], found["aggregateTags"]) == ({"dc": "lax"}, ["host"])


def test_a_tag_that_only_some_have_is_not_shared() -> None:
    tables = MemoryTables()
    tables.add("cpu", {"host": "a"}, {START: 1})
    tables.add("cpu", {"host": "a", "core": "0"}, {START: 2})
    (found,) = ask("sum:cpu", tables=tables)
    assert (found["tags"], found["aggregateTags"], found["dps"]) == ({"host": "a"}, ["core"], {str(START): 3})


def test_filters_that_group_make_one_series_each() -> None:
    assert [(each["tags"], each["dps"][str(START + 10)]) for each in ask("sum:cpu{dc=*}")] == [
        ({"dc": "fra", "host": "c"}, 100),
        ({"dc": "lax"}, 22.5),
    ]
    assert [each["tags"]["host"] for each in ask("sum:cpu{host=a|b}")] == ["a", "b"]
    assert [each["aggregateTags"] for each in ask("sum:cpu{}{host=wildcard(*)}")] == [["dc", "host"]]


def test_none_leaves_every_series_alone() -> None:
    assert [each["tags"]["host"] for each in ask("none:cpu{}{dc=lax}")] == ["a", "b"]


def test_series_with_other_tags_may_be_left_out() -> None:
    tables = MemoryTables()
    tables.add("cpu", {"host": "a"}, {START: 1})
    tables.add("cpu", {"host": "a", "core": "0"}, {START: 2})
    (found,) = ask("sum:explicit_tags:cpu{host=a}", tables=tables)
    assert found["dps"] == {str(START): 1}


def test_the_store_is_asked_for_the_tags_and_the_time_that_are_needed() -> None:
    tables = cpu()
    answered(tables, of_url(f"start={START + 5}&end={START + 25}&m=sum:10s-avg:cpu{{host=a}}{{dc=wildcard(l*)}}"))
    answered(tables, of_url(f"start={START + 5}&end={START + 25}&m=sum:10s-avg-null:cpu"))
    answered(tables, of_url(f"start={START + 5}&end={START + 25}&m=none:cpu"))
    merged, filled, alone = tables.asked
    assert (merged.table, merged.fields, merged.tags) == ("cpu", ("value",), {"host": ("a",), "dc": ()})
    # Where series are merged, the whole hour, which began 1,600 s before; else the whole intervals, or the time itself.
    assert (merged.start_ns, merged.end_ns) == ((START - 1_600) * 10**9, (START + 2_000) * 10**9 - 1)
    assert (filled.start_ns, filled.end_ns) == ((START + 10) * 10**9, (START + 30) * 10**9 - 1)
    assert (alone.start_ns, alone.end_ns) == ((START + 5) * 10**9, (START + 25) * 10**9 + 999_999)


def test_a_rate_begins_with_the_first_point_if_there_is_one_before_it_in_its_hour() -> None:
    tables = MemoryTables()
    tables.add("cpu", {"host": "a"}, {START - 10: 5, START: 15, START + 10: 35})
    tables.add("old", {"host": "a"}, {START - 1_601: 5, START: 15, START + 10: 35})
    (found,) = ask("sum:rate:cpu", tables=tables)
    assert found["dps"] == {str(START): 1.0, str(START + 10): 2.0}
    (found,) = ask("sum:rate:old", tables=tables)
    assert found["dps"] == {str(START + 10): 2.0}


def test_a_merged_series_is_whole_at_its_edges() -> None:
    tables = MemoryTables()
    tables.add("cpu", {"host": "a"}, {START - 10: 0, START + 10: 20, START + 70: 80})
    tables.add("cpu", {"host": "b"}, {START: 100, START + 60: 100})
    (found,) = ask("sum:cpu", tables=tables)
    assert found["dps"] == {str(START): 110.0, str(START + 10): 120.0, str(START + 60): 170.0}
    # What zimsum leaves out is not looked for.
    (found,) = ask("zimsum:cpu", tables=tables)
    assert found["dps"] == {str(START): 100, str(START + 10): 20, str(START + 60): 100}


def test_an_interval_that_began_before_is_a_neighbour_and_no_answer() -> None:
    tables = MemoryTables()
    tables.add("cpu", {"host": "a"}, {START - 5: 10, START + 10: 30, START + 20: 50})
    (found,) = ask("sum:10s-avg:rate:cpu", tables=tables)
    # The interval at -10 with 10, that at 10 with 30, 20 s later.
    assert found["dps"] == {str(START + 10): 1.0, str(START + 20): 2.0}


def test_downsampling_rates_and_their_order() -> None:
    (found,) = ask("sum:20s-avg:rate:cpu{host=b}")
    # 15.5 in the first interval, which is whole, and 30.5 in the second: 15 in 20 s.
    assert found["dps"] == {str(START + 20): 0.75}
    (found,) = ask("sum:10s-count-zero:cpu{host=c}")
    assert list(found["dps"].values()) == [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_what_is_not_there_is_null_or_the_text_nan() -> None:
    (found,) = ask("sum:20s-avg-null:cpu{host=a}")
    assert list(found["dps"].values()) == [1.5, 3.0, None, None]
    (found,) = ask("sum:20s-avg-nan:cpu{host=a}")
    assert list(found["dps"].values()) == [1.5, 3.0, "NaN", "NaN"]


def test_numbers_without_an_end_are_no_json_so_they_are_texts() -> None:
    tables = MemoryTables()
    tables.add("big", {"host": "a"}, {START: 1.7e308})
    tables.add("big", {"host": "b"}, {START: 1.7e308})
    (found,) = ask("sum:big", tables=tables)
    assert found["dps"] == {str(START): "Infinity"}


def test_times_in_milliseconds_and_arrays() -> None:
    tables = MemoryTables()
    tables.add("cpu", {"host": "a"}, {START + 0.25: 1, START + 0.75: 2})
    assert ask("sum:cpu", tables=tables)[0]["dps"] == {str(START): 2}
    assert ask("sum:cpu", tables=tables, more="&ms")[0]["dps"] == {f"{START}250": 1, f"{START}750": 2}
    assert ask("sum:cpu", tables=tables, more="&ms&arrays")[0]["dps"] == [[START * 1000 + 250, 1], [START * 1000 + 750, 2]]


def test_parts_are_answered_in_their_order_and_the_question_may_be_told() -> None:
    found = ask("max:cpu", more="&m=min:cpu&m=max:cpu&show_query")
    assert [(each["query"]["index"], each["query"]["aggregator"]) for each in found] == [(0, "max"), (1, "min")]


def test_a_metric_without_points_in_the_time_is_no_series() -> None:
    assert answered(cpu(), of_url("start=1&end=2&m=sum:cpu")) == []
    # Not one whole interval begins in this time.
    assert answered(cpu(), of_url(f"start={START + 1}&end={START + 2}&m=sum:10s-avg:cpu")) == []


# As JSON.


def of_json(**members: Any) -> Query:
    return query_of_json(members, {}, NOW_MS, 20)


def test_the_same_in_json() -> None:
    part = {
        "aggregator": "sum",
        "metric": "cpu",
        "rate": True,
        "rateOptions": {"counter": True, "counterMax": 255, "resetValue": 1, "dropResets": True},
        "downsample": "10s-avg-zero",
        "filters": [{"type": "wildcard", "tagk": "dc", "filter": "l*", "groupBy": False}],
        "tags": {"host": "a"},
        "explicitTags": True,
    }
    query = of_json(start=START, end=str(START + 60), queries=[part], msResolution=True, showQuery=True)
    (found,) = query.parts
    assert (query.start_ms, query.end_ms, query.in_ms, query.show_query) == (START * 1000, (START + 60) * 1000, True, True)
    assert (found.metric, found.aggregator.name, found.explicit_tags) == ("cpu", "sum", True)
    assert [(each.tag, each.type, each.group_by) for each in found.filters] == [
        ("dc", "wildcard", False),
        ("host", "literal_or", True),
    ]
    rate = found.rate
    assert rate is not None
    assert (rate.counter, rate.counter_max, rate.reset_value, rate.drop_resets) == (True, 255, 1, True)
    assert found.shown == part


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({}, "^Missing queries$"),
        ({"queries": [{"aggregator": "sum", "metric": "cpu"}]}, "^Missing start time$"),
        ({"queries": {}, "start": 1}, "^Missing queries$"),
        ({"queries": "x", "start": 1}, "^queries is an array$"),
        ({"queries": [7], "start": 1}, "^each of queries is an object with aggregator and metric$"),
        ({"queries": [{"metric": "cpu"}], "start": 1}, "^the aggregator is a text, not 'None'$"),
        ({"queries": [{"aggregator": "sum"}], "start": 1}, "^the metric is a text, not 'None'$"),
        ({"queries": [{"aggregator": "sum", "tsuids": ["00"]}], "start": 1}, "^tsuids are not offered; name the metric"),
        ({"queries": [{"aggregator": "sum", "metric": "m", "tags": []}], "start": 1}, None),
        ({"queries": [{"aggregator": "sum", "metric": "m", "tags": [1]}], "start": 1}, "^the tags of a query are an object"),
        ({"queries": [{"aggregator": "sum", "metric": "m", "tags": {"h": 7}}], "start": 1}, "^the tag 'h' is a text, not '7'$"),
        ({"queries": [{"aggregator": "sum", "metric": "m", "filters": [7]}], "start": 1}, "^each of filters is an object"),
        ({"queries": [{"aggregator": "sum", "metric": "m", "filters": [{}]}], "start": 1}, "^tagk is a text, not 'None'$"),
        (
            {"queries": [{"aggregator": "sum", "metric": "m", "rate": True, "rateOptions": {"counterMax": 1e300}}], "start": 1},
            "^counterMax is a number of 64 bits, not 1e.300$",
        ),
        ({"queries": [{"aggregator": "sum", "metric": "m", "rate": True, "rateOptions": 7}], "start": 1}, "^rateOptions is an"),
        ({"queries": [{"aggregator": "sum", "metric": "m", "downsample": 7}], "start": 1}, "^downsample is a text, not '7'$"),
        ({"queries": [{"aggregator": "sum", "metric": "m"}], "start": True}, "^start is a text or a whole number, not 'True'$"),
        ({"queries": [{"aggregator": "sum", "metric": "m"}], "start": 20, "end": 10}, r"^End time \[10000\] must be greater"),
        (
            {"queries": [{"aggregator": "sum", "metric": "m"}], "start": 1, "delete": True},
            "^Deleting data is not enabled; a",
        ),
        ({"queries": [{"aggregator": "sum", "metric": "m"}], "start": 1, "useCalendar": True}, "^useCalendar is not offered; an"),
        ({"queries": [{"aggregator": "sum", "metric": "m"}], "start": 1, "timezone": "X"}, "^times are in UTC; the timezone 'X'"),
        ({"queries": [{"aggregator": "sum", "metric": "m"}] * 21, "start": 1}, "^a query has at most 20 parts, not 21; ask"),
    ],
)
def test_a_question_that_is_none(members: Mapping[str, Any], said: str | None) -> None:
    if said is None:
        assert query_of_json(members, {}, NOW_MS, 20).parts[0].filters == ()
        return
    with pytest.raises(InvalidQueryError, match=said):
        query_of_json(members, {}, NOW_MS, 20)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cpu", r"^Invalid parameter m=cpu \(1 parts between colons\); write m=AGGREGATOR:"),
        ("sum:cpu{host=a", r"^Missing '}' at the end of: cpu\{host=a$"),
        ("sum:cpu{host}", r"^invalid tag: host; write m="),
        ("sum:cpu{a=1}{b=2}{c=3}", "has more than two pairs of braces"),
        ("sum:pre-agg:cpu", r"has a part 'pre-agg' that is not offered; write m="),
        ("middle:cpu", "^No such aggregation function: middle"),
        ("sum:{host=a}", "^Missing the metric$"),
        (f"sum:rate{{counter,{'9' * 400}}}:cpu", "has a maximum or a reset value that is no number of 64 bits; write rate, "),
        ("sum:rate{counter,1_0}:cpu", "has a maximum or a reset value that is no number of 64 bits"),
        ("sum:rate{counter,5,9223372036854775808}:cpu", "has a maximum or a reset value that is no number of 64 bits"),
    ],
)
def test_a_part_that_is_none(text: str, said: str) -> None:
    with pytest.raises(InvalidQueryError, match=said):
        part_of_text(text)


def test_colons_and_commas_in_brackets_divide_nothing() -> None:
    part = part_of_text("sum:rate{counter,,5}:cpu{host=regexp(^(?:a|b)$),dc=x:y}")
    assert [(each.tag, each.text) for each in part.filters] == [("host", "^(?:a|b)$"), ("dc", "x:y")]
    assert part.rate is not None
    assert part.rate.reset_value == 5


def test_a_url_without_parts_or_by_tsuid() -> None:
    with pytest.raises(InvalidQueryError, match=r"^Missing sub queries; write m="):
        of_url("start=1")
    with pytest.raises(InvalidQueryError, match=r"^times are in UTC; the timezone 'CET' is not offered$"):
        of_url("start=1&m=sum:cpu&tz=CET")
    with pytest.raises(InvalidQueryError, match=r"^tsuid is not offered; write m="):
        of_url("start=1&tsuid=sum:00")


# Metrics.


def with_fields() -> MemoryTables:
    tables = MemoryTables()
    tables.add("cpu", {"host": "a"}, {START: {"value": 1, "user": 2.5}})
    tables.add("disk.io", {"host": "a"}, {START: {"reads": 1, "writes": 2, "name": "sda"}})
    tables.add("load", {"host": "a"}, {START: {"one": 0.5, "host_name": "a"}})
    tables.add("disk", {"host": "a"}, {START: {"io.reads": 7}})
    tables.add("notes", {"host": "a"}, {START: {"text": "x"}})
    return tables


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("cpu", ("cpu", "value")),
        ("cpu.user", ("cpu", "user")),
        ("cpu.value", ("cpu", "value")),
        ("load", ("load", "one")),
        ("disk.io.writes", ("disk.io", "writes")),
        # Of two readings the one with the longer table.
        ("disk.io.reads", ("disk.io", "reads")),
        ("disk", ("disk", "io.reads")),
    ],
)
def test_a_metric_is_a_field_of_a_table(name: str, wanted: tuple[str, str]) -> None:
    assert asyncio.run(metric_of(with_fields().as_tables, name)) == wanted


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("memory", r"^No such name for 'metrics': 'memory'$"),
        (
            "disk.io",
            r"^the table 'disk.io' has no number that 'disk.io' could be; its metrics are disk.io.reads, disk.io.writes$",
        ),
        ("cpu.idle", r"^the table 'cpu' has no number that 'cpu.idle' could be; its metrics are cpu.user, cpu.value$"),
        ("notes", r"its metrics are none, for it has no numeric field$"),
        ("." * 100, r"^No such name"),
    ],
)
def test_a_metric_that_there_is_not(name: str, said: str) -> None:
    with pytest.raises(InvalidQueryError, match=said):
        asyncio.run(metric_of(with_fields().as_tables, name))


def test_every_suggested_metric_can_be_asked_for() -> None:
    tables = with_fields().as_tables

    async def main() -> list[str]:
        names = await suggest_metrics(tables, "", 25)
        assert [await metric_of(tables, name) for name in names]
        return names

    assert asyncio.run(main()) == ["cpu", "disk", "disk.io.reads", "disk.io.writes", "load"]


@pytest.mark.parametrize(
    ("prefix", "count", "wanted"),
    [
        ("cpu", 25, ["cpu"]),
        ("d", 25, ["disk", "disk.io.reads", "disk.io.writes"]),
        ("disk.io.w", 25, ["disk.io.writes"]),
        ("", 2, ["cpu", "disk"]),
        ("x", 25, []),
    ],
)
def test_names_that_begin_in_a_way(prefix: str, count: int, wanted: list[str]) -> None:
    assert asyncio.run(suggest_metrics(with_fields().as_tables, prefix, count)) == wanted


def test_many_tables_are_looked_through() -> None:
    tables = MemoryTables()
    for number in range(450):
        tables.add(f"m{number:03}", {"host": "a"}, {START: 1})
    found = asyncio.run(suggest_metrics(tables.as_tables, "m", 1_000))
    assert found == [f"m{number:03}" for number in range(450)]


# Bounds.


@pytest.mark.parametrize(
    ("limits", "m", "said"),
    [
        ({"points_max": 6}, "sum:cpu", r"^the query has more than 6 points; ask for a shorter time, name tags, or downsample"),
        ({"points_max": 7}, "sum:cpu", None),
        ({"series_max": 2}, "sum:cpu", r"^the query has more than 2 series; name tags$"),
        # Three series of 61 seconds each, empty or not.
        ({"points_max": 182}, "sum:1s-avg-null:cpu", r"^the query has more than 182 points"),
        ({"points_max": 183}, "sum:1s-avg-null:cpu", None),
        ({"steps_max": 8}, "sum:cpu", r"takes 9 values, the limit is 8"),
    ],
)
def test_a_query_beyond_its_bounds_is_refused(limits: dict[str, int], m: str, said: str | None) -> None:
    if said is None:
        assert ask(m, **limits)
        return
    with pytest.raises(QueryTooLargeError, match=said) as caught:
        ask(m, **limits)
    assert caught.value.code == "too large"


def test_the_bounds_are_those_of_all_parts_together() -> None:
    with pytest.raises(QueryTooLargeError, match="more than 7 points"):
        ask("sum:cpu", more="&m=max:cpu", points_max=7)


def test_a_bound_is_above_zero() -> None:
    with pytest.raises(ValueError, match=r"^series_max must be above 0, not 0$"):
        QueryLimits(series_max=0)


class StuckTables(MemoryTables):
    """Tables that never answer."""

    async def table(self, name: str) -> None:
        await asyncio.Event().wait()


def test_a_query_that_takes_too_long_ends() -> None:
    async def main() -> None:
        queries = Queries(StuckTables().as_tables, QueryLimits(deadline_s=5.0, queries_max=1))
        first = asyncio.create_task(queries.answer(of_url("start=1&m=sum:cpu")))
        with pytest.raises(QueryDeadlineError, match=r"^the query took more than 5 s; ask for a shorter time, name tags, or"):
            await first
        # Of two at once the second waits for its turn, and gets none.
        busy = [asyncio.create_task(queries.answer(of_url("start=1&m=sum:cpu"))) for _ in range(2)]
        outcomes = await asyncio.gather(*busy, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [QueryDeadlineError, Unavailable]
        assert "1 queries are worked on already" in str(outcomes[1])

    run_virtual(main)
