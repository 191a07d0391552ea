"""Writes over the three APIs of InfluxDB: parameters, outcomes, and the answers in the words of each."""

from __future__ import annotations

from typing import Any

import pytest
from standin import StandIn, refusal

from asgi_exchange import Exchange
from outlast import Fault, Kind, OutlastError, Stopping, Unavailable
from outlast.http import Token
from outlast.tables._model import PointOutcome
from outlast.testing import run_virtual

LATER, NEVER, PERSON = PointOutcome.LATER, PointOutcome.NEVER, PointOutcome.PERSON
V1, V2, V3 = "/write?db=m", "/api/v2/write?bucket=m&org=o", "/api/v3/write_lp?db=m"
THREE = pytest.mark.parametrize("target", [V1, V2, V3])


def post(tables: StandIn, target: str, body: bytes = b"cpu v=1", headers: dict[str, str] | None = None, **more: Any) -> Exchange:
    """Send a body to an application on `tables`, and return the exchange."""
    path, _, query = target.partition("?")
    token = {"outlast.token": Token("collector", frozenset({"write"}))}
    exchange = Exchange("POST", path, {"content-length": str(len(body)), **(headers or {})}, body=body, extensions=token)
    exchange.scope["query_string"] = query.encode()
    app = tables.app(**more)
    return run_virtual(lambda: exchange.run(app))


def said(exchange: Exchange) -> str:
    """The text of an error, wherever its API has it."""
    found = exchange.json
    assert exchange.headers["content-type"] == "application/json"
    return str(found["message"] if "code" in found else found["error"])


@THREE
def test_all_stored_is_204_without_a_body(target: str) -> None:
    exchange = post(StandIn(), target, b"cpu v=1\ncpu v=2\n")
    assert (exchange.status, exchange.body) == (204, b"")
    assert "content-length" not in exchange.headers
    assert exchange.headers["x-influxdb-version"] == "1.8.10"


# Parameters.

NS, US, MS, S, M, H = 1, 1_000, 1_000_000, 1_000_000_000, 60_000_000_000, 3_600_000_000_000
INVALID_2 = "invalid precision; valid precision units are ns, us, ms, and s"
INVALID_3 = (
    "invalid precision '%s'; valid precision units are auto, nanosecond, microsecond, millisecond, second, ns, n, us, u, ms, s"
)
UNITS: list[tuple[str, str | None, int | str | None]] = [
    *[
        (V1, precision, unit)
        for precision, unit in [(None, NS), ("", NS), ("n", NS), ("ns", NS), ("u", US), ("ms", MS), ("s", S)]
    ],
    *[(V1, precision, unit) for precision, unit in [("m", M), ("h", H)]],
    *[(V1, word, f'invalid precision "{word}" (use n, u, ms, s, m or h)') for word in ("us", "xx", "auto", "second", "S")],
    *[(V2, precision, unit) for precision, unit in [(None, NS), ("", NS), ("ns", NS), ("us", US), ("ms", MS), ("s", S)]],
    *[(V2, word, INVALID_2) for word in ("n", "u", "m", "h", "xx", "auto", "second")],
    *[(V3, precision, unit) for precision, unit in [(None, None), ("auto", None), ("ns", NS), ("n", NS), ("nanosecond", NS)]],
    *[(V3, precision, unit) for precision, unit in [("us", US), ("u", US), ("microsecond", US), ("ms", MS), ("millisecond", MS)]],
    *[(V3, precision, unit) for precision, unit in [("s", S), ("second", S)]],
    *[(V3, word, INVALID_3 % word) for word in ("m", "h", "xx", "nanoseconds")],
]
"""API, precision, and the nanoseconds of its unit (None: told from the size of a time), or the text of the refusal."""


