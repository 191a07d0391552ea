"""The requests that clients of InfluxDB make before they write, by GET, HEAD and POST; and the paths of nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
from standin import StandIn

from asgi_exchange import Exchange
from outlast import ConfigurationError, Fault, Kind, Service, Unavailable
from outlast.tables._http.influx import doors
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from outlast.tables._http.app import TablesApp

FORM = {"content-type": "application/x-www-form-urlencoded"}
CREATED = {"results": [{"statement_id": 0}]}


def ask(
    app: TablesApp, method: str, path: str, query: dict[str, str] | None = None, body: bytes | None = None, **headers: str
) -> Exchange:
    """Ask an application; names of headers have underscores here."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        sent["content-length"] = str(len(body))
    exchange = Exchange(method, path, sent, body=body or b"")
    exchange.scope["query_string"] = urlencode(query or {}).encode()
    return run_virtual(lambda: exchange.run(app))


def query(app: TablesApp, q: str, *, by: str = "GET", **more: str) -> Exchange:
    """Send a statement: in the query, or in a form."""
    if by == "form":
        return ask(app, "POST", "/query", body=urlencode({"q": q, **more}).encode(), content_type=FORM["content-type"])
    return ask(app, by, "/query", {"q": q, **more})


def shown(app: TablesApp, **more: str) -> list[str]:
    """The names of SHOW DATABASES."""
    (series,) = query(app, "SHOW DATABASES", **more).json["results"][0]["series"]
    assert (series["name"], series["columns"]) == ("databases", ["name"])
    return [name for (name,) in series.get("values", [])]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_ping_is_204_with_a_version_whatever_the_store_does(method: str) -> None:
    away = Unavailable("db", Fault(Kind.TRANSIENT, "x", "away"), 0.0, 1.0)
    for tables in (StandIn(), StandIn(down=away)):
        exchange = ask(tables.app(), method, "/ping")
        assert (exchange.status, exchange.body) == (204, b"")
        assert exchange.headers["x-influxdb-version"] == "1.8.10"
        assert exchange.headers["x-influxdb-build"] == "outlast"


def test_health_says_whether_points_can_be_stored_now() -> None:
    exchange = ask(StandIn().app(), "GET", "/health")
    assert exchange.status == 200
    assert exchange.json == {
        "name": "influxdb",
        "message": "ready for queries and writes",
        "status": "pass",
        "checks": [],
        "version": "1.8.10",
        "commit": "outlast",
    }
    away = Unavailable("metrics.db", Fault(Kind.TRANSIENT, "08006", "no route"), 2.0, 1.0)
    exchange = ask(StandIn(down=away).app(), "GET", "/health")
    assert (exchange.status, exchange.json["status"]) == (503, "fail")
    assert exchange.json["message"] == "metrics.db is unavailable since 2.0 s: 08006 no route (retry after 1.0 s)"
    head = ask(StandIn().app(), "HEAD", "/health")
    assert (head.status, head.body, int(head.headers["content-length"]) > 0) == (200, b"", True)


def test_ready() -> None:
    assert ask(StandIn().app(), "GET", "/ready").json == {"status": "ready"}


@pytest.mark.parametrize("by", ["GET", "POST", "form"])
@pytest.mark.parametrize(
    "statement",
    [
        "CREATE DATABASE m",
        'CREATE DATABASE "m"',
        'create database "m";',
        "CREATE DATABASE IF NOT EXISTS m",
        'CREATE DATABASE "m" WITH DURATION 30d REPLICATION 1 NAME "month"',
    ],
)
def test_a_database_is_created_by_get_and_by_post(statement: str, by: str) -> None:
    app = StandIn().app()
    exchange = query(app, statement, by=by)
    assert (exchange.status, exchange.json) == (200, CREATED)
    assert exchange.headers["content-type"] == "application/json"
    assert shown(app) == ["m"]


def test_a_quoted_name_is_what_it_means() -> None:
    app = StandIn().app()
    assert query(app, r'CREATE DATABASE "a \"b\" c;"').status == 400
    assert query(app, r'CREATE DATABASE "a \"b\" é"').json == CREATED
    assert shown(app) == ['a "b" é']


def test_databases_that_were_written_to_or_asked_with_are_shown() -> None:
    app = StandIn().app()
    assert shown(app) == []
    assert shown(app, db="glances") == ["glances"]
    ask(app, "POST", "/api/v2/write", {"bucket": "b"}, b"cpu v=1")
    assert shown(app, db="a") == ["a", "b"]


def test_names_are_remembered_in_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "NAMES_KEPT", 2)
    app = StandIn().app()
    for name in ("c", "a", "b", "a"):
        assert query(app, f"CREATE DATABASE {name}").status == 200
    assert shown(app) == ["a", "b"]


def test_where_databases_are_named_those_are_shown_and_no_other_is_created() -> None:
    app = StandIn().app(databases=["n", "m"])
    assert shown(app, db="other") == ["m", "n"]
    assert query(app, "CREATE DATABASE m").json == CREATED
    exchange = query(app, "CREATE DATABASE other")
    text = 'error authorizing query: "other" is none of the databases here, and none is created'
    assert (exchange.status, exchange.json) == (403, {"error": text})


