"""Commands that only look: ls, cat, tail, cursors, verify. A running service does not notice them."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from outlast import OutlastError
from outlast._cli.errors import Exit
from outlast._cli.streams.group import as_json_option, explained, folder_argument, on_folder, on_stream, printing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from outlast.streams import StoredStream, StoredStreams

POLL_S: Final = 0.25
"""The wait of `tail -f` between two looks at a stream in which nothing is new."""


def add_to(streams: click.Group) -> None:
    """Add the commands."""
    for command in (ls, cat, tail, cursors, verify):
        streams.add_command(command)


@click.command()
@on_folder
def ls(folder: Path, *, as_json: bool) -> int:
    """Show the streams in FOLDER, one a line.

    Exit code 1 if one of them cannot be read; the others are shown.

    Example: outlast streams ls /var/lib/shop
    """
    from outlast._cli.streams import shown

    code = 0
    with explained("list the streams in", folder), printing(), _stored(folder) as found:
        rows: list[dict[str, Any]] = []
        for name in found.names():
            try:
                rows.append(shown.of_stream(found.open(name)))
            except (OutlastError, OSError) as error:
                code = Exit.REFUSED
                rows.append({"name": name, "error": shown.reason_of(error)})
        for path, reason in found.unknown:
            code = Exit.REFUSED
            shown.warn(f"{path} belongs to no stream that is known: {reason}; outlast streams verify says more")
        if as_json:
            shown.print_lines(rows)
        else:
            shown.print_streams(rows)
    return code


@click.command()
@click.option("--from", "start", type=click.IntRange(min=0), default=None, help="The first position; by default the oldest.")
@click.option("--limit", type=click.IntRange(min=0), default=None, help="At most so many records.")
@on_stream
def cat(folder: Path, stream: str, start: int | None, limit: int | None, *, as_json: bool) -> int:
    """Print the records of STREAM up to its tail, each with a line end behind it.

    With --json an object a line: position, time, headers if there are any, and data, or data_base64 where it is no UTF-8.

    Example: outlast streams cat /var/lib/shop orders --from 100 --limit 10 --json
    """
    from outlast._cli.streams.shown import printer

    with explained("read", folder, stream), printing(), _stored(folder) as found:
        opened = found.open(stream)
        _print(opened, opened.oldest if start is None else start, limit, printer(as_json=as_json))
    return 0


@click.command()
@click.option("-n", "--lines", type=click.IntRange(min=0), default=10, show_default=True, help="The last so many records.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is appended, until the stream is closed or Ctrl-C.")
@on_stream
def tail(folder: Path, stream: str, lines: int, *, follow: bool, as_json: bool) -> int:
    """Print the last records of STREAM, and with -f those that come.

    The output is that of cat. What is printed is in the file; it may not be on disk yet.

    Example: outlast streams tail -f /var/lib/shop orders
    """
    from outlast._cli.streams.shown import printer

    out = printer(as_json=as_json)
    with explained("follow" if follow else "read", folder, stream), printing(), _stored(folder) as found:
        opened = found.open(stream)
        position = _print(opened, max(opened.oldest, opened.tail - lines), None, out)
        try:
            while follow and not (opened.is_closed and position == opened.tail):
                if position == opened.tail:
                    time.sleep(POLL_S)
                opened.refresh()
                position = _print(opened, position, None, out)
        except KeyboardInterrupt:
            # The way to end it.
            return 0
    return 0


@click.command()
@folder_argument
@click.argument("stream", required=False)
@as_json_option
def cursors(folder: Path, stream: str | None, *, as_json: bool) -> int:
    """Show the consumers of STREAM, or of all streams: the next position, the lag, and the records that are set aside.

    Example: outlast streams cursors /var/lib/shop orders
    """
    from outlast._cli.streams import shown

    with (
        explained("read the cursors of" if stream else "read the cursors in", folder, stream),
        printing(),
        _stored(folder) as found,
    ):
        names = found.names() if stream is None else [stream]
        rows = [shown.of_consumer(name, each) for name in names for each in found.open(name).consumers()]
        if as_json:
            shown.print_lines(rows)
        else:
            shown.print_consumers(rows)
    return 0


@click.command()
@click.option("--repair", is_flag=True, help="Mend what can be mended; the service must be stopped.")
@on_folder
def verify(folder: Path, *, repair: bool, as_json: bool) -> int:
    """Read every byte in FOLDER and say what is damaged: stream, segment, position.

    Exit code 1 if something is, and could not be repaired.

    Example: outlast streams verify /var/lib/shop
    """
    from outlast._cli.streams import shown
    from outlast.streams import verify as check

    with explained("repair the streams in" if repair else "verify the streams in", folder), printing():
        report = check(folder, repair=repair)
        if as_json:
            click.echo(json.dumps(asdict(report) | {"is_healthy": report.is_healthy}, ensure_ascii=False))
        else:
            shown.print_report(report)
        return 0 if all(finding.is_repaired for finding in report.findings) else Exit.REFUSED


def _print(opened: StoredStream, position: int, limit: int | None, out: Callable[[Any], None]) -> int:
    """Print records up to the tail, and return the position behind the last."""
    left = limit
    while (left is None or left > 0) and (chunk := opened.read(position)):
        out(chunk if left is None else chunk.part(chunk.first, chunk.first + left))
        position = chunk.next
        left = None if left is None else left - len(chunk)
    return position


def _stored(folder: Path) -> StoredStreams:
    from outlast.streams import StoredStreams

    return StoredStreams(folder)