@pytest.mark.parametrize(("target", "precision", "expected"), UNITS)
def test_each_api_has_the_units_of_its_original(target: str, precision: str | None, expected: int | str | None) -> None:
    tables = StandIn()
    exchange = post(tables, target if precision is None else f"{target}&precision={precision}")
    if isinstance(expected, str):
        assert (exchange.status, said(exchange)) == (400, expected)
        assert (tables.lines.units, exchange.asked) == ([], 0)
    else:
        assert (exchange.status, tables.lines.units) == (204, [expected])


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/write", {"error": "database is required"}),
        ("/write?db=", {"error": "database is required"}),
        ("/api/v2/write?org=o", {"code": "invalid", "message": "missing bucket value"}),
        ("/api/v3/write_lp?precision=s", {"error": "missing query parameter 'db'"}),
        ("/write?db=a&db=b", {"error": "the parameter 'db' came more than once"}),
        (f"{V2}&precision=s&precision=ms", {"code": "invalid", "message": "the parameter 'precision' came more than once"}),
        (f"{V3}&no_sync=true&no_sync=false", {"error": "the parameter 'no_sync' came more than once"}),
        (f"{V3}&no_sync=1", {"error": "serde error: provided string was not `true` or `false`: no_sync=1"}),
        (f"{V3}&accept_partial=", {"error": "serde error: provided string was not `true` or `false`: accept_partial="}),
        ("/write?db=%ff", {"error": "the parameters are no UTF-8, or more than 64"}),
        ("/write?db=m" + "&a=" * 64, {"error": "the parameters are no UTF-8, or more than 64"}),
    ],
)
def test_parameters_that_are_missing_or_mean_two_things_are_400_before_the_body_is_read(target: str, body: Any) -> None:
    exchange = post(StandIn(), target)
    assert (exchange.status, exchange.json, exchange.asked) == (400, body, 0)


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/write?db=other", {"error": 'database not found: "other"'}),
        ("/api/v2/write?bucket=other&org=o", {"code": "not found", "message": 'bucket "other" not found'}),
        ("/api/v3/write_lp?db=other", {"error": 'The following Database does not exist: "other"'}),
    ],
)
def test_where_databases_are_named_another_is_404_and_otherwise_every_name_is_taken(target: str, body: Any) -> None:
    exchange = post(StandIn(), target, databases=["m", "n"])
    assert (exchange.status, exchange.json, exchange.asked) == (404, body, 0)
    assert post(StandIn(), target).status == 204


@pytest.mark.parametrize("target", [V1, f"{V1}&rp=autogen&consistency=any", V2, "/api/v2/write?bucket=m/autogen", V3])
def test_a_named_database_is_taken_whatever_its_retention_policy(target: str) -> None:
    assert post(StandIn(), target, databases=["m"]).status == 204


def test_databases_without_a_name_and_bounds_that_cannot_be_are_no_settings() -> None:
    with pytest.raises(ValueError, match="a database without a name"):
        StandIn().app(databases=[""])
    with pytest.raises(ValueError, match="body_bytes_max is 1 or more, not 0"):
        StandIn().app(body_bytes_max=0)


@pytest.mark.parametrize(
    ("target", "status", "text"),
    [(V1, 204, ""), (V2, 400, "writing requires points"), (V3, 400, "incoming write was empty")],
)
def test_an_empty_body_is_what_it_is_to_the_original(target: str, status: int, text: str) -> None:
    exchange = post(StandIn(), target, b"")
    assert (exchange.status, said(exchange) if text else "") == (status, text)


def test_the_token_the_deadline_and_the_wishes_of_version_3_are_handed_on() -> None:
    tables = StandIn()
    post(tables, V1, headers={"x-request-timeout": "2.5"})
    post(tables, f"{V3}&no_sync=true&accept_partial=false")
    post(tables, f"{V3}&no_sync=false&accept_partial=true", headers={"x-request-timeout": "soon"})
    plain = {"client": "collector", "durable": True, "whole": False, "deadline_s": None}
    assert tables.asked == [{**plain, "deadline_s": 2.5}, {**plain, "durable": False, "whole": True}, plain]


def test_a_query_with_a_password_is_not_kept() -> None:
    from outlast.tables._http.influx import targets

    targets._kept.cache_clear()
    for target in (f"{V1}&u=a&p=secret", f"{V1}&%70=secret", V1, V1):
        assert post(StandIn(), target).status == 204
    assert (targets._kept.cache_info().currsize, targets._kept.cache_info().hits) == (1, 1)


# Outcomes.

MANY = b"cpu v=1\n" * 50 + b"bad\n" + b"cpu v=2\n" * 50


def test_one_bad_line_among_good_ones_is_400_with_its_number_and_the_number_of_those_dropped() -> None:
    exchange = post(StandIn(), V1, MANY)
    text = "partial write: line 51, column 4: no field dropped=1"
    assert (exchange.status, exchange.json) == (400, {"error": text})
    assert exchange.headers["x-influxdb-error"] == text
    exchange = post(StandIn(), V2, MANY)
    assert (exchange.status, exchange.json) == (400, {"code": "invalid", "message": text})
    assert exchange.headers["x-platform-error-code"] == "invalid"
    exchange = post(StandIn(), V3, MANY)
    line = {"line_number": 51, "original_line": "bad", "error_message": "line 51, column 4: no field"}
    assert (exchange.status, exchange.json) == (400, {"error": "partial write of line protocol occurred", "data": [line]})
    assert "retry-after" not in exchange.headers


