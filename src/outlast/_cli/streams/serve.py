"""`outlast streams serve`: the streams of one or several folders over HTTP, as this process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Unpack

import click

from outlast import ConfigurationError, Service, run
from outlast._cli.errors import CommandError, Exit
from outlast._cli.output import as_json_option
from outlast._cli.serving import HEALTH, Clients, announce, client_options, served, server_of, tokens_of
from outlast._cli.streams.group import LOCK_NAME, explained, holder_of
from outlast._cli.up import early_signals, process_options
from outlast._cli.values import Duration, Size

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast.streams import StreamOptions

TOKENS_VARIABLE: Final = "OUTLAST_STREAMS_TOKENS"
ADDRESS: Final = "127.0.0.1:4437"
LOOKS: Final = frozenset({"GET", "HEAD"})


class Chosen(Clients):
    """The options of a server, as `outlast.http` and `outlast.streams` want them."""

    streams: int
    retention_age: float | None
    retention_size: int | None
    retention_when_low: bool
    retention_floor: float
    quota: int | None
    sync_every: float
    long_poll: float


def add_to(streams: click.Group) -> None:
    """Add the command."""
    streams.add_command(serve)


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


@click.command()
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True, type=click.Path(path_type=Path))
@client_options(ADDRESS, "streams", TOKENS_VARIABLE)
@click.option("--streams", type=click.IntRange(1), default=100_000, show_default=True, help="Streams at most.")
@_of_new_streams
@click.option("--long-poll", type=Duration(), default="25s", show_default=True, help="The longest wait of a long poll.")
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
    with early_signals(), served("streams"):
        try:
            service = _service(folders, as_json=as_json, chosen=chosen)
            return run(service, listen=admin, report=report, fold_logs=fold_logs, log_format=log_format)
        except ConfigurationError as error:
            held = _held(folders, error)
            if held is None:
                raise
            raise held from error


def _service(folders: tuple[Path, ...], *, as_json: bool, chosen: Chosen) -> Service:
    """Return the service: the store, the node, and the server in front of it."""
    from outlast.streams import Node, Streams

    service = Service("streams", deadline_s=chosen["stop_within"])
    streams = Streams(folders, streams_max=chosen["streams"])
    streams.attach(service)
    node = Node(streams, options=_options(chosen), long_poll_s=chosen["long_poll"], body_bytes_max=chosen["body_size"])
    node.attach(service)
    tokens = tokens_of(chosen["tokens"], TOKENS_VARIABLE, needed_scope)
    server = server_of(node, chosen, tokens=tokens).attach(service)

    def said() -> tuple[dict[str, Any], str]:
        places, count = ", ".join(map(str, folders)), len(streams.names())
        text = f"serving {count:,} stream{'s' * (count != 1)} in {places} on {server.url}"
        return {"url": server.url, "port": server.port}, text

    announce(service, said, as_json=as_json)
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


def needed_scope(method: str, path: str) -> str | None:
    """Return the scope that a request needs: "read" to look, "write" for all else, none for health and a browser's preflight."""
    if path in HEALTH or method == "OPTIONS":
        return None
    return "read" if method in LOOKS else "write"


def _held(folders: tuple[Path, ...], error: ConfigurationError) -> CommandError | None:
    """Return the error that names who has a folder; None for another one."""
    # The lock of a folder is the one thing here that somebody else holds.
    if not isinstance(error.__cause__, BlockingIOError):
        return None
    holders = ((folder, holder_of(folder / LOCK_NAME)) for folder in folders)
    for folder, holder in holders:
        if holder:
            text = f"cannot serve the streams in {folder}: it is in use by {holder}; stop that first"
            return CommandError(text, Exit.UNAVAILABLE)
    return CommandError(f"cannot serve: {error}", Exit.UNAVAILABLE)
