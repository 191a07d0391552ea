"""`outlast tables serve`: tables for collectors, over HTTP and by telnet's put, as this process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Unpack

import click

from outlast import Admission, Service, run
from outlast._cli.output import as_json_option
from outlast._cli.serving import Clients, announce, client_options, served, server_of, tokens_of
from outlast._cli.tables.change import Kept
from outlast._cli.tables.group import store_option
from outlast._cli.up import early_signals, process_options
from outlast._cli.values import Address, Duration
from outlast.tables import TableLimits

if TYPE_CHECKING:
    from outlast._cli.store import StorePlace

    Command = Any

TOKENS_VARIABLE: Final = "OUTLAST_TABLES_TOKENS"
ADDRESS: Final = "127.0.0.1:8086"
"""The port of InfluxDB, which its clients have by default."""
PUT: Final = "127.0.0.1:4242"
"""The port of OpenTSDB."""
SCHEMES: Final = ("bearer", "token", "basic", "query")
"""The ways in which the clients of InfluxDB and OpenTSDB show a token."""
DATA_SCHEMA: Final = "metrics"
LIMITS: Final = TableLimits()


class Chosen(Clients):
    """The options of a server, as `outlast.http` and `outlast.tables` want them."""

    put: str | None
    databases: tuple[str, ...]
    data_schema: str
    journal: Path | None
    retention: float | None
    tables_max: int
    fields_max: int
    tag_values_max: int
    tables_per_minute: float
    fields_per_minute: float
    points_per_s: float | None
    points_max: int
    future: float | None


class Put(Address):
    """An address to listen on, or `none`."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the address; empty for `none`."""
        return "" if str(value) in {"", "none"} else super().convert(value, param, ctx)


def add_to(tables: click.Group) -> None:
    """Add the command."""
    tables.add_command(serve)


def _count(name: str, default: int, text: str) -> Any:  # noqa: ANN401 - a decorator of click
    return click.option(name, type=click.IntRange(1), default=default, show_default=True, help=text)


def _rate(name: str, default: float | None, text: str) -> Any:  # noqa: ANN401 - a decorator of click
    return click.option(
        name, type=click.FloatRange(0, min_open=True), default=default, show_default=default is not None, help=text
    )


def _of_the_new(command: Command) -> Command:
    """Add what bounds what writers may make."""
    for option in (
        click.option("--future", type=Duration(), help="Refuse points that are further ahead of the clock than this."),
        _count("--points-max", LIMITS.points_max, "Points that wait to be written; a body beyond them is told to come again."),
        _rate("--points-per-s", None, "Points of one token; a body beyond them is told to come again. By default no quota."),
        _rate("--fields-per-minute", LIMITS.fields_per_minute, "New fields of all tables; a point beyond them is told so."),
        _rate("--tables-per-minute", LIMITS.tables_per_minute, "New tables; a point beyond them is told to come again."),
        _count("--tag-values-max", LIMITS.tag_values_max, "Values of one tag of one table; a point of one more is refused."),
        _count("--fields-max", LIMITS.fields_max, "Fields of a table; a point with one more is refused."),
        _count("--tables-max", LIMITS.tables_max, "Tables; a point of one more is refused."),
        click.option(
            "--retention", type=Kept(), default="forever", show_default=True, help="New tables keep points for so long, as 30d."
        ),
    ):
        command = option(command)
    return command


@click.command()
@client_options(ADDRESS, "writers and readers over HTTP", TOKENS_VARIABLE)
@click.option(
    "--put",
    type=Put(),
    default=PUT,
    show_default=True,
    metavar="ADDRESS",
    help="HOST:PORT of the put of OpenTSDB by telnet, which knows no tokens; none has none.",
)
@click.option("--database", "databases", multiple=True, help="Only this db or bucket (repeatable); by default any is taken.")
@click.option(
    "--data-schema", default=DATA_SCHEMA, show_default=True, help="The schema of the tables themselves, in a PostgreSQL."
)
@click.option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where a table that was made is noted while the store is away; by default beside the file. Each server needs its own.",
)
@_of_the_new
@process_options
@as_json_option
@store_option
def serve(
    place: StorePlace,
    *,
    admin: str | None,
    report: Path | None,
    fold_logs: bool,
    log_format: str | None,
    as_json: bool,
    **chosen: Unpack[Chosen],
) -> int:
    """Take in metrics, by the protocols of InfluxDB (1, 2 and 3) and OpenTSDB, and serve them.

    It runs until SIGTERM or SIGINT. Tables and fields are made with the first points that have them. STORE is made if it is a
    file that is not there. Once it serves, one line on stdout says where; with --json it is an object with url, port, put and
    pid. Logs go to stderr.

    With tokens, a writer needs the scope write and a reader the scope read; the put by telnet knows none, and then listens on
    loopback only, unless --open-to-all is given.

    Example: outlast tables serve

    outlast tables serve --store postgresql://localhost/metrics --listen 0.0.0.0:8086 --tokens tokens --retention 30d

    Exits with 0 after a clean stop, 64 for bad usage, 70 after too many bugs, 74 after a fatal fault, 75 when something did not
    finish, 78 for what cannot be loaded or listened on.
    """
    with early_signals(), served("tables"):
        service = _service(place, as_json=as_json, chosen=chosen)
        return run(service, listen=admin, report=report, fold_logs=fold_logs, log_format=log_format)


def _service(place: StorePlace, *, as_json: bool, chosen: Chosen) -> Service:
    """Return the service: the tables, and in front of them the application with its server, and the put by telnet."""
    from outlast.tables import Tables, TablesApp

    service = Service("tables", deadline_s=chosen["stop_within"])
    tables = Tables(
        place.open(make=True),
        limits=_limits(chosen),
        retention_s=chosen["retention"],
        schema=place.schema,
        data_schema=chosen["data_schema"],
        journal_path=chosen["journal"],
    )
    tables.attach(service)
    app = TablesApp(tables, databases=chosen["databases"] or None, body_bytes_max=chosen["body_size"]).attach(service)
    admission = Admission("tables")
    admission.attach(service)
    tokens = tokens_of(chosen["tokens"], TOKENS_VARIABLE, app.needed_scope, schemes=SCHEMES)
    server = server_of(app, chosen, tokens=tokens, admission=admission).attach(service)
    put = None
    if chosen["put"]:
        from outlast.tables import PutServer

        put = PutServer(tables, chosen["put"], open_to_all=chosen["open_to_all"]).attach(service)

    def said() -> tuple[dict[str, Any], str]:
        text = f"tables of {place} on {server.url}"
        if put is None:
            return {"url": server.url, "port": server.port, "put": None}, text
        return {"url": server.url, "port": server.port, "put": put.port}, f"{text}, put on {put.address}"

    announce(service, said, as_json=as_json)
    return service


def _limits(chosen: Chosen) -> TableLimits:
    return TableLimits(
        tables_max=chosen["tables_max"],
        fields_max=chosen["fields_max"],
        tag_values_max=chosen["tag_values_max"],
        tables_per_minute=chosen["tables_per_minute"],
        fields_per_minute=chosen["fields_per_minute"],
        points_per_s=chosen["points_per_s"],
        points_max=chosen["points_max"],
        future_s=chosen["future"],
    )