def test_all_or_nothing_says_so_and_names_the_lines() -> None:
    tables = StandIn()
    exchange = post(tables, f"{V3}&accept_partial=false", MANY)
    line = {"line_number": 51, "original_line": "bad", "error_message": "line 51, column 4: no field"}
    assert (exchange.status, exchange.json) == (400, {"error": "parsing failed for write_lp endpoint", "data": [line]})


def test_the_first_reasons_are_said_and_the_rest_counted() -> None:
    exchange = post(StandIn(), V1, b"bad\n" * 7)
    reasons = "; ".join(f"line {number}, column 4: no field" for number in range(1, 6))
    assert exchange.json == {"error": f"partial write: {reasons} (and 2 more) dropped=7"}


def test_a_reason_without_a_line_gets_its_own() -> None:
    conflict = refusal(3, NEVER, Kind.REJECTED, "conflict", 'field "v" of "cpu" is a float, not a string')
    exchange = post(StandIn(refused=[conflict]), V1, b"cpu v=1\n" * 3)
    assert exchange.json == {"error": 'partial write: line 3: field "v" of "cpu" is a float, not a string dropped=1'}


@THREE
def test_a_header_with_an_error_has_no_line_ends_and_no_odd_characters(target: str) -> None:
    odd = refusal(1, NEVER, Kind.REJECTED, "conflict", "é\r\nset-cookie: a=b\x00")
    exchange = post(StandIn(refused=[odd]), target)
    assert exchange.status == 400
    for value in exchange.headers.values():
        assert value.isprintable()
        assert value.isascii()


AWAY = refusal(2, LATER, Kind.TRANSIENT, "57P01", "the server stops")
RATE = refusal(3, LATER, Kind.OVERLOADED, "rate", "600 new tables a minute are made")
FULL = refusal(3, LATER, Kind.OVERLOADED, "memory", "200,000 points wait")
VIEW = refusal(4, PERSON, Kind.PERMANENT, "name taken", '"cpu" is a view')


@pytest.mark.parametrize(
    ("refused", "status", "codes", "first"),
    [
        ([AWAY], 503, "unavailable", "line 2: the server stops"),
        ([RATE], 429, "too many requests", "line 3: 600 new tables a minute are made"),
        ([FULL], 503, "unavailable", "line 3: 200,000 points wait"),
        ([AWAY, RATE], 503, "unavailable", "line 2: the server stops; line 3: 600 new tables a minute are made"),
        ([VIEW, RATE], 429, "too many requests", 'line 3: 600 new tables a minute are made; line 4: "cpu" is a view'),
    ],
)
@THREE
def test_what_may_be_stored_later_is_503_or_429_with_its_first_cause(
    target: str, refused: list[Any], status: int, codes: str, first: str
) -> None:
    exchange = post(StandIn(refused=refused, retry_after_s=2.1), target, b"cpu v=1\n" * 5)
    assert (exchange.status, exchange.headers["retry-after"]) == (status, "3")
    text = f"partial write: {first} dropped={len(refused)}"
    assert exchange.json == ({"code": codes, "message": text} if target is V2 else {"error": text})


@THREE
def test_a_bad_line_beside_what_may_come_later_is_told_with_the_repeat(target: str) -> None:
    exchange = post(StandIn(refused=[AWAY], retry_after_s=0.0), target, b"bad\ncpu v=1\n")
    assert (exchange.status, exchange.headers["retry-after"]) == (503, "1")
    assert said(exchange) == "partial write: line 2: the server stops; line 1, column 4: no field dropped=2"


@THREE
def test_a_table_that_waits_for_a_person_does_not_hold_up_the_others(target: str) -> None:
    exchange = post(StandIn(refused=[VIEW], retry_after_s=30.0), target, b"cpu v=1\n" * 4)
    assert exchange.status == 400
    assert "retry-after" not in exchange.headers
    assert b"is a view" in exchange.body


@THREE
def test_and_alone_it_is_503_so_that_it_comes_again(target: str) -> None:
    exchange = post(StandIn(refused=[VIEW], retry_after_s=30.0), target)
    assert (exchange.status, exchange.headers["retry-after"]) == (503, "30")
    assert said(exchange) == 'partial write: line 4: "cpu" is a view dropped=1'


