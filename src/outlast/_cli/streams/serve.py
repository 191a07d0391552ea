"""`outlast streams serve`: the streams of one or several folders over HTTP, as this process."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack

import click

from outlast import ConfigurationError, Service, Stop, run
from outlast._cli.errors import SHOW_S, CommandError, Exit
from outlast._cli.streams.group import LOCK_NAME, as_json_option, explained, holder_of
from outlast._cli.up import early_signals, process_options
from outlast._cli.values import Address, Duration, Size
from outlast.extend import OwnThread
from outlast.logs._last_words import bounded

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast.http import Server, Tokens
    from outlast.streams import StreamOptions

TOKENS_VARIABLE: Final = "OUTLAST_STREAMS_TOKENS"
ADDRESS: Final = "127.0.0.1:4437"
HEALTH: Final = frozenset({"/livez", "/readyz"})
LOOKS: Final = frozenset({"GET", "HEAD"})


class Chosen(TypedDict):
    """The options of a server, as `outlast.http` and `outlast.streams` want them."""

    listen: str
    tokens: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    open_to_all: bool
    connections: int
    connections_per_client: int
    body_size: int
    streams: int
    retention_age: float | None
    retention_size: int | None
    retention_when_low: bool
    retention_floor: float
    quota: int | None
    sync_every: float
    long_poll: float
    stop_within: float


def add_to(streams: click.Group) -> None:
    """Add the command."""
    streams.add_command(serve)


def _of_clients(command: Callable[..., int]) -> Callable[..., int]:
    """Add what decides who comes in, and how much one may send."""
    for option in (
        click.option("--streams", type=click.IntRange(1), default=100_000, show_default=True, help="Streams at most."),
        click.option("--body-size", type=Size(), default="16M", show_default=True, help="The largest body of a request."),
        click.option(
            "--connections-per-client", type=click.IntRange(1), default=1000, show_default=True, help="… of one address."
        ),
        click.option("--connections", type=click.IntRange(1), default=4000, show_default=True, help="Open connections at most …"),
        click.option("--open-to-all", is_flag=True, help="Listen beyond loopback without tokens and without TLS."),
        click.option("--tls-key", type=_file(), help="Its key, as PEM."),
        click.option("--tls-cert", type=_file(), help="Speak TLS with this certificate, as PEM."),
        click.option(
            "--tokens",
            type=_file(),
            help=f"Let in who has one of these tokens: lines of NAME SCOPE[,SCOPE] SECRET. Without, from ${TOKENS_VARIABLE}.",
        ),
    ):
        command = option(command)
    return command


def _of_new_streams(command: Callable[..., int]) -> Callable[..., int]:
    """Add how streams are kept that clients make."""
    for option in (
        click.option(
            "--sync-every",
            type=Duration(),
            default="0s",
            show_default=True,
            help="New streams: sync at intervals; 0 syncs before each answer.",
        ),
        click.option("--quota", type=Size(), help="New streams: the most that one may take on the disk."),
        click.option(
            "--retention-floor",
            type=Duration(),
            default="1h",
            show_default=True,
            help="New streams: nothing younger than this ever goes.",
        ),
        click.option("--retention-when-low", is_flag=True, help="New streams: let go of the oldest when the disk is low."),
        click.option("--retention-size", type=Size(), help="New streams: let go of the oldest above this size."),
        click.option("--retention-age", type=Duration(), help="New streams: let go of what is older than this, such as 168h."),
    ):
        command = option(command)
    return command


def _file() -> click.Path:
    return click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--listen",
    type=Address(),
    default=ADDRESS,
    show_default=True,
    metavar="ADDRESS",
    help="HOST:PORT of the streams; port 0 takes a free one.",
)
@click.option(
    "--admin",
    type=Address(),
    metavar="ADDRESS",
    help="Answer /livez, /readyz, /statusz and /metrics on HOST:PORT; PORT alone is on loopback.",
)
@_of_clients
@_of_new_streams
@click.option("--long-poll", type=Duration(), default="25s", show_default=True, help="The longest wait of a long poll.")
@click.option("--stop-within", type=Duration(), default="10s", show_default=True, help="The time that a stop may take.")
@process_options
@as_json_option
def serve(
    folders: tuple[Path, ...],
    *,
    admin: str | None,
    report: Path | None,
    fold_logs: bool,
    log_format: str | None,
    as_json: bool,
    **chosen: Unpack[Chosen],
) -> int:
    """Serve the streams in each FOLDER over HTTP.

    It runs until SIGTERM or SIGINT. The Durable Streams protocol is below /v1/stream/; lists, consumers, trim and verify are
    below /v1/streams: see docs/streams_node.md. Each FOLDER must be there, and is best on a disk of its own. Once it serves, one
    line on stdout says where; with --json it is an object with url, port and pid. Logs go to stderr.

    With tokens, GET and HEAD need the scope read, everything else write.

    Example: outlast streams serve ./data

    outlast streams serve /disk1/shop /disk2/shop --listen 0.0.0.0:4437 --tokens tokens --retention-age 168h

    Exits with 0 after a clean stop, 64 for bad usage, 66 when a FOLDER is not there, 69 when another process has it, 70 after
    too many bugs, 74 after a fatal fault, 75 when something did not finish, 78 for what cannot be loaded or listened on.
    """
    for folder in folders:
        with explained("serve the streams in", folder):
            folder.stat()
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise click.UsageError("A FOLDER is named twice; a second one is another disk.")
    with early_signals():
        try:
            service = _service(folders, as_json=as_json, chosen=chosen)
            return run(service, listen=admin, report=report, fold_logs=fold_logs, log_format=log_format)
        except ConfigurationError as error:
            raise _refused(folders, error) from error
        except ImportError as error:
            raise CommandError(f"cannot serve streams: {error}", Exit.CONFIGURATION) from error
        except ValueError as error:
            raise CommandError(f"cannot serve streams: {error}", Exit.USAGE) from error


def _service(folders: tuple[Path, ...], *, as_json: bool, chosen: Chosen) -> Service:
    """Return the service: the store, the node, and the server in front of it."""
    from outlast.http import Limits, Server, Tls
    from outlast.streams import Node, Streams

    cert, key = chosen["tls_cert"], chosen["tls_key"]
    if (cert is None) != (key is None):
        raise click.UsageError("--tls-cert and --tls-key come together.")
    limits = Limits(
        connections_max=chosen["connections"],
        connections_per_client_max=chosen["connections_per_client"],
        body_bytes_max=chosen["body_size"],
    )
    service = Service("streams", deadline_s=chosen["stop_within"])
    streams = Streams(folders, streams_max=chosen["streams"])
    streams.attach(service)
    node = Node(streams, options=_options(chosen), long_poll_s=chosen["long_poll"], body_bytes_max=chosen["body_size"])
    node.attach(service)
    server = Server(
        node,
        chosen["listen"],
        limits=limits,
        tokens=_tokens(chosen["tokens"]),
        tls=None if cert is None or key is None else Tls(cert, key),
        open_to_all=chosen["open_to_all"],
    ).attach(service)

    @service.task()
    async def announce(stop: Stop) -> None:
        await service.until_ready()
        # Somebody may keep stdout open and not read it: the thread is left behind then.
        OwnThread("standard output").start(functools.partial(_say, server, folders, len(streams.names()), as_json=as_json))
        await stop.wait()

    return service


def _options(chosen: Chosen) -> StreamOptions:
    from outlast.streams import Retention, StreamOptions

    retention = Retention(
        age_s=chosen["retention_age"],
        size_bytes=chosen["retention_size"],
        when_low=chosen["retention_when_low"],
        floor_s=chosen["retention_floor"],
    )
    return StreamOptions(sync_every_s=chosen["sync_every"], retention=retention, quota_bytes=chosen["quota"])


def _tokens(file: Path | None) -> Tokens | None:
    """Return those of the file, or of the environment; None where there are neither."""
    from outlast.http import Tokens

    if file is not None:
        return Tokens.from_file(file, needs=needed_scope)
    return Tokens.from_environment(TOKENS_VARIABLE, needs=needed_scope) if os.environ.get(TOKENS_VARIABLE) else None


def needed_scope(method: str, path: str) -> str | None:
    """Return the scope that a request needs: "read" to look, "write" for all else, none for health and a browser's preflight."""
    if path in HEALTH or method == "OPTIONS":
        return None
    return "read" if method in LOOKS else "write"


def _say(server: Server, folders: tuple[Path, ...], count: int, *, as_json: bool) -> None:
    said: dict[str, Any] = {"url": server.url, "port": server.port, "pid": os.getpid()}
    places = ", ".join(map(str, folders))
    text = f"serving {count:,} stream{'s' * (count != 1)} in {places} on {server.url}"
    bounded(lambda: click.echo(json.dumps(said) if as_json else text), SHOW_S)


def _refused(folders: tuple[Path, ...], error: ConfigurationError) -> CommandError:
    # The lock of a folder is the one thing here that somebody else holds.
    if isinstance(error.__cause__, BlockingIOError):
        holders = ((folder, holder_of(folder / LOCK_NAME)) for folder in folders)
        for folder, holder in holders:
            if holder:
                text = f"cannot serve the streams in {folder}: it is in use by {holder}; stop that first"
                return CommandError(text, Exit.UNAVAILABLE)
        return CommandError(f"cannot serve: {error}", Exit.UNAVAILABLE)
    text = str(error).replace("or say open_to_all=True", "or say --open-to-all")
    return CommandError(f"cannot serve: {text}", Exit.CONFIGURATION)