def test_retention_policies_are_those_of_a_new_database() -> None:
    app = StandIn().app()
    columns = ["name", "duration", "shardGroupDuration", "replicaN", "default"]
    series = {"columns": columns, "values": [["autogen", "0s", "168h0m0s", 1, True]]}
    for statement in ("SHOW RETENTION POLICIES", 'SHOW RETENTION POLICIES ON "m"', "show retention policies on m"):
        assert query(app, statement).json == {"results": [{"statement_id": 0, "series": [series]}]}


def test_several_statements_have_a_result_each() -> None:
    exchange = query(StandIn().app(), "CREATE DATABASE a; SHOW DATABASES;")
    assert exchange.json["results"] == [
        {"statement_id": 0},
        {"statement_id": 1, "series": [{"name": "databases", "columns": ["name"], "values": [["a"]]}]},
    ]


ANSWERED = "is not answered here: CREATE DATABASE, SHOW DATABASES and SHOW RETENTION POLICIES are; read points with /api/query"


@pytest.mark.parametrize(
    ("q", "text"),
    [
        ("SELECT * FROM cpu", f"error parsing query: 'SELECT * FROM cpu' {ANSWERED}"),
        ("DROP DATABASE m", f"error parsing query: 'DROP DATABASE m' {ANSWERED}"),
        ("CREATE DATABASE", f"error parsing query: 'CREATE DATABASE' {ANSWERED}"),
        ("CREATE DATABASE a b", f"error parsing query: 'CREATE DATABASE a b' {ANSWERED}"),
        ("x" * 100, f"error parsing query: '{'x' * 60}…' {ANSWERED}"),
        ("", 'missing required parameter "q"'),
        (" ; ", 'missing required parameter "q"'),
        ("SHOW DATABASES;" * 17, "error parsing query: it has more than 16 statements"),
        ("x" * 4_097, "error parsing query: it has 4,097 characters, and 4,096 are read"),
    ],
)
def test_anything_else_is_400_with_what_is_answered(q: str, text: str) -> None:
    exchange = query(StandIn().app(), q)
    assert (exchange.status, exchange.json) == (400, {"error": text})


def test_a_form_has_a_bound_and_each_parameter_once() -> None:
    app = StandIn().app()
    large = b"q=SHOW+DATABASES&a=" + b"x" * (64 * 1024)
    assert ask(app, "POST", "/query", body=large, content_type=FORM["content-type"]).status == 413
    twice = ask(app, "POST", "/query", body=b"q=a&q=b", content_type=FORM["content-type"] + "; charset=utf-8")
    assert (twice.status, twice.json) == (400, {"error": "the parameter 'q' came more than once"})


@pytest.mark.parametrize("path", ["/", "/writes", "/api/v2/buckets", "/write/"])
def test_a_path_of_nobody_is_404_for_clients_of_any(path: str) -> None:
    exchange = ask(StandIn().app(), "GET", path)
    assert (exchange.status, exchange.json) == (
        404,
        {"code": "not found", "message": "path not found", "error": "path not found"},
    )


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/write", "write"),
        ("POST", "/api/v2/write", "write"),
        ("POST", "/api/v3/write_lp", "write"),
        ("GET", "/query", "write"),
        ("POST", "/query", "write"),
        ("GET", "/ping", None),
        ("HEAD", "/ping", None),
        ("GET", "/health", None),
        ("GET", "/ready", None),
        ("GET", "/livez", None),
        ("GET", "/nobody", "read"),
        ("POST", "/nobody", "write"),
    ],
)
def test_handshakes_need_no_token_and_that_of_a_writer_is_enough_for_the_rest(method: str, path: str, scope: str | None) -> None:
    assert StandIn().app().needed_scope(method, path) == scope


def test_answers_are_counted_by_status() -> None:
    app = StandIn().app()
    for path in ("/ping", "/ping", "/nobody", "/health"):
        ask(app, "GET", path)
    (figure,) = app.figures()
    assert (figure.name, figure.labels) == ("answers", ("status",))
    assert dict(figure.samples) == {("204",): 2.0, ("404",): 1.0, ("200",): 1.0}
    assert (app.health().state, app.lag(), app.acts()) == ("answering", None, [])


def test_a_bug_is_counted_too() -> None:
    app = StandIn(fails=RuntimeError("a bug")).app()
    with pytest.raises(RuntimeError, match="a bug"):
        ask(app, "POST", "/write", {"db": "m"}, b"cpu v=1")
    assert dict(app.figures()[0].samples) == {("500",): 1.0}


def test_it_belongs_to_one_service() -> None:
    app = StandIn().app()
    service = Service("metrics")
    assert app.attach(service) is app
    with pytest.raises(ConfigurationError, match="this application of tables is part of metrics already"):
        app.attach(service)


def test_it_speaks_http_alone() -> None:
    with pytest.raises(ValueError, match="tables are served over HTTP, and no websocket"):
        run_virtual(lambda: StandIn().app()({"type": "websocket"}, None, None))  # type: ignore[arg-type] # unused here


def test_a_client_that_leaves_in_the_middle_gets_no_answer() -> None:
    exchange = Exchange("POST", "/write", {"transfer-encoding": "chunked"})
    exchange.scope["query_string"] = b"db=m"
    exchange.leave()
    run_virtual(lambda: exchange.run(StandIn().app()))
    assert exchange.sent == []


def test_a_header_of_a_length_that_is_none_counts_as_too_large() -> None:
    exchange = Exchange("POST", "/write", {"content-length": "9" * 30})
    exchange.scope["query_string"] = b"db=m"
    run_virtual(lambda: exchange.run(StandIn().app()))
    assert exchange.status == 413