def test_all_or_nothing_with_a_line_that_is_wrong_is_400_whatever_else_may_come_later() -> None:
    exchange = post(StandIn(refused=[AWAY], retry_after_s=1.0), f"{V3}&accept_partial=false", b"bad\ncpu v=1\n")
    assert (exchange.status, exchange.json["error"]) == (400, "parsing failed for write_lp endpoint")
    assert [line["line_number"] for line in exchange.json["data"]] == [1, 2]
    exchange = post(StandIn(refused=[AWAY], retry_after_s=1.0), f"{V3}&accept_partial=false", b"cpu v=1\ncpu v=1\n")
    assert exchange.status == 503


# Nothing could be taken.

DOWN = Unavailable("metrics.db", Fault(Kind.EXHAUSTED, "SQLITE_FULL", "database or disk is full"), 3.0, 7.2)


@THREE
def test_a_store_that_is_away_is_told_from_memory_before_the_body_is_read(target: str) -> None:
    tables = StandIn(down=DOWN)
    exchange = post(tables, target)
    assert (exchange.status, exchange.headers["retry-after"], exchange.asked) == (503, "8", 0)
    text = "metrics.db is unavailable since 3.0 s: SQLITE_FULL database or disk is full (retry after 7.2 s)"
    assert exchange.json == ({"code": "unavailable", "message": text} if target is V2 else {"error": text})
    assert tables.asked == []


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (Unavailable("quota", Fault(Kind.OVERLOADED, "rate", "100 points/s"), 0.0, 2.0), 429, "100 points/s"),
        (Unavailable("line", Fault(Kind.OVERLOADED, "memory", "full"), 0.0, 2.0), 503, "full"),
        (Unavailable("db", Fault(Kind.FATAL, "bug", "secret"), 0.0, 2.0), 503, "db is unavailable"),
        (Stopping("the test is over"), 503, "stopping, retry elsewhere"),
    ],
)
@THREE
def test_what_is_raised_is_answered_in_the_same_shapes(target: str, error: Exception, status: int, text: str) -> None:
    exchange = post(StandIn(fails=error), target)
    assert exchange.status == status
    assert text in said(exchange)
    assert int(exchange.headers["retry-after"]) >= 1
    assert b"secret" not in exchange.body


@pytest.mark.parametrize("error", [ValueError("a bug"), OutlastError("x", Fault(Kind.BUG, "bug", "x"))])
def test_a_bug_is_raised_to_whoever_answers_and_logs_it(error: Exception) -> None:
    with pytest.raises(type(error)):
        post(StandIn(fails=error), V1)


# Bodies.


@pytest.mark.parametrize(
    ("target", "body"),
    [
        (V1, {"error": "%s"}),
        (V2, {"code": "request too large", "message": "%s"}),
        (V3, {"error": "%s"}),
    ],
)
def test_a_body_that_is_too_large_is_413_in_each_shape(target: str, body: dict[str, str]) -> None:
    text = "the body is larger than the 10 bytes that it may have, before or after inflating: send it in parts"
    exchange = post(StandIn(), target, b"cpu v=12345", body_bytes_max=10)
    assert (exchange.status, exchange.json) == (413, {key: value.replace("%s", text) for key, value in body.items()})
    assert post(StandIn(), target, b"cpu v=1234", body_bytes_max=10).status == 204


def test_a_large_body_is_parsed_beside_the_event_loop() -> None:
    tables = StandIn()
    for size in (256 * 1024, 256 * 1024 + 8):
        assert post(tables, V1, b"cpu v=1\n" * (size // 8)).status == 204
    assert tables.lines.threads == [True, False]


@THREE
def test_an_encoding_that_is_not_known_is_415(target: str) -> None:
    exchange = post(StandIn(), target, headers={"content-encoding": "br"})
    assert (exchange.status, exchange.asked) == (415, 0)
    assert said(exchange) == "unacceptable content-encoding: 'br': send the body as it is, or with gzip or deflate"


@THREE
def test_another_method_is_405_and_names_what_there_is(target: str) -> None:
    path = target.partition("?")[0]
    exchange = Exchange("GET", path)
    run_virtual(lambda: exchange.run(StandIn().app()))
    assert (exchange.status, exchange.headers["allow"], said(exchange)) == (405, "POST", "method not allowed")
